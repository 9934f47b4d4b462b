"""Frame reader: the frames of a video at given times, found by seeking.

A frame is shown from its own pts to the next one's, whatever the average frame rate. Nothing is
held but the decoder's own frames: memory does not grow with the length of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import BadVideo
from ..types import Size
from .video_files import OpenVideo

if TYPE_CHECKING:
    from torch import Tensor

_FORWARD = 1.0
"""Seconds that are decoded through rather than searched over, until it is known how far apart the
file's keyframes are."""

_TOLERANCE = 0.005
"""Seconds by which rounding (of a container to milliseconds, say) may put a frame late."""


class FrameReader:
    """Reads frames of ``video``; quickest for rising times. ``end``: when the last frame was
    found to be, and ``over``: until when it is shown, in seconds, once it was reached.
    ``check`` is called for every packet; what it raises ends the reading."""

    def __init__(self, video: OpenVideo, check: Callable[[], None] = lambda: None):
        self._video, self._check = video, check
        self.end: float | None = None
        self.over: float | None = None
        rate = float(video.stream.average_rate or 0)
        self._apart = 1 / rate if rate else 0.0
        self._tolerance = min(_TOLERANCE, 0.25 / rate) if rate else _TOLERANCE
        # Where times have to be sorted none may be left out.
        self._near = int(2 / rate / video.time_base) if rate and not video.unsure else 0
        self._forward = int(_FORWARD / video.time_base)
        self._frames: Iterator[Any] = iter(())
        self._shown: Any = None  # the last frame at or before the time that was asked for
        self._next: Any = None  # the one behind it

    def at(self, seconds: float) -> Any:
        """The PyAV frame that is shown ``seconds`` behind the first one; the last one behind the
        end. Raises ``BadVideo`` where there is none."""
        target = self._video.ticks(seconds + self._tolerance)
        self._video.skip_before = target - self._near if self._near else None
        if not self._is_ahead(target):
            self._seek(target)
        self._advance(target)
        if self._video.skipped > self._shown.pts:  # frames are further apart here than elsewhere
            self._video.skip_before = None
            self._seek(target)
            self._advance(target)
        self._video.skip_before = None
        if self._next is None:
            self.end = self._video.seconds(self._shown.pts)
            lasts = float(self._shown.duration or 0) * self._video.time_base
            self.over = self.end + max(lasts, self._apart)
        return self._shown

    def _advance(self, target: int) -> None:
        while self._next is not None and self._next.pts <= target:
            self._shown, self._next = self._next, next(self._frames, None)

    def between(self, start: float, end: float | None = None) -> Iterator[Any]:
        """All frames that are shown from ``start`` up to ``end`` seconds (None: the last)."""
        frame = self.at(start)
        last = None if end is None else self._video.ticks(end)
        while frame is not None and (last is None or frame.pts < last):
            yield frame
            self._shown, self._next = self._next, next(self._frames, None)
            frame = self._shown

    def _is_ahead(self, target: int) -> bool:
        """Whether ``target`` is reached soonest by decoding on."""
        if self._shown is None or target < self._shown.pts:
            return False
        return self._next is None or target - self._shown.pts <= self._forward

    def _seek(self, target: int) -> None:
        """To the last frame at or before ``target`` that can be decoded by itself."""
        second = int(1 / self._video.time_base)
        earliest = self._video.origin - second  # some files find their first frame only from there
        back = 0
        while True:
            position = max(earliest, target - back)
            first = self._first_from(position)
            if first is None and position == earliest:  # AVI is not searched before its beginning
                first = self._first_from(self._video.origin)
            is_sure = first is not None and first.pts + self._video.unsure <= target
            if is_sure or (first is not None and position == earliest):
                break
            if position == earliest:
                title = self._video.clip.title
                raise BadVideo(f"{title} cannot be searched for single frames, it is damaged.")
            # MPEG-TS may lead behind the target; behind the end there is nothing at all.
            back = 2 * back or second
        self._forward = max(self._forward, target - first.pts)
        self._shown, self._next = first, next(self._frames, None)

    def _first_from(self, position: int) -> Any:
        """The first frame behind a seek; None where there is none."""
        import av

        self._frames = iter(())
        self._video.skipped = -(1 << 63)
        try:
            self._video.container.seek(position, stream=self._video.stream, backward=True)
        except av.FFmpegError:
            return None  # behind the last keyframe that the file knows of: further back
        self._frames = self._video.decoded(self._video.stream, self._check)
        return next(self._frames, None)


def rgb(frame: Any, size: Size, rotation: int = 0) -> Tensor:
    """A PyAV frame as uint8 ``[*size, 3]``, averaged over areas and then turned by ``rotation``
    degrees counter-clockwise."""
    import torch

    height, width = size[::-1] if rotation % 180 else size
    pixels = frame.reformat(width, height, "rgb24", interpolation="AREA").to_ndarray()
    upright = torch.from_numpy(pixels)
    return torch.rot90(upright, rotation // 90) if rotation else upright
