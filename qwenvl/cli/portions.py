"""Images read ahead in bounded portions: memory does not grow with the number of files and
pages."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, TypeVar

from ..errors import BadImage
from ..media.documents import Resolution
from .inputs import Input, read_pictures

if TYPE_CHECKING:
    from torch import Tensor

MAX_IMAGES = 128
"""Of a portion: enough to keep a batch full until nearly the last of them is answered."""

MAX_BYTES = 512 << 20
"""Of pixels; a portion ends with the image that exceeds it. Two portions are held at once."""

MAX_MEDIA = 4
"""Sounds or videos of a portion, all of which are held meanwhile."""

T = TypeVar("T")

Portion = dict[int, "Tensor | BadImage"]
"""Images, or the error of reading one, by the index of their input."""


def read_portions(
    inputs: Sequence[Input], resolution: Resolution
) -> Generator[Portion, None, None]:
    """The images of ``inputs``, each portion read in a thread while the one before is in use. A
    caller that may stop early closes it (see ``contextlib.closing``)."""
    return read_ahead(lambda stopped: _portions(inputs, resolution, stopped))


def media_portions(count: int) -> Iterator[range]:
    """Numbers of ``count`` sounds or videos."""
    for first in range(0, count, MAX_MEDIA):
        yield range(first, min(first + MAX_MEDIA, count))


def read_ahead(
    portions: Callable[[threading.Event], Generator[T, None, None]],
) -> Generator[T, None, None]:
    """What ``portions`` gives, each made in a thread while the one before is in use. A caller that
    may stop early closes this; the event is set then, and ``portions`` has to end."""
    stopped = threading.Event()
    made = portions(stopped)
    with ThreadPoolExecutor(1, "qwenvl-read") as pool:
        try:
            pending = pool.submit(next, made, None)
            while (portion := pending.result()) is not None:
                pending = pool.submit(next, made, None)
                yield portion
        finally:
            stopped.set()
            pool.submit(made.close)  # in the thread that it runs in, which may be busy with it


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
