"""Video: frames of a file or of a batch of pictures, each with its true time."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from ..errors import BadVideo
from ..types import Size, Video
from .frame_reader import FrameReader, rgb
from .frame_times import FrameChoice, frame_times
from .scene_cuts import marked_cuts, scene_cuts
from .video_files import Clip, OpenVideo, VideoFacts, opened
from .video_sound import heard_sound

if TYPE_CHECKING:
    from torch import Tensor

MAX_FRAME_PIXELS = 768 * 32**2
"""Most pixels of a frame that is read: 768 tokens, of which Qwen's own tools show no more."""

DEFAULT_CHOICE = FrameChoice()

Check = Callable[[], None]


def read(
    clip: Clip,
    choice: FrameChoice = DEFAULT_CHOICE,
    max_pixels: int = MAX_FRAME_PIXELS,
    check: Check = lambda: None,
    sound: bool = False,
) -> Video:
    """The frames of ``clip`` that ``choice`` names, each of at most ``max_pixels`` pixels, with
    their times in seconds from the beginning of the clip; with ``sound``, what is heard in it too,
    if anything is.

    ``check`` is called again and again; what it raises ends the reading. Raises ``BadVideo`` (see
    ``video_files.opened``). A damaged part costs its own frames, which a note tells.
    """
    # A file is read by one reader at a time.
    cuts = scene_cuts(clip, check, choice.max_frames) if choice.mode == "scenes" else ()
    with opened(clip) as video:
        facts = video.facts(check)
        times = frame_times(choice, facts.duration, facts.rate, cuts)
        found, _ = _frames_at(video, facts, times, max_pixels, check)
    return dataclasses.replace(found, audio=heard_sound(clip, check)) if sound else found


def frames_at(
    clip: Clip,
    times: Sequence[float],
    max_pixels: int = MAX_FRAME_PIXELS,
    check: Check = lambda: None,
) -> Video:
    """The frames of ``clip`` that are shown at ``times``, seconds from its beginning, with the
    times at which they begin to be. A frame that is shown at several of them is there once. Raises
    as ``read``."""
    with opened(clip) as video:
        return _frames_at(video, video.facts(check), times, max_pixels, check)[0]


def frame_for_each(
    clip: Clip,
    times: Sequence[float],
    max_pixels: int = MAX_FRAME_PIXELS,
    check: Check = lambda: None,
) -> list[Tensor]:
    """As ``frames_at``, but the frame ``[3, H, W]`` for each of ``times``, in their order. Two of
    them may be the same tensor's."""
    with opened(clip) as video:
        shown, numbers = _frames_at(video, video.facts(check), times, max_pixels, check)
    return [shown.frames[numbers[time]] for time in times]


def from_frames(
    frames: Tensor,
    fps: float,
    choice: FrameChoice = DEFAULT_CHOICE,
    check: Check = lambda: None,
) -> Video:
    """A video of pictures ``[T, 3, H, W]`` (uint8) that follow one another ``fps`` times a second,
    or of those among them that ``choice`` names. ``check`` as in ``read``."""
    cuts: Sequence[float] = ()
    if choice.mode == "scenes":
        cuts = marked_cuts(timed(frames, fps, check), choice.max_frames)
    times = frame_times(choice, len(frames) / fps, fps, cuts)
    numbers = sorted({min(round(time * fps), len(frames) - 1) for time in times})
    return Video(frames[numbers], tuple(number / fps for number in numbers))


def timed(frames: Tensor, fps: float, check: Check) -> Iterator[tuple[float, Tensor]]:
    """Each frame with its time in seconds, ``check`` called before each."""
    for number, frame in enumerate(frames):
        check()
        yield number / fps, frame


def _frames_at(
    video: OpenVideo, facts: VideoFacts, times: Sequence[float], max_pixels: int, check: Check
) -> tuple[Video, dict[float, int]]:
    """As ``frames_at``, of an open file, and which of the frames is shown at each of ``times``."""
    import torch

    from .images import empty

    start, reader = video.clip.start, FrameReader(video, check)
    size = bounded_size(video.size, max_pixels)
    pixels = empty((len(times), *size, 3), torch.uint8, torch.device("cpu")).numpy()
    shown: list[int] = []
    numbers: dict[float, int] = {}
    for time in sorted(times):
        frame = reader.at(start + time)
        if not shown or frame.pts > shown[-1]:
            # Torch would wake all its threads for each frame.
            pixels[len(shown)] = rgb(frame, size, video.rotation).numpy()
            shown.append(frame.pts)
        numbers[time] = len(shown) - 1
    seconds = tuple(max(0.0, video.seconds(pts) - start) for pts in shown)
    notes = _damage(reader, video, facts, max(times))
    frames = torch.from_numpy(pixels)[: len(shown)].movedim(-1, 1)
    return Video(frames, seconds, notes=notes), numbers


def bounded_size(size: Size, max_pixels: int) -> Size:
    """``size`` shrunk to at most ``max_pixels`` pixels, its aspect ratio kept. Raises ``BadImage``
    for one that no model can be given."""
    from .images import check_aspect

    height, width = size
    check_aspect(height, width)
    shrink = math.sqrt(max(1.0, height * width / max_pixels))
    return max(1, math.floor(height / shrink)), max(1, math.floor(width / shrink))


def _damage(
    reader: FrameReader, video: OpenVideo, facts: VideoFacts, wanted: float
) -> tuple[str, ...]:
    """What to say of a video of which not all could be read, up to ``wanted`` seconds."""
    start = video.clip.start
    if reader.end is not None and reader.over is not None and reader.over <= start:
        raise BadVideo(f"The video ends at {reader.end:.3g} s, before the part that was asked for.")
    slack = 0.5 + 2 / facts.rate if facts.rate else 1.0
    if reader.end is not None and reader.end - start + slack < wanted:
        return (
            f"The video is said to be {facts.duration:.4g} s long, but its pictures end at "
            f"{reader.end - start:.4g} s: the rest is damaged, missing, or sound alone.",
        )
    return ("Parts of the video are damaged and were left out.",) if video.is_damaged else ()
