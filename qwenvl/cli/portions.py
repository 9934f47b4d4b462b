"""Many files, a portion at a time, and their results in order: memory does not grow with them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from ..errors import BadImage
from ..types import Result

if TYPE_CHECKING:
    from torch import Tensor

PICTURES = 128
"""As many are read at a time: enough to keep a batch full until nearly the last is answered."""

NBYTES = 512 << 20
"""Of pixels; a portion ends with the picture that goes beyond. Two portions are held at once."""

Portion = dict[int, "Tensor | BadImage"]
"""Pictures, or why there is none, by the number of their file."""


def portions(paths: Sequence[str]) -> Generator[Portion, None, None]:
    """The pictures of ``paths``, read in a thread of their own while the portion before is in use.
    To be closed (see ``contextlib.closing``) by whoever leaves off amid it."""
    ended = threading.Event()
    reading = _portions(paths, ended)
    with ThreadPoolExecutor(1, "qwenvl-read") as pool:
        try:
            coming = pool.submit(next, reading, None)
            while portion := coming.result():
                coming = pool.submit(next, reading, None)
                yield portion
        finally:
            ended.set()


def _portions(paths: Sequence[str], ended: threading.Event) -> Generator[Portion, None, None]:
    from ..media import images

    portion: Portion = {}
    nbytes = 0
    for number, path in enumerate(paths):
        if ended.is_set():
            return
        try:
            picture = portion[number] = images.read(path)
            nbytes += picture.nbytes
        except BadImage as error:
            portion[number] = error
        if len(portion) >= PICTURES or nbytes >= NBYTES:
            yield portion
            portion, nbytes = {}, 0
    if portion:
        yield portion


class InOrder:
    """Shows results in the order of their numbers, 0 and up, each as soon as those before it are
    shown. ``shown``, ``answered``, ``failed``, ``unreadable``: how many of them were."""

    def __init__(self, show: Callable[[int, Result], None]):
        self._show = show
        self._waiting: dict[int, Result] = {}
        self.shown = self.answered = self.failed = self.unreadable = 0

    def put(self, number: int, result: Result) -> None:
        self._waiting[number] = result
        while self.shown in self._waiting:
            self._next(self._waiting.pop(self.shown))

    def _next(self, result: Result) -> None:
        self._show(self.shown, result)
        self.shown += 1
        if result.finish_reason == "error":
            self.failed += 1
        elif result.error:
            self.unreadable += 1
        else:
            self.answered += 1
