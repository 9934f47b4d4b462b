"""Scene cuts: when the picture of a video changes at once, found by comparing thumbnails."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from .frame_reader import FrameReader, rgb
from .video_files import Clip, opened

if TYPE_CHECKING:
    from torch import Tensor

MOST_CUTS = 4096

_THUMBNAIL = 18, 32  # height and width: motion within a scene hardly shows
_LEAST_CHANGE = 0.08  # mean difference of a cut, of 0 to 1
_STANDS_OUT = 3.0  # how many times the change of the frames around it
_AROUND = 12  # frames before a cut that it is compared with
_LEAST_SCENE = 0.25  # seconds between two cuts: a flash is none


def scene_cuts(
    clip: Clip, check: Callable[[], None] = lambda: None, most: int = MOST_CUTS
) -> tuple[float, ...]:
    """When scenes of ``clip`` begin, the first left out, in seconds from its beginning: the
    ``most`` marked, most marked first. Every frame is decoded, one at a time. Raises as
    ``video_files.opened``."""
    with opened(clip) as video:
        end = clip.start + video.facts().duration
        timed = (
            (video.seconds(frame.pts) - clip.start, rgb(frame, _THUMBNAIL).movedim(-1, 0))
            for frame in FrameReader(video, check).between(clip.start, end)
        )
        return marked_cuts(timed, most)


def marked_cuts(frames: Iterable[tuple[float, Tensor]], most: int = MOST_CUTS) -> tuple[float, ...]:
    """As ``scene_cuts``, of ``frames``: times and pixels (uint8 ``[3, H, W]``).

    A cut is a change of the whole picture by at least 8 % of its range that is three times as large
    as any of the dozen before it, as far as these are of the same scene.
    """
    found: list[tuple[float, float]] = []  # change, time
    before: Any = None
    usual: deque[float] = deque(maxlen=_AROUND)
    last = -_LEAST_SCENE
    for time, pixels in frames:
        thumbnail = _thumbnail(pixels)
        change = 0.0 if before is None else float((thumbnail - before).abs().mean())
        is_cut = change >= max(_LEAST_CHANGE, _STANDS_OUT * max(usual, default=0.0))
        if is_cut and time - last >= _LEAST_SCENE:
            found.append((change, time))
            last = time
            usual.clear()
        elif before is not None:
            usual.append(change)
        before = thumbnail
    return tuple(time for _, time in sorted(found, reverse=True)[:most])


def _thumbnail(pixels: Tensor) -> Tensor:
    """float32 ``[3, 18, 32]``, 0 to 1."""
    import torch

    floats = pixels.float() / 255
    if tuple(floats.shape[1:]) == _THUMBNAIL:
        return floats
    return torch.nn.functional.interpolate(floats[None], size=_THUMBNAIL, mode="area")[0]
