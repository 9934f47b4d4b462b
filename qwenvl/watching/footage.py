"""Footage: a video that is asked about, of which only the frames that are needed are read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from ..errors import BadOption
from ..media import scene_cuts, video, video_files
from ..media.frame_times import FrameChoice
from ..media.video_files import Clip
from ..media.video_sound import SHORTEST
from ..types import Audio, Size, Video

if TYPE_CHECKING:
    from torch import Tensor

Check = Callable[[], None]


class Footage(Protocol):
    """A video of ``length`` seconds, ``size`` (height, width) in pixels. Times are in seconds from
    its beginning. What cannot be read raises ``BadVideo``; ``check`` is called again and again
    meanwhile, and what it raises reaches the caller."""

    @property
    def title(self) -> str: ...

    @property
    def length(self) -> float: ...

    @property
    def size(self) -> Size: ...

    def read(
        self,
        choice: FrameChoice,
        start: float,
        end: float,
        max_pixels: int,
        check: Check,
        sound: bool = False,
    ) -> Video:
        """The frames from ``start`` to ``end`` that ``choice`` names, of at most ``max_pixels``
        pixels each, and, with ``sound``, what is heard meanwhile. Their times are counted from
        ``start``."""
        ...

    def at(self, times: Sequence[float], max_pixels: int, check: Check) -> list[Tensor]:
        """The frame that is shown at each of ``times``, uint8 ``[3, H, W]``: of the video's size,
        or smaller where that has more than ``max_pixels``."""
        ...

    def cuts(self, check: Check) -> tuple[float, ...]:
        """When scenes begin, the first left out, in order."""
        ...


class FileFootage:
    """Footage of a file. ``check`` is called while a file without a length in its head is measured.
    Raises as ``video_files.probe``."""

    def __init__(self, clip: Clip, check: Check = lambda: None):
        self.clip, self.title = clip, clip.title
        facts = video_files.probe(clip, check)
        self.length, self.size = facts.duration, facts.size
        self.has_audio = facts.has_audio

    def read(
        self,
        choice: FrameChoice,
        start: float,
        end: float,
        max_pixels: int,
        check: Check,
        sound: bool = False,
    ) -> Video:
        part = self.clip.part(start, None if end >= self.length else end)
        return video.read(part, choice, max_pixels, check, sound)

    def at(self, times: Sequence[float], max_pixels: int, check: Check) -> list[Tensor]:
        return video.frame_for_each(self.clip, times, max_pixels, check)

    def cuts(self, check: Check) -> tuple[float, ...]:
        return tuple(sorted(scene_cuts.scene_cuts(self.clip, check)))


class FrameFootage:
    """Footage of pictures, uint8 ``[T, 3, H, W]``, ``fps`` of them a second, and of the sound that
    is heard meanwhile. Raises ``BadOption`` for a rate that is not above 0."""

    def __init__(
        self, frames: Tensor, fps: float, title: str = "The frames", sound: Audio | None = None
    ):
        if not 0 < fps < float("inf"):
            raise BadOption(f"The frames come at {fps:g} a second; fps must be above 0.")
        self.frames, self.fps, self.title = frames, fps, title
        self.sound = sound
        self.length = len(frames) / fps
        height, width = frames.shape[-2:]
        self.size: Size = (height, width)

    def read(
        self,
        choice: FrameChoice,
        start: float,
        end: float,
        max_pixels: int,
        check: Check,
        sound: bool = False,
    ) -> Video:
        first, last = self.numbers(start, end)
        found = video.from_frames(self.frames[first:last], self.fps, choice, check)
        heard = self._heard(first / self.fps, last / self.fps) if sound else None
        frames = _bounded(found.frames, max_pixels, check)
        return dataclasses.replace(found, frames=frames, audio=heard)

    def _heard(self, start: float, end: float) -> Audio | None:
        """Of its sound the part from ``start`` to ``end``; None where that is too short."""
        if self.sound is None:
            return None
        first, last = (round(time * self.sound.rate) for time in (start, end))
        samples = self.sound.samples[..., first:last]
        enough = samples.shape[-1] >= SHORTEST * self.sound.rate
        return Audio(samples, self.sound.rate) if enough else None

    def numbers(self, start: float, end: float) -> tuple[int, int]:
        """The frames from ``start`` to ``end``, at least one: the first, and the one behind the
        last."""
        first = min(max(0, round(start * self.fps)), len(self.frames) - 1)
        return first, max(first + 1, min(round(end * self.fps), len(self.frames)))

    def at(self, times: Sequence[float], max_pixels: int, check: Check) -> list[Tensor]:
        most = len(self.frames) - 1
        numbers = [min(int(time * self.fps + 0.005), most) for time in times]
        return list(_bounded(self.frames[numbers], max_pixels, check))

    def cuts(self, check: Check) -> tuple[float, ...]:
        timed = video.timed(self.frames, self.fps, check)
        return tuple(sorted(scene_cuts.marked_cuts(timed)))


def _bounded(frames: Tensor, max_pixels: int, check: Check) -> Tensor:
    """Frames ``[T, 3, H, W]`` shrunk to at most so many pixels each, one at a time: as floats, all
    of them would be four times as large."""
    import torch

    size = video.bounded_size(tuple(frames.shape[-2:]), max_pixels)
    if size == tuple(frames.shape[-2:]):
        return frames
    scaled = torch.empty(len(frames), 3, *size, dtype=torch.uint8)
    for number, frame in enumerate(frames):
        check()
        floats = torch.nn.functional.interpolate(
            frame[None].float(), size=size, mode="bilinear", antialias=True
        )
        scaled[number] = floats[0].round().clamp(0, 255).to(torch.uint8)
    return scaled
