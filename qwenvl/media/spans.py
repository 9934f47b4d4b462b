"""Spans: the room that pictures, videos and sounds take in a prompt, known from their shapes before
any pixel is touched."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from ..errors import BadOption
from ..types import Audio, Image, Size, Video, Watching

if TYPE_CHECKING:
    from .audio_processor import AudioProcessor
    from .image_processor import ImageProcessor
    from .video_processor import VideoProcessor

Kind = Literal["image", "video", "audio"]


@dataclass(frozen=True)
class Span:
    """A medium in a prompt: its ``kind``, its ``grid`` of patches (time, rows, columns), the
    ``tokens`` that it becomes, and the ``input_size`` in pixels that it is resized to.

    Of a video, ``steps``: of each step of two frames, when the first and the last of them is shown,
    in seconds; of a sound, when it begins and ends. ``is_told``: these times stand in words before
    the tokens of each step, which are apart from those of the others. ``is_joined``: of a sound,
    its tokens stand among those of the video before it, whose own sound it is."""

    grid: tuple[int, int, int]
    tokens: int
    input_size: Size
    kind: Kind = "image"
    steps: tuple[tuple[float, float], ...] = ()
    is_told: bool = False
    is_joined: bool = False

    @property
    def runs(self) -> tuple[int, ...]:
        """Its tokens, by the stretches of the prompt in which they stand one behind the other."""
        return (
            (self.tokens // len(self.steps),) * len(self.steps) if self.is_told else (self.tokens,)
        )

    @property
    def seconds_per_step(self) -> float:
        """Of a video, on average; 1 where there is but one."""
        first, last = self.steps[0][0], self.steps[-1][0]
        return (last - first) / (len(self.steps) - 1) if len(self.steps) > 1 else 1.0


def with_sounds(spans: Sequence[Span]) -> Iterator[tuple[Span, Span | None]]:
    """Each of ``spans`` with that of its own sound, if it has one, which then comes alone no
    more."""
    for number, span in enumerate(spans):
        behind = spans[number + 1] if number + 1 < len(spans) else None
        if not span.is_joined:
            yield span, behind if behind and behind.is_joined else None


def plan_all(
    media: Sequence[Image | Video | Audio],
    image_processor: ImageProcessor,
    video_processor: VideoProcessor | None = None,
    watching: Watching | None = None,
    audio_processor: AudioProcessor | None = None,
) -> list[Span]:
    """The spans of ``Request.media``. Raises as ``plan``."""
    spans: list[Span] = []
    before: Image | Video | Audio | None = None
    for part in media:
        joined = isinstance(before, Video) and before.audio is part
        if joined and audio_processor is None:
            raise BadOption(
                "The video comes with its sound, but this model has no audio tower and hears no "
                "sounds. Leave the sound out, or choose a Qwen2.5-Omni or Qwen3-Omni model."
            )
        span = plan(part, image_processor, video_processor, watching, audio_processor)
        spans.append(dataclasses.replace(span, is_joined=joined))
        before = part
    return spans


def plan(
    part: Image | Video | Audio,
    image_processor: ImageProcessor,
    video_processor: VideoProcessor | None = None,
    watching: Watching | None = None,
    audio_processor: AudioProcessor | None = None,
) -> Span:
    """The span of ``part``. Raises ``BadImage`` for a medium that no model can be given, and
    ``BadOption`` for one that this model does not take."""
    if isinstance(part, Video):
        if video_processor is None or watching is None:
            raise BadOption(
                "This model sees no videos. Give some of the video's frames as pictures."
            )
        return _video_span(part, video_processor, watching)
    if isinstance(part, Audio):
        if audio_processor is None:
            raise BadOption(
                "This model has no audio tower and hears no sounds. Choose a Qwen2.5-Omni or "
                "Qwen3-Omni model."
            )
        tokens, ends = audio_processor.tokens(part), audio_processor.seconds(part)
        return Span((1, 1, audio_processor.frames(part)), tokens, (0, 0), "audio", ((0.0, ends),))
    picture = part.pixels
    return Span(
        image_processor.grid(picture),
        image_processor.tokens(picture),
        image_processor.input_size(picture),
    )


def _video_span(video: Video, processor: VideoProcessor, watching: Watching) -> Span:
    count, times = len(video.frames), video.times
    rises = all(before < after for before, after in pairwise(times))
    if not count or count != len(times) or not rises:
        raise BadOption(
            f"A video of {count} frames has {len(times)} times ({_listed(times)}); each frame "
            "needs one, later than that of the frame before it."
        )
    grid, pair = processor.grid(video), processor.images.temporal_patch_size
    starts = range(0, grid[0] * pair, pair)
    steps = tuple((times[min(at, count - 1)], times[min(at + pair, count) - 1]) for at in starts)
    tokens = grid[0] * grid[1] * grid[2] // processor.images.merge_size**2
    is_told = watching.times == "text"
    return Span(grid, tokens, processor.size_of(video), "video", steps, is_told)


def _listed(times: tuple[float, ...]) -> str:
    return ", ".join(f"{time:g}" for time in times[:6]) + (", …" if len(times) > 6 else "")
