"""Video processor: resizes the frames of videos and cuts them into the patches that the vision
tower reads, two frames at a time.

Sizes, layout and values are those of the official ``Qwen2VLVideoProcessor`` and
``Qwen3VLVideoProcessor`` with ``cap_pixels_per_frame``, which is what Qwen's own tools
(qwen-vl-utils 0.0.14) do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ..errors import BadOption
from ..types import Size, Video, Watching
from .image_processor import ImageProcessor, target_size
from .images import check_aspect

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FRAME_TOKENS = 768
"""Most tokens of one frame's pixels (VIDEO_MAX_TOKEN_NUM); a step of two frames has as many."""

VIDEO_TOKENS = 115_200
"""Most tokens of a video, 0.9 times 128,000, where pixel bounds are those of each frame."""

CONTEXT_SHARE = 0.9
"""Of a model's context that a video fills at most, unless the request says otherwise."""

MARGIN = 1.05
"""How far the most pixels of a frame lie above the least, where the latter decide, so that there is
a size between both."""

CHUNK_TOKENS = 4096
"""Tokens that are put through the vision tower at a time: steps do not see one another there."""


@dataclasses.dataclass(frozen=True)
class VideoProcessor:
    """Video processor of one checkpoint. ``images``: its image processor, whose patches and
    normalisation it shares unless its own config says otherwise. ``min_pixels`` and ``max_pixels``:
    of each frame, or ``of_all`` together. ``least_frame_pixels`` and ``frame_pixels``: of each
    frame, in any case; ``tokens``: of the whole video, which goes before all of these."""

    images: ImageProcessor
    min_pixels: int
    max_pixels: int
    of_all: bool
    frame_pixels: int
    tokens: int = VIDEO_TOKENS
    least_frame_pixels: int = 0

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], images: ImageProcessor, watching: Watching
    ) -> VideoProcessor:
        """From a parsed ``video_preprocessor_config.json``, empty where there is none. ``size``
        holds pixel *counts* under names that say edges."""
        named = {name: value for name, value in config.items() if value is not None}
        size = named.get("size") or {}
        low, high = watching.pixel_bounds
        named_sides = {"patch_size", "merge_size", "temporal_patch_size"} & named.keys()
        own: dict[str, Any] = {name: int(named[name]) for name in named_sides}
        for name in {"image_mean", "image_std"} & named.keys():
            own[name] = tuple(float(value) for value in named[name])
        images = dataclasses.replace(images, **own)
        return cls(
            images,
            int(named.get("min_pixels") or size.get("shortest_edge") or low),
            int(named.get("max_pixels") or size.get("longest_edge") or high),
            watching.of_all,
            FRAME_TOKENS * images.factor**2,
        )

    def bounded(
        self,
        frame_pixels: int | None,
        tokens: int | None,
        context: int | None = None,
        least_pixels: int | None = None,
    ) -> VideoProcessor:
        """A copy with a request's own bounds, and such that a video leaves room in a model's
        ``context`` (tokens). ``frame_pixels`` and ``least_pixels``: the most and the least pixels
        of a frame; the least given alone moves the checkpoint's most along where it has to. Raises
        ``BadOption`` for bounds below one token or in the wrong order."""
        least = self.images.factor**2
        if frame_pixels is not None and frame_pixels < least:
            raise BadOption(
                f"frame_pixels is {frame_pixels}, but one token alone covers {least} pixels. Use "
                f"at least {4 * least}, or 0 for the model's own bound."
            )
        if tokens is not None and tokens < 1:
            raise BadOption(f"max_video_tokens is {tokens}; use 1 or more.")
        if least_pixels is not None and frame_pixels is not None and least_pixels > frame_pixels:
            raise BadOption(f"min_pixels ({least_pixels}) is above max_pixels ({frame_pixels}).")
        most = self.tokens if context is None else min(self.tokens, int(CONTEXT_SHARE * context))
        found: dict[str, Any] = {"tokens": most if tokens is None else tokens}
        if frame_pixels is not None:
            found |= {
                "frame_pixels": frame_pixels,
                "min_pixels": min(self.min_pixels, frame_pixels),
            }
        if self.of_all and tokens is not None:
            found["max_pixels"] = tokens * least * self.images.temporal_patch_size
        elif not self.of_all and frame_pixels is not None:
            found["max_pixels"] = frame_pixels
        if least_pixels is not None:
            most_pixels = frame_pixels or max(self.frame_pixels, int(MARGIN * least_pixels))
            found |= {"least_frame_pixels": least_pixels, "frame_pixels": most_pixels}
        return dataclasses.replace(self, **found)

    def input_size(self, frames: int, size: Size) -> Size:
        """The (height, width) that each of so many ``frames`` of ``size`` is resized to. Raises
        ``BadImage`` for an aspect ratio over 200, and ``BadOption`` for a video that takes more
        than its ``tokens`` however small its frames are."""
        factor, pair = self.images.factor, self.images.temporal_patch_size
        steps = math.ceil(frames / pair)
        share = self.tokens * factor**2 // steps  # a step has the tokens of one frame
        if share < factor**2:
            raise BadOption(
                f"{frames} frames take {steps} tokens at the least, but a video may take "
                f"{self.tokens} here. Raise max_video_tokens, or show fewer frames."
            )
        high, wide = self._between(frames, size, share)
        if high * wide > share:  # rounded up, or counted without the last step's rest
            high, wide = target_size(*size, factor, factor**2, share)
        longest = share // min(high, wide) // factor * factor  # beside a side of one token
        return min(high, longest), min(wide, longest)

    def _between(self, frames: int, size: Size, share: int) -> Size:
        """As ``input_size``, for at most about ``share`` pixels a frame."""
        factor, pair = self.images.factor, self.images.temporal_patch_size
        least = self.least_frame_pixels or self.min_pixels
        floor = min(int(MARGIN * least), self.frame_pixels, share)
        if not self.of_all:
            most = max(min(self.max_pixels, self.frame_pixels, share), floor)
            return target_size(*size, factor, min(least, most), max(most, factor**2))
        most = max(min(self.frame_pixels, self.max_pixels // frames, share), floor)
        volume = max(self.min_pixels, min(self.least_frame_pixels, most) * frames)
        return _volume_size(frames, size, factor, pair, volume, most * frames)

    def frames(self, video: Video) -> int:
        """How many frames of ``video`` are shown: one alone is a still picture, and stands
        twice."""
        return max(len(video.frames), self.images.temporal_patch_size)

    def size_of(self, video: Video) -> Size:
        """The (height, width) that the frames of ``video`` are resized to."""
        height, width = video.frames.shape[-2:]
        return self.input_size(self.frames(video), (height, width))

    def grid(self, video: Video) -> tuple[int, int, int]:
        """The patch grid of ``video``: (steps, rows, columns), as in ``video_grid_thw``."""
        height, width = self.size_of(video)
        steps = math.ceil(self.frames(video) / self.images.temporal_patch_size)
        return steps, height // self.images.patch_size, width // self.images.patch_size

    def chunk_steps(self, grid: tuple[int, int, int]) -> int:
        """Steps of a video of ``grid`` that are encoded at a time."""
        return max(1, CHUNK_TOKENS * self.images.merge_size**2 // (grid[1] * grid[2]))

    def pixel_values(
        self,
        video: Video,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[tuple[Tensor, tuple[int, int, int]]]:
        """The patches of ``video``, ``[patches, 3 * frames * patch * patch]`` of ``dtype`` (None:
        float32) on ``device``, some steps at a time, each with the grid of these. Within a patch:
        channel, frame, y, x. ``check`` is called before each frame."""
        steps, rows, columns = self.grid(video)
        pair, size = self.images.temporal_patch_size, self.size_of(video)
        chunk = self.chunk_steps((steps, rows, columns))
        for first in range(0, steps, chunk):
            count = min(chunk, steps - first)
            numbers = range(first * pair, (first + count) * pair)
            # The last frame stands again where there is none for the last place.
            frames = [video.frames[min(number, len(video.frames) - 1)] for number in numbers]
            yield (
                self.images.step_values(frames, size, device, dtype, check),
                (count, rows, columns),
            )


def _volume_size(
    frames: int, size: Size, factor: int, steps: int, min_pixels: int, max_pixels: int
) -> Size:
    """``target_size`` for bounds of all frames together: the official ``smart_resize`` of
    Qwen3-VL's videos."""
    height, width = size
    if height < factor or width < factor:
        scale = max(factor / height, factor / width)
        height, width = int(height * scale), int(width * scale)
    check_aspect(height, width)
    high, wide = round(height / factor) * factor, round(width / factor) * factor
    area, whole = frames * height * width, round(frames / steps) * steps * high * wide
    if whole > max_pixels:
        shrink = math.sqrt(area / max_pixels)
        high = max(factor, math.floor(height / shrink / factor) * factor)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
    elif whole < min_pixels:
        grow = math.sqrt(min_pixels / area)
        high = math.ceil(height * grow / factor) * factor
        wide = math.ceil(width * grow / factor) * factor
    return high, wide
