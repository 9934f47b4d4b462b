"""Read-ahead: pictures and clips decoded while the model is busy with those before them."""

from __future__ import annotations

import math
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadImage, BadVideo
from ..media.frame_times import FrameChoice
from ..media.video import MAX_FRAME_PIXELS
from ..types import ServerSpec, Spec, Video
from ..unicode import well_formed
from .listing import Item

FIRST, FEW, MOST = 16, 16, 128
"""Files that are asked about first, so that the first answers come soon; that join those under way
at a time, so that these are not held up for long; and that are read ahead."""

MAX_BYTES = 512 << 20
"""Of pixels that are read ahead; as many more may be asked about."""

PATIENCE = 1.0
"""Seconds from the first of some files on in which the others may come."""

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
    """Files that are asked about ``first``, and that are read ahead at ``most``."""

    first: int = FIRST
    most: int = MOST

    @classmethod
    def of(cls, spec: Spec) -> Sizes:
        """For a model: one behind servers is to have enough requests under way."""
        if not isinstance(spec, ServerSpec):
            return cls()
        at_once = spec.concurrency * len(spec.urls)
        return cls(max(FIRST, 2 * at_once), max(MOST, 8 * at_once))


class Reader:
    """Files of ``items`` with what ``read`` makes of them, read ahead in threads of its own, in
    which ``items`` is gone through as well. To be closed by whoever made it; ``stopped`` is set
    then, for ``items`` and ``read`` to end."""

    def __init__(
        self,
        items: Iterator[Item],
        read: Callable[[Item], Any],
        sizes: Sizes,
        stopped: threading.Event,
    ):
        self._sizes, self._stopped = sizes, stopped
        self._ahead: deque[tuple[Item, Any]] = deque()
        self._nbytes = 0  # of those
        self._changed = threading.Condition()
        self._end: BaseException | bool = False  # why no more will come
        self._thread = threading.Thread(
            target=self._run, args=(items, read), name="qwenvl-read", daemon=True
        )
        self._thread.start()

    def take(self, wait: bool, check: Callable[[], None] = lambda: None) -> Portion | None:
        """Files that are read; None behind the last. With ``wait`` all that there are, the first of
        ``sizes`` at least unless they take longer than ``PATIENCE``, else ``FEW`` at most.
        ``check`` is called while they are waited for, and what it raises reaches the caller; so
        does, with ``wait``, what ``items`` or ``read`` raise behind the files that come before."""
        with self._changed:
            patient_until = math.inf
            while wait and not self._is_enough():
                if self._ahead:
                    patient_until = min(patient_until, time.monotonic() + PATIENCE)
                if time.monotonic() >= patient_until:
                    break
                self._changed.wait(WAIT)
                check()
            if not self._ahead and isinstance(self._end, BaseException) and wait:
                raise self._end
            if not self._ahead and self._end is True:
                return None
            most = len(self._ahead) if wait else min(FEW, len(self._ahead))
            portion = [self._ahead.popleft() for _ in range(most)]
            self._nbytes -= sum(nbytes(media) for _, media in portion)
            self._changed.notify_all()
            return portion

    def close(self) -> None:
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join()

    def _is_enough(self) -> bool:
        return bool(self._end) or len(self._ahead) >= self._sizes.first or self._is_full()

    def _is_full(self) -> bool:
        return len(self._ahead) >= self._sizes.most or self._nbytes >= MAX_BYTES

    def _run(self, items: Iterator[Item], read: Callable[[Item], Any]) -> None:
        end: BaseException | bool = True
        try:
            workers = max(1, min(THREADS, os.cpu_count() or 1))
            with ThreadPoolExecutor(workers, "qwenvl-decode") as pool:
                for item, media in _decoded(items, read, pool, workers):
                    if not self._put(item, media):
                        break
        except BaseException as error:  # it is the caller's to raise
            end = error
        with self._changed:
            self._end = end
            self._changed.notify_all()

    def _put(self, item: Item, media: Any) -> bool:
        """Waits for room. False where nobody waits for it any more."""
        with self._changed:
            while self._is_full() and not self._stopped.is_set():
                self._changed.wait()
            self._ahead.append((item, media))
            self._nbytes += nbytes(media)
            self._changed.notify_all()
            return not self._stopped.is_set()


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


def nbytes(media: Any) -> int:
    """Of its pixels; 0 of what could not be read."""
    pixels = media.frames if isinstance(media, Video) else media
    return 0 if isinstance(pixels, BadImage) else int(pixels.nbytes)
