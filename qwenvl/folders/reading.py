"""Read-ahead: pictures and clips decoded while the model is busy with those before them."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadImage, BadVideo
from ..media.frame_times import FrameChoice
from ..media.video import MAX_FRAME_PIXELS
from ..types import ServerSpec, Spec, Video
from ..unicode import well_formed
from .listing import Item

FIRST, MOST = 16, 128
"""Files of the first portion, so that the first answers come soon, and of those that follow, each
twice as many as the one before: enough to keep a batch full until nearly the last is answered."""

MAX_BYTES = 512 << 20
"""Of pixels; a portion ends with the file that exceeds it. Two portions are held at once."""

THREADS = 4
"""That decode, where there are as many processors."""

WAIT = 0.2
"""Seconds between two looks at whether the run is to stop."""

Portion = list[tuple[Item, Any]]
"""Files, each with its picture (uint8 ``[3, H, W]``), its ``Video``, or the ``BadImage`` of reading
it."""


class Stopped(Exception):
    """Nobody waits for what is being read any more."""


def read(
    item: Item,
    frames: FrameChoice,
    frame_pixels: int = MAX_FRAME_PIXELS,
    check: Callable[[], None] = lambda: None,
) -> Any:
    """What is in a file, or why it cannot be shown. ``frames``: which are read of a clip, of at
    most ``frame_pixels`` pixels each. ``check`` is called while a clip is read; what it raises
    reaches the caller."""
    try:
        if not os.path.isfile(item.path):
            return BadImage(f"{item.path} cannot be read: it is {_what(item.path)}.")
        if os.path.getsize(item.path) == 0:
            return BadImage(f"{item.path} cannot be read: it is empty.")
        if item.is_clip:
            return _video(item, frames, frame_pixels, check)
        from ..media import images

        return images.read(item.path)
    except BadImage as error:
        return error
    except OSError as error:
        return BadImage(f"{item.path} cannot be read: {error.strerror}.")


def why(item: Item, error: BadImage) -> str:
    """An error of ``read``, for a reader who is told which file it is about."""
    text = str(error)
    for name in (str(item.path), well_formed(item.relative)):
        text = text.removeprefix(name).lstrip(": ")
    return text


def _what(path: Path) -> str:
    """Of a path that is no regular file."""
    if path.exists():
        return "no file"
    return "a link to nothing" if path.is_symlink() else "gone"


def _video(
    item: Item, frames: FrameChoice, frame_pixels: int, check: Callable[[], None]
) -> Video | BadVideo:
    from ..media.video_files import Clip
    from ..tasks.describe_video import describe_video
    from ..watching import FileFootage, Viewing, Whole

    footage = FileFootage(Clip(str(item.path), name=well_formed(item.relative)), check)
    whole = Whole(lambda length: describe_video())
    return Viewing(footage, whole, frames, check, frame_pixels=frame_pixels).read()


@dataclass(frozen=True)
class Sizes:
    """Of portions, in files: of the ``first``, and at ``most``."""

    first: int = FIRST
    most: int = MOST

    @classmethod
    def of(cls, spec: Spec) -> Sizes:
        """For a model: one behind servers is to have enough requests under way until nearly the
        end of a portion."""
        if not isinstance(spec, ServerSpec):
            return cls()
        at_once = spec.concurrency * len(spec.urls)
        return cls(max(FIRST, 2 * at_once), max(MOST, 8 * at_once))


def portions(
    items: Iterator[Item],
    read: Callable[[Item], Any],
    sizes: Sizes,
    check: Callable[[], None] = lambda: None,
    stopped: threading.Event | None = None,
) -> Generator[Portion, None, None]:
    """The files of ``items``, each portion read while the one before is in use; ``items`` is gone
    through in a thread. ``check`` is called while a portion is waited for; what it raises reaches
    the caller. A caller that may stop early closes it (see ``contextlib.closing``); ``stopped`` is
    set then, for ``items`` to end."""
    stopped = stopped or threading.Event()
    workers = max(1, min(THREADS, os.cpu_count() or 1))
    with ThreadPoolExecutor(workers, "qwenvl-decode") as pool:
        parts = _portions(items, read, sizes, pool, workers, stopped)
        with ThreadPoolExecutor(1, "qwenvl-read") as feeder:
            try:
                pending = feeder.submit(next, parts, None)
                while portion := _result(pending, check):
                    pending = feeder.submit(next, parts, None)
                    yield portion
            finally:
                stopped.set()


def _result(pending: Future[Portion | None], check: Callable[[], None]) -> Portion | None:
    while not wait([pending], timeout=WAIT).done:
        check()
    return pending.result()


def _portions(
    items: Iterator[Item],
    read: Callable[[Item], Any],
    sizes: Sizes,
    pool: ThreadPoolExecutor,
    workers: int,
    stopped: threading.Event,
) -> Generator[Portion, None, None]:
    portion: Portion = []
    nbytes, most = 0, min(sizes.first, sizes.most)
    for item, media in _decoded(items, read, pool, workers):
        if stopped.is_set():
            return
        portion.append((item, media))
        nbytes += _nbytes(media)
        if len(portion) >= most or nbytes >= MAX_BYTES:
            yield portion
            portion, nbytes, most = [], 0, min(2 * most, sizes.most)
    if portion:
        yield portion


def _decoded(
    items: Iterator[Item], read: Callable[[Item], Any], pool: ThreadPoolExecutor, workers: int
) -> Iterator[tuple[Item, Any]]:
    """In order, a few pictures at once; each clip by itself, for what it takes."""
    window: deque[tuple[Item, Future[Any]]] = deque()
    for item in items:
        if item.is_clip:
            while window:
                first, future = window.popleft()
                yield first, future.result()
            yield item, read(item)
            continue
        window.append((item, pool.submit(read, item)))
        if len(window) > workers:
            first, future = window.popleft()
            yield first, future.result()
    while window:
        first, future = window.popleft()
        yield first, future.result()


def _nbytes(media: Any) -> int:
    pixels = media.frames if isinstance(media, Video) else media
    return 0 if isinstance(pixels, BadImage) else int(pixels.nbytes)
