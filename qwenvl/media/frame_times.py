"""Frame sampling: at which times of a video its frames are looked at. Standard library only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..errors import BadOption

MIN_FRAMES, MAX_FRAMES, FPS = 4, 768, 2.0
"""Least and most frames of a video, and how many a second, as in Qwen's own tools
(qwen-vl-utils: FPS_MIN_FRAMES, FPS_MAX_FRAMES, FPS)."""

_RANGES = {"fps": (0.001, 240.0), "every": (0.001, 86_400.0), "count": (1, 4096)}

Mode = Literal["fps", "every", "count", "scenes"]


@dataclass(frozen=True)
class FrameChoice:
    """Which frames of a video are shown to a model.

    ``mode``: ``fps`` takes ``value`` frames a second, ``every`` one in ``value`` seconds, ``count``
    so many in all, each spread evenly from the first frame to the last; ``scenes`` takes the first
    frame of each scene. ``min_frames`` and ``max_frames`` bound their number, that of
    ``count`` only upwards, and no video gives more frames than it has. ``multiple``: a number that
    follows from the length is rounded down to a multiple of it, since models read frames in pairs.
    Raises ``BadOption`` for a value outside its range."""

    mode: Mode = "fps"
    value: float = FPS
    min_frames: int = MIN_FRAMES
    max_frames: int = MAX_FRAMES
    multiple: int = 2

    def __post_init__(self) -> None:
        low, high = _RANGES.get(self.mode, (float("-inf"), float("inf")))
        if not low <= self.value <= high:
            raise BadOption(
                f"{self.mode} of a video is {self.value:g}; it may be {low:g} to {high:g}."
            )
        if not 1 <= self.min_frames <= self.max_frames:
            raise BadOption(
                f"A video's least frames ({self.min_frames}) and most frames ({self.max_frames}) "
                "must be 1 or more, and in this order."
            )


def frame_times(
    choice: FrameChoice, duration: float, rate: float, scenes: Sequence[float] = ()
) -> tuple[float, ...]:
    """Times in seconds from the beginning of a video of ``duration`` seconds and about ``rate``
    frames a second (0: unknown). ``scenes``: when its scenes begin, most marked first, where
    ``choice`` goes by them."""
    last = max(0.0, duration - 1 / rate) if rate else duration
    held = max(1, round(duration * rate)) if rate else choice.max_frames
    if choice.mode == "scenes":
        return _scene_times(choice, scenes, last, held)
    if choice.mode == "every":
        number = int(last / choice.value + 1e-6) + 1
        if choice.min_frames <= number <= min(choice.max_frames, held):
            return tuple(index * choice.value for index in range(number))
    elif choice.mode == "count":
        return _spread(last, rate, min(int(choice.value), choice.max_frames, held))
    else:
        number = int(duration * choice.value + 1e-6)
    number = min(max(number, choice.min_frames), choice.max_frames, held)
    return _spread(last, rate, _rounded(number, choice.multiple))


def _spread(last: float, rate: float, number: int) -> tuple[float, ...]:
    """``number`` times from 0 to ``last``, as far apart as the nearest frames of an even rate are:
    those that Qwen's own tools choose."""
    times = (index * last / max(1, number - 1) for index in range(number))
    return tuple(round(time * rate) / rate if rate else time for time in times)


def _rounded(number: int, multiple: int) -> int:
    return number // multiple * multiple or number


def _scene_times(
    choice: FrameChoice, scenes: Sequence[float], last: float, held: int
) -> tuple[float, ...]:
    """The first frames of the most marked scenes; more in the middle of the longest gaps where
    there are too few."""
    found = sorted({0.0, *scenes[: choice.max_frames - 1]})
    while len(found) < min(choice.min_frames, held):
        ends = [*found[1:], last]
        gap, start = max((end - at, at) for at, end in zip(found, ends, strict=True))
        if gap <= 0:
            break
        # Behind the last scene there is an end to look at, in others only their middle.
        found = sorted({*found, last if start == found[-1] else start + gap / 2})
    return tuple(found)
