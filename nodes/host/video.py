"""Videos: ComfyUI's VIDEO to what the engine reads, and clips back to VIDEO."""

from __future__ import annotations

import inspect
from fractions import Fraction
from io import BytesIO
from os import PathLike
from typing import Any

from ...qwenvl.errors import BadVideo
from ...qwenvl.media.video_files import Clip, first_time
from .optional_import import optional_import


def components(video: Any) -> tuple[Any, float, Any] | None:
    """The frames (an IMAGE), their rate, and the sound (an AUDIO, or None), of a VIDEO that was
    made of frames; None of one that is a file."""
    made_of_frames = _implementation("VideoFromComponents")
    if made_of_frames is None or not isinstance(video, made_of_frames):
        return None
    parts = video.get_components()
    return parts.images, float(parts.frame_rate), getattr(parts, "audio", None)


def clip_of(video: Any) -> Clip:
    """The part of a file that a VIDEO is. ComfyUI's own stream leaves out that it was trimmed.
    Raises ``BadVideo`` for what is no VIDEO."""
    if hasattr(video, "get_stream_source"):
        source = video.get_stream_source()
    elif hasattr(video, "save_to"):  # of a pack, or of an older ComfyUI
        source = BytesIO()
        video.save_to(source)
    else:
        raise BadVideo(f"Expected a VIDEO, got {type(video).__name__}.")
    start, length = 0.0, 0.0
    if hasattr(video, "get_active_trim_window"):
        start, length = video.get_active_trim_window()
    whole = Clip(source, name="" if isinstance(source, str) else "The video")
    if not start and not length:
        return whole
    return _on_its_own_clock(whole, start, start + length if length else None)


def _on_its_own_clock(whole: Clip, start: float, end: float | None) -> Clip:
    """A part of a file by the times that its frames carry, as ComfyUI trims: an MPEG-TS, say, does
    not begin at 0."""
    first = first_time(whole)
    end = None if end is None else end - first
    if end is not None and end <= 0:
        raise BadVideo(f"{whole.title} was trimmed to a part before its first frame.")
    return whole.part(max(0.0, start - first), end)


def trimmed(clip: Clip, start: float, end: float, check: Any) -> Any:
    """A VIDEO of a part of ``clip``, in seconds from its beginning; None where this ComfyUI has no
    VIDEO. Nothing is decoded until it is looked at, where ComfyUI can do that."""
    from_file = _implementation("VideoFromFile")
    if from_file is None:
        return None
    if "start_time" in inspect.signature(from_file).parameters:
        source = str(clip.source) if isinstance(clip.source, PathLike) else clip.source
        begin = clip.start + start + first_time(clip)
        return from_file(source, start_time=begin, duration=end - start)
    from ...qwenvl.media.video_writing import cut

    file = BytesIO()
    cut(clip, start, end, file, check)
    file.seek(0)
    return from_file(file)


def of_frames(images: Any, fps: float) -> Any:
    """A VIDEO of an IMAGE; None where this ComfyUI has none."""
    from_components = _implementation("VideoFromComponents")
    types = optional_import("comfy_api.latest", "Types")
    if from_components is None or not hasattr(types, "VideoComponents"):
        return None
    rate = Fraction(fps).limit_denominator(1001)
    return from_components(types.VideoComponents(images=images, audio=None, frame_rate=rate))


def _implementation(name: str) -> Any:
    return getattr(optional_import("comfy_api.latest", "InputImpl"), name, None)
