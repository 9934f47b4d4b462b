"""Image processor: resizes pictures and cuts them into the patches that the vision tower reads.

Without PIL, on the device of the model. Sizes, layout and values are those of the official
``Qwen2VLImageProcessor``.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..errors import BadOption
from ..types import Size
from .images import CHUNK_PIXELS, check_aspect, empty

log = logging.getLogger(__name__)

MAX_MIN_PIXELS = 1 << 28
"""The highest lower bound a request may set: 262,144 tokens, the longest context of any model."""


def target_size(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> Size:
    """The (height, width) a picture is resized to: multiples of ``factor``, an area between the
    bounds, the aspect ratio kept as well as that allows.

    The official ``smart_resize``; boxes of Qwen2.5-VL are in pixels of this size. Raises
    ``BadImage`` for an aspect ratio over 200.
    """
    check_aspect(height, width)
    high = round(height / factor) * factor
    wide = round(width / factor) * factor
    if high * wide > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        high = max(factor, math.floor(height / shrink / factor) * factor)
        wide = max(factor, math.floor(width / shrink / factor) * factor)
    elif high * wide < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        high = math.ceil(height * grow / factor) * factor
        wide = math.ceil(width * grow / factor) * factor
    return high, wide


@dataclasses.dataclass(frozen=True)
class ImageProcessor:
    """Image processor of one checkpoint; the defaults are the official processor's."""

    patch_size: int = 14
    merge_size: int = 2
    temporal_patch_size: int = 2
    min_pixels: int = 56 * 56
    max_pixels: int = 28 * 28 * 1280
    image_mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> ImageProcessor:
        """From a parsed ``preprocessor_config.json``. ``size`` holds pixel *counts* under names
        that say edges; ``min_pixels``/``max_pixels``, where present, are the older spelling."""
        size = config.get("size") or {}
        found: dict[str, Any] = {
            name: config[name]
            for name in ("patch_size", "merge_size", "temporal_patch_size")
            if config.get(name) is not None
        }
        for name, edge in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge")):
            value = config.get(name) or size.get(name) or size.get(edge)
            if value:
                found[name] = int(value)
        for name in ("image_mean", "image_std"):
            if config.get(name) is not None:
                found[name] = tuple(float(value) for value in config[name])
        return cls(**found)

    @property
    def factor(self) -> int:
        """Side of the square that becomes one token, in pixels of the resized picture."""
        return self.patch_size * self.merge_size

    def bounded(self, min_pixels: int | None, max_pixels: int | None) -> ImageProcessor:
        """A copy with a request's own bounds. A bound given alone moves the other along where it
        has to. Raises ``BadOption`` for bounds below one token or in the wrong order, and for a
        lower bound above ``MAX_MIN_PIXELS``."""
        if min_pixels is None and max_pixels is None:
            return self
        least = self.factor**2
        for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)):
            if value is not None and value < least:
                raise BadOption(
                    f"{name} is {value}, but one token alone covers {least} pixels. Use at least "
                    f"{4 * least}, or 0 for the model's own bound."
                )
        if min_pixels is not None and min_pixels > MAX_MIN_PIXELS:
            raise BadOption(
                f"min_pixels is {min_pixels}; no model can take more than {MAX_MIN_PIXELS}."
            )
        if min_pixels is not None and max_pixels is not None and min_pixels > max_pixels:
            raise BadOption(f"min_pixels ({min_pixels}) is above max_pixels ({max_pixels}).")
        low = min(self.min_pixels, max_pixels) if min_pixels is None and max_pixels else min_pixels
        high = max(self.max_pixels, low) if max_pixels is None and low else max_pixels
        return dataclasses.replace(
            self, min_pixels=low or self.min_pixels, max_pixels=high or self.max_pixels
        )

    def input_size(self, picture: Tensor) -> Size:
        """The (height, width) that ``picture`` is resized to, from its shape alone."""
        height, width = picture.shape[-2:]
        return target_size(height, width, self.factor, self.min_pixels, self.max_pixels)

    def tokens(self, picture: Tensor) -> int:
        """How many image tokens ``picture`` becomes."""
        height, width = self.input_size(picture)
        return height // self.factor * (width // self.factor)

    def grid(self, picture: Tensor) -> tuple[int, int, int]:
        """The patch grid of ``picture``: (1, rows, columns), as in ``image_grid_thw``."""
        height, width = self.input_size(picture)
        return 1, height // self.patch_size, width // self.patch_size

    def pixel_values(
        self,
        pictures: Iterable[Tensor],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        check: Callable[[], None] | None = None,
    ) -> Tensor:
        """The patches of ``pictures``, ``[patches, 3 * patch * patch]`` of ``dtype`` on ``device``,
        one picture after the other; ``grid`` gives the number of each.

        Patches come merge block by merge block, so that the ``merge_size`` squared patches of one
        token are neighbours; within a patch: channel, y, x. Layout and values are the official
        processor's (``Qwen2VLImageProcessor``), computed in float32 and rounded once to
        ``dtype``, but for the time axis: it repeats a still picture's channels
        ``temporal_patch_size`` times, which adds nothing (see ``patch_embedding``).

        For CUDA everything is computed on the device, from 8-bit pixels copied asynchronously.
        ``check`` is called before each picture; what it raises ends the work.
        """
        pictures, device = list(pictures), torch.device(device)
        counts = [math.prod(self.grid(picture)) for picture in pictures]
        # Only CUDA is sure to resize as the CPU does; other devices are sent finished patches.
        at = device if device.type == "cuda" else torch.device("cpu")
        patches = empty((sum(counts), 3 * self.patch_size**2), dtype, at)
        for picture, target in zip(pictures, patches.split(counts), strict=True):
            if check:
                check()
            resized = resize(_to_device(picture, at), self.input_size(picture))
            self._write_patches(target.view(-1, 3, self.patch_size**2), resized)
        return patches.to(device)

    def step_values(
        self,
        frames: Sequence[Tensor],
        size: Size,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        check: Callable[[], None] = lambda: None,
    ) -> Tensor:
        """As ``pixel_values``, of video ``frames`` resized to ``size``: ``[patches, 3 *
        temporal_patch_size * patch * patch]``, each patch through as many frames. Within a patch:
        channel, frame, y, x."""
        device, pair = torch.device(device), self.temporal_patch_size
        at = device if device.type == "cuda" else torch.device("cpu")
        count = size[0] * size[1] // self.patch_size**2
        steps = len(frames) // pair
        patches = empty((steps, count, 3, pair, self.patch_size**2), dtype or torch.float32, at)
        for number, frame in enumerate(frames):
            check()
            target = patches[number // pair, :, :, number % pair]
            self._write_patches(target, resize(_to_device(frame, at), size))
        return patches.view(steps * count, -1).to(device)

    def _write_patches(self, target: Tensor, picture: Tensor) -> None:
        """Writes the normalised patches of one resized picture to ``target`` ``[patches, 3, patch *
        patch]``."""
        patch, merge = self.patch_size, self.merge_size
        mean = _to_device(torch.tensor(self.image_mean).mul_(255).view(3, 1), target.device)
        std = _to_device(torch.tensor(self.image_std).mul_(255).view(3, 1), target.device)
        high, wide = (side // (patch * merge) for side in picture.shape[-2:])
        blocks = picture.movedim(0, -1).reshape(high, merge, patch, wide, merge, patch * 3)
        # Patches are reordered while a value is one byte; channels are separated after that.
        ordered = blocks.permute(0, 3, 1, 4, 2, 5).reshape(-1, patch**2, 3)
        chunk = max(1, CHUNK_PIXELS // patch**2)
        for rows, pixels in zip(target.split(chunk), ordered.split(chunk), strict=True):
            is_float32 = rows.dtype == torch.float32
            values = rows if is_float32 else torch.empty_like(rows, dtype=torch.float32)
            values.copy_(pixels.transpose(1, 2)).sub_(mean).div_(std)
            if not is_float32:
                rows.copy_(values)


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` in pinned memory if it is to be copied to a CUDA ``device``, so that the copy can
    be asynchronous; as it is where the system has no pinned memory left."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        try:
            return tensor.pin_memory()  # returns itself if it is pinned already
        except RuntimeError as error:
            log.debug("Pinned memory is scarce, so a tensor is copied from pageable: %s", error)
    return tensor


def _to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``; the copy to CUDA is asynchronous."""
    return pinned(tensor, device).to(device, non_blocking=device.type == "cuda")


def resize(picture: Tensor, size: Size) -> Tensor:
    """Resizes uint8 ``[3, H, W]`` to uint8 ``[3, *size]``, bicubic with antialiasing.

    The CPU has native 8-bit kernels. Other devices resize in float and round back, which differs
    by one level here and there.
    """
    if tuple(picture.shape[-2:]) == tuple(size):
        return picture
    if picture.device.type != "cpu":
        return resize_as_float(picture, size)
    # The native 8-bit kernels want the channels-last layout.
    batch = picture.unsqueeze(0).contiguous(memory_format=torch.channels_last)
    return _bicubic(batch, size)[0]


def resize_as_float(picture: Tensor, size: Size) -> Tensor:
    """``resize`` without native 8-bit kernels: first the width, then the height, rounded in
    between, as they do. One channel at a time, since floats take four times the memory."""
    resized = picture.new_empty(*size, 3)
    for channel, target in zip(picture, resized.unbind(-1), strict=True):
        floats = channel[None, None].float()
        for step in ((picture.shape[-2], size[1]), size):
            floats = _bicubic(floats, step).round_().clamp_(0, 255)
        target.copy_(floats[0, 0])
    return resized.movedim(-1, 0)


def _bicubic(batch: Tensor, size: Size) -> Tensor:
    return torch.nn.functional.interpolate(
        batch, size=size, mode="bicubic", align_corners=False, antialias=True
    )
