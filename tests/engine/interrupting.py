"""A host's interrupts."""

from __future__ import annotations

from qwen_vl_suite.qwenvl.observer import Observer


class Interrupt(BaseException):
    """As hosts raise it: not an ``Exception``, so that nothing catches it by accident."""


class InterruptAt(Observer):
    """Raises at the ``checks``-th check."""

    def __init__(self, checks: int):
        self._left = checks

    def check(self) -> None:
        self._left -= 1
        if not self._left:
            raise Interrupt
