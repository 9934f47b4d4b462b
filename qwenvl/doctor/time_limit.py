"""Time limit of an examination: ends a run that takes too long, within a token."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..observer import Observer


class TimeIsUp(Exception):
    """The time limit has passed."""


class TimeLimit(Observer):
    """Observer that raises ``TimeIsUp`` once ``seconds`` (None: any number) have passed since the
    first request was begun. Loading the model does not count: a disk may be slow."""

    def __init__(self, seconds: float | None = None):
        self._seconds = seconds
        self._end: float | None = None

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        if self._seconds is not None and self._end is None:
            self._end = time.monotonic() + self._seconds

    def check(self) -> None:
        if self._end is not None and time.monotonic() > self._end:
            raise TimeIsUp
