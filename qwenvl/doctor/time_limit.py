"""Time limit of an examination: ends a run that takes too long, within a token."""

from __future__ import annotations

import time

from ..observer import Observer


class TimeIsUp(Exception):
    """The time limit has passed."""


class TimeLimit(Observer):
    """Observer that raises ``TimeIsUp`` once ``seconds`` have passed since it was made (None:
    never)."""

    def __init__(self, seconds: float | None = None):
        self.seconds = seconds
        self._end = None if seconds is None else time.monotonic() + seconds

    def check(self) -> None:
        if self._end is not None and time.monotonic() > self._end:
            raise TimeIsUp
