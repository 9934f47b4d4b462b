"""Videos of the sockets as the engine's footage, and their parts back to sockets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from ..qwenvl.errors import BadImage, BadOption, BadVideo, QwenVLError
from ..qwenvl.media import images
from ..qwenvl.media.video_files import Clip
from ..qwenvl.types import Box, Event, Result
from ..qwenvl.watching import FileFootage, Footage, FrameFootage, Viewed, scaled
from . import host

T = TypeVar("T")

EXAMPLE = "example (bundled)"
_EXAMPLE_FILE = Path(__file__).resolve().parents[1] / "example_workflows/videos/example.mp4"

MOST_BYTES = 2 << 30
"""Of the key frames of a video."""
_BYTES_PER_PIXEL = 3 * 4  # RGB floats, as an IMAGE holds them

MOST_FRAMES = 16
"""Key frames of a video that was asked about as a whole."""


def footage(
    video: Any, frames: Any, fps: float, file: str, sound: bool = False
) -> Footage | BadVideo:
    """What is to be watched, and heard with ``sound``, or why it cannot be. Raises ``BadOption``
    unless exactly one is given: a VIDEO, an IMAGE with its ``fps``, or a file in ComfyUI's input
    folder."""
    given = [name for name, value in (("video", video), ("images", frames)) if value is not None]
    given += ["file"] if file else []
    if len(given) != 1:
        what = " and ".join(given) if given else "nothing"
        raise BadOption(
            f"Connect one video to watch: video, or images with their fps, or name a file. There "
            f"is {what}."
        )
    try:
        if file:
            return FileFootage(Clip(path(file)), host.check_interrupt)
        if video is None:
            return _of_frames(frames, fps)
        if (made := host.components(video)) is None:
            return FileFootage(host.clip_of(video), host.check_interrupt)
        shown, rate, audio = made
        return _of_frames(shown, rate, audio if sound else None)
    except BadVideo as error:
        return error
    except BadImage as error:
        return BadVideo(str(error))


def path(file: str) -> Path:
    """Of a file in ComfyUI's input folder, or of the example. Raises as ``host.input_file``."""
    return _EXAMPLE_FILE if file == EXAMPLE else host.input_file(file)


def _of_frames(frames: Any, fps: float, audio: Any = None) -> FrameFootage:
    import torch

    from ..qwenvl.media.audio import from_waveform

    if not fps:
        raise BadOption(
            "The images are frames of a video, but fps is 0: set how many of them are a second. "
            "Frames that a node has sampled are fewer than the video's own fps."
        )
    sound = audio and from_waveform(audio.get("waveform"), audio.get("sample_rate"))[0]
    return FrameFootage(torch.stack(images.pictures(frames)), fps, sound=sound)


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What is cut out of a video by its ``result``, which says in its notes what could not be."""

    result: Result
    key_frames: Any
    boxes: list[list[Box]]
    clips: list[Any]


def parts(shown: Footage | BadVideo, result: Result) -> Parts:
    """The outputs of a video beside its answer. What cannot be read again is left out: the answer
    is there, and the other videos have theirs."""
    notes: list[str] = []

    def tried(what: str, make: Callable[[], T], nothing: T) -> T:
        try:
            return make()
        except QwenVLError as error:
            notes.append(f"There are no {what}: {error}")
            return nothing

    frames = tried("key frames", lambda: key_frames(shown, result), _no_frames())
    found = boxes(shown, result, frames) if len(frames) else []
    cut: list[Any] = tried("clips", lambda: clips(shown, result.events), [])
    told = dataclasses.replace(result, notes=(*result.notes, *notes)) if notes else result
    return Parts(told, frames, found, cut)


def _no_frames() -> Any:
    import torch

    return torch.zeros(0, 64, 64, 3)


def key_frames(shown: Footage | BadVideo, result: Any) -> Any:
    """IMAGE: of something followed every frame that was looked at, of events the frame in the
    middle of each, else some of those that the model saw; of very many, each smaller than the
    video. Empty where there is none."""
    times = _key_times(result)
    if isinstance(shown, BadVideo) or not times:
        return _no_frames()
    most = MOST_BYTES // (_BYTES_PER_PIXEL * len(times))
    return images.to_image(shown.at(times, most, host.check_interrupt))


def boxes(shown: Footage | BadVideo, result: Any, frames: Any) -> list[list[Box]]:
    """Of something followed, the boxes in each of its key ``frames``, in their pixels."""
    if isinstance(shown, BadVideo) or not isinstance(result, Viewed):
        return []
    across, down = frames.shape[2] / shown.size[1], frames.shape[1] / shown.size[0]
    return [[scaled(box, across, down) for box in found] for found in result.frame_boxes]


def _key_times(result: Any) -> list[float]:
    if not isinstance(result, Viewed) or result.error:
        return []
    if result.frame_boxes:
        return list(result.times)
    if isinstance(result.data, list):  # events, if there are any
        return [(event.start + event.end) / 2 for event in result.events]
    step = max(1, -(-len(result.times) // MOST_FRAMES))
    return list(result.times[::step])


def clips(shown: Footage | BadVideo, events: tuple[Event, ...]) -> list[Any]:
    """A VIDEO for each of the events that has a length."""
    found = []
    for event in events:
        if event.end > event.start and not isinstance(shown, BadVideo):
            found.append(_clip(shown, event))
    return [video for video in found if video is not None]


def _clip(shown: Footage, event: Event) -> Any:
    if isinstance(shown, FileFootage):
        return host.trimmed(shown.clip, event.start, event.end, host.check_interrupt)
    assert isinstance(shown, FrameFootage)
    first, last = shown.numbers(event.start, event.end)
    return host.of_frames(images.to_image(list(shown.frames[first:last])), shown.fps)
