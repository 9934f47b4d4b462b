"""A host that stops what is going on."""

from __future__ import annotations

from qwen_vl_suite.qwenvl.observer import Observer


class Interrupt(BaseException):
    """As hosts raise it: no ``Exception``, so that nobody catches it by accident."""


class InterruptAt(Observer):
    """Stops when it is asked for the ``checks``-th time whether to go on."""

    def __init__(self, checks: int):
        self._left = checks

    def check(self) -> None:
        self._left -= 1
        if not self._left:
            raise Interrupt
