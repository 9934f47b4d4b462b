"""Images read ahead in bounded portions, and results printed in order: memory does not grow with
the number of files and pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from ..errors import BadImage
from ..media.documents import Resolution
from ..types import Result
from .inputs import Input, read_pictures

if TYPE_CHECKING:
    from torch import Tensor

MAX_IMAGES = 128
"""Of a portion: enough to keep a batch full until nearly the last of them is answered."""

MAX_BYTES = 512 << 20
"""Of pixels; a portion ends with the image that exceeds it. Two portions are held at once."""

Portion = dict[int, "Tensor | BadImage"]
"""Images, or the error of reading one, by the index of their input."""


def read_portions(
    inputs: Sequence[Input], resolution: Resolution
) -> Generator[Portion, None, None]:
    """The images of ``inputs``, each portion read in a thread while the one before is in use. A
    caller that may stop early closes it (see ``contextlib.closing``)."""
    stopped = threading.Event()
    portions = _portions(inputs, resolution, stopped)
    with ThreadPoolExecutor(1, "qwenvl-read") as pool:
        try:
            pending = pool.submit(next, portions, None)
            while portion := pending.result():
                pending = pool.submit(next, portions, None)
                yield portion
        finally:
            stopped.set()


def _portions(
    inputs: Sequence[Input], resolution: Resolution, stopped: threading.Event
) -> Generator[Portion, None, None]:
    portion: Portion = {}
    nbytes = 0
    with closing(read_pictures(inputs, resolution)) as pictures:
        for number, picture in enumerate(pictures):
            if stopped.is_set():
                return
            portion[number] = picture
            nbytes += 0 if isinstance(picture, BadImage) else picture.nbytes
            if len(portion) >= MAX_IMAGES or nbytes >= MAX_BYTES:
                yield portion
                portion, nbytes = {}, 0
    if portion:
        yield portion


class OrderedResults:
    """Reorder buffer: shows results by index, from 0, each as soon as all before it are shown.
    ``shown``, ``answered``, ``failed``, ``unreadable``: how many of them were."""

    def __init__(self, show: Callable[[int, Result], None]):
        self._show = show
        self._pending: dict[int, Result] = {}
        self.shown = self.answered = self.failed = self.unreadable = 0

    def put(self, number: int, result: Result) -> None:
        self._pending[number] = result
        while self.shown in self._pending:
            self._show_next(self._pending.pop(self.shown))

    def _show_next(self, result: Result) -> None:
        self._show(self.shown, result)
        self.shown += 1
        if result.finish_reason == "error":
            self.failed += 1
        elif result.error:
            self.unreadable += 1
        else:
            self.answered += 1
