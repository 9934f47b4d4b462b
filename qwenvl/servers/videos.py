"""Videos for servers: as frames with their true times where a server takes these, else as single
pictures with their times in words, as Qwen3-VL and later families read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import BadOption, ServerError
from ..types import Family, Request, Size, Video
from .kinds import ServerKind
from .picture_files import jpeg, picture_url
from .picture_sizes import pixel_bounds, planned_size, tokens_of

TICKS = 1000
"""Frames a second that times are counted in, so that any time can be told."""


@dataclass(frozen=True)
class FramePlan:
    """How a video is sent: the ``size`` that its frames are resized to, the ``tokens`` that they
    become, and what the user should know of it."""

    size: Size
    tokens: int
    notes: tuple[str, ...] = ()


def plan_video(video: Video, request: Request, family: Family, kind: ServerKind) -> FramePlan:
    """Raises ``BadOption`` for a family that watches no videos, and as ``spans.plan`` does."""
    from ..media.image_processor import ImageProcessor
    from ..media.spans import plan
    from ..media.video_processor import VideoProcessor

    images = ImageProcessor(family.patch_factor // 2, 2)
    watching, processor = family.watching, None
    if watching is not None:
        processor = VideoProcessor.from_config({}, images, watching).bounded(
            request.frame_pixels, request.video_tokens, least_pixels=request.least_frame_pixels
        )
    span = plan(video, images, processor, watching)  # refuses what cannot be watched
    assert processor is not None and watching is not None
    if kind.video == "frames":
        return FramePlan(span.input_size, span.tokens)
    count = len(video.frames)
    height, width = video.frames.shape[-2:]
    # A picture of its own takes as many tokens as a step of two frames.
    shown = processor.input_size(count * images.temporal_patch_size, (height, width))
    low, high = pixel_bounds(None, None, family, kind)
    bounds = low, max(low, min(high, shown[0] * shown[1]))
    size = planned_size((height, width), bounds, family, kind.pictures)
    notes = list(_as_pictures_notes(family, kind))
    if kind.parts_are_messages:
        notes.append(f"{kind.title} makes a message of its own of each frame and of each time.")
    return FramePlan(size, count * tokens_of(size, family), tuple(notes))


def _as_pictures_notes(family: Family, kind: ServerKind) -> Iterator[str]:
    """What the user should know of a video that is shown as single pictures."""
    was_trained_so = family.watching is not None and family.watching.times == "text"
    if was_trained_so and not kind.video_switch:
        return
    yield (
        f"The video's frames were sent to {kind.title} as single pictures with their times in "
        "words."
    )
    if not was_trained_so:
        yield (
            f"{family.title} was not trained on videos of that form: take what it says of times "
            "with care."
        )
    where = f"{kind.title} started with {kind.video_switch}" if kind.video_switch else "vLLM"
    yield f"{where} takes videos as they are."


def refuses_times(error: ServerError, fields: Mapping[str, Any]) -> bool:
    """Whether ``error`` is a server's refusal of ``fields`` that ``video_fields`` made, which vLLM
    takes only from clients that it was told to trust."""
    return error.status == 400 and any(name in str(error) for name in fields)


def check_together(videos: list[Video], kind: ServerKind) -> None:
    """Raises ``BadOption`` for videos that the server cannot be told the times of: those of all
    videos of a request stand in one place."""
    if kind.video == "frames" and len({frame_times(video) for video in videos}) > 1:
        raise BadOption(
            f"{kind.title} can be told the times of one video a request only, and this one shows "
            f"{len(videos)}. Show them one after the other."
        )


def frame_times(video: Video) -> tuple[float, ...]:
    """When each frame is shown, in seconds. One alone stands twice: a video has steps of two."""
    times = video.times
    return times if len(times) > 1 else (*times, *(time + 0.5 for time in times))


def video_parts(
    video: Video,
    size: Size,
    kind: ServerKind,
    picture_format: str = "png",
    check: Callable[[], None] = lambda: None,
) -> Iterator[dict[str, Any]]:
    """Parts of a message that show ``video`` in frames of ``size``, as single pictures in
    ``picture_format`` where the server takes no videos. ``check`` is called before each frame; what
    it raises ends the work."""
    from ..media.image_processor import resize

    if kind.video == "frames":
        frames = []
        for frame in video.frames:
            check()
            frames.append(jpeg(resize(frame, size)))
        if len(frames) == 1:
            frames *= 2
        url = f"data:video/jpeg;base64,{','.join(frames)}"
        yield {"type": "video_url", "video_url": {"url": url}}
        return
    for frame, time in zip(video.frames, video.times, strict=True):
        check()
        yield {"type": "text", "text": f"<{time:.1f} seconds>"}
        url = picture_url(resize(frame, size), picture_format)
        yield {"type": "image_url", "image_url": {"url": url}}


def video_fields(videos: list[Video], kind: ServerKind, family: Family) -> dict[str, Any]:
    """Fields of a request that tell the times of its videos; none where these are in words."""
    if not videos or kind.video != "frames":
        return {}
    times = frame_times(videos[0])
    watching = family.watching
    # Where the model is not told them in words, only their distance counts, from the first on.
    first = 0.0 if watching and watching.times == "text" else times[0]
    indices: list[int] = []
    for time in times:
        index = round((time - first) * TICKS)
        indices.append(max(index, indices[-1] + 1) if indices else index)
    step = (times[-1] - times[0]) / (len(times) - 1)
    # The mean distance of frames, which some families count by, is this divided by their number.
    total = max(indices[-1] + 1, round(len(times) * step * TICKS))
    return {
        "media_io_kwargs": {
            "video": {
                "num_frames": len(times),
                "fps": float(TICKS),
                "frames_indices": indices,
                "total_num_frames": total,
                "do_sample_frames": False,
            }
        }
    }
