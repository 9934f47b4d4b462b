"""Pictures: from an IMAGE tensor, or a file, to what the vision tower reads, without PIL between.

A *picture* here is a uint8 tensor ``[3, H, W]``, RGB. In memory its channels lie side by side, as
in an IMAGE: that is what resizes fastest. Any other layout is right too, and slower. Rounding to
8 bits comes before resizing, as in the official processors: resizing floats overshoots at edges and
no later step clamps it.
"""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import BadImage, BadOption
from ..types import Size

log = logging.getLogger(__name__)

MAX_ASPECT_RATIO = 200
"""Longest to shortest side; the official ``smart_resize`` refuses more."""

MOST_SHOWN = 1 << 28
"""Pixels that no lower bound may ask for: 262,144 tokens, the longest context there is."""

_FAR_OUT = 0.5  # a decoder's overshoot is clamped; beyond this the values were never 0-1
_STRIP = 1 << 18  # pixels taken through floats at a time: they stay in the processor's cache


def pictures(image: Tensor, first: int = 0) -> list[Tensor]:
    """Splits an IMAGE ``[B, H, W, C]`` (or one picture ``[H, W, C]``) into pictures.

    Floats are 0-1 and rounded to 8 bits; overshoot up to 0.5 beyond is clamped. uint8 is taken
    as it is. ``C`` is 1 (grey), 3 (RGB) or 4 (RGBA, laid on white as Qwen's own tools do).
    Raises ``BadImage`` for any other shape or type, an empty batch, NaN or infinity, values far
    out of range, or a side ratio over 200; it counts the pictures from ``first``.
    """
    if not isinstance(image, Tensor):
        raise BadImage(f"Expected an IMAGE tensor, got {type(image).__name__}.")
    if image.ndim == 3:
        image = image.unsqueeze(0)
    if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
        raise BadImage(
            f"Expected an IMAGE of shape [batch, height, width, 1, 3 or 4 channels], got "
            f"{list(image.shape)}."
        )
    if 0 in image.shape:
        raise BadImage(
            f"The IMAGE is empty (shape {list(image.shape)}): no picture reached this node."
        )
    check_aspect(image.shape[1], image.shape[2])
    return [_to_rgb8(picture, index) for index, picture in enumerate(image, first)]


def _to_rgb8(picture: Tensor, index: int) -> Tensor:
    if picture.dtype != torch.uint8 and not picture.is_floating_point():
        raise BadImage(f"Expected a float or uint8 IMAGE, got {picture.dtype}.")
    height, width, channels = picture.shape
    made = _room((height, width, 3), torch.uint8, picture.device)
    if picture.dtype == torch.uint8 and channels != 4:
        made.copy_(picture)
    else:
        lines = max(1, _STRIP // width)
        for strip, room in zip(picture.split(lines), made.split(lines), strict=True):
            unit = strip.float() / 255 if strip.dtype == torch.uint8 else _unit(strip)
            if unit is None:
                raise _bad_values(picture, index)
            if channels == 4:
                colour, alpha = unit[..., :3], unit[..., 3:]
                unit = colour * alpha + (1 - alpha)
            # By way of 16 bits: torch has no fast road from floats to uint8.
            room.copy_(unit.mul(255).round_().to(torch.int16))
    return made.movedim(-1, 0)


def _room(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An empty tensor. numpy asks the system for large pages, where torch takes small ones one by
    one: for tens of megabytes that is longer than all that is done here."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    import numpy as np

    held = np.empty(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(held).view(dtype).view(shape)


def _unit(strip: Tensor) -> Tensor | None:
    """Clamped to 0-1; None where the values cannot be a picture's."""
    strip = strip.float()
    low, high = (float(value) for value in torch.aminmax(strip))
    if not (low >= -_FAR_OUT and high <= 1 + _FAR_OUT):  # so that NaN is refused too
        return None
    return strip if low >= 0 and high <= 1 else strip.clamp(0, 1)


def _bad_values(picture: Tensor, index: int) -> BadImage:
    low, high = (float(value) for value in torch.aminmax(picture.float()))
    if not (math.isfinite(low) and math.isfinite(high)):
        return BadImage(
            f"Picture {index + 1} holds NaN or infinite values. A VAE that overflows in fp16 makes "
            "such pictures: decode it in fp32 (--fp32-vae) or remove it from the batch."
        )
    return BadImage(
        f"Picture {index + 1} has values from {low:.3g} to {high:.3g}; an IMAGE runs from 0 to "
        "1. Divide by 255, or map -1..1 to 0..1, before this node."
    )


def check_aspect(height: int, width: int) -> None:
    """Raises ``BadImage`` where one side is over 200 times the other."""
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise BadImage(
            f"A picture of {width}x{height} is more than {MAX_ASPECT_RATIO} times as long as it is "
            "wide; the models refuse that. Crop or pad it."
        )


def read(path: str | Path) -> Tensor:
    """A picture from a file, turned as its EXIF says, alpha laid on white. Of several in one file,
    the first.

    Raises ``BadImage``, which names the file, where it is missing, no picture, or damaged.
    """
    from .image_files import decode

    pixels = torch.from_numpy(decode(path))
    try:
        return pictures(pixels if pixels.ndim == 3 else pixels[None, ..., None])[0]
    except BadImage as error:
        raise BadImage(f"{path}: {error}") from error


def to_image(batch: Sequence[Tensor]) -> Tensor:
    """Pictures of one size back to an IMAGE ``[B, H, W, 3]``, float32, 0-1."""
    return torch.stack([picture.movedim(0, -1) for picture in batch]).float().div_(255)


def target_size(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> Size:
    """The (height, width) a picture is resized to: multiples of ``factor``, an area between the
    bounds, the sides' ratio kept as well as that allows.

    The rule is the official ``smart_resize``; boxes of Qwen2.5-VL are in this size. Raises
    ``BadImage`` for a side ratio over 200.
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
    """How one checkpoint wants its pictures; defaults are the official processor's."""

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
        """Side, in pixels of the resized picture, of the square that becomes one token."""
        return self.patch_size * self.merge_size

    def bounded(self, min_pixels: int | None, max_pixels: int | None) -> ImageProcessor:
        """The same with a request's own bounds. A bound given alone moves the other out of its
        way. Raises ``BadOption`` for bounds below one token or in the wrong order, and for a lower
        one above ``MOST_SHOWN``."""
        if min_pixels is None and max_pixels is None:
            return self
        least = self.factor**2
        for name, value in (("min_pixels", min_pixels), ("max_pixels", max_pixels)):
            if value is not None and value < least:
                raise BadOption(
                    f"{name} is {value}, but one token alone covers {least} pixels. Use at least "
                    f"{4 * least}, or 0 for the model's own bound."
                )
        if min_pixels is not None and min_pixels > MOST_SHOWN:
            raise BadOption(
                f"min_pixels is {min_pixels}; no model can take more than {MOST_SHOWN}."
            )
        if min_pixels is not None and max_pixels is not None and min_pixels > max_pixels:
            raise BadOption(f"min_pixels ({min_pixels}) is above max_pixels ({max_pixels}).")
        low = min(self.min_pixels, max_pixels) if min_pixels is None and max_pixels else min_pixels
        high = max(self.max_pixels, low) if max_pixels is None and low else max_pixels
        return dataclasses.replace(
            self, min_pixels=low or self.min_pixels, max_pixels=high or self.max_pixels
        )

    def input_size(self, picture: Tensor) -> Size:
        """The (height, width) that the model will see of ``picture``, known before the run."""
        height, width = picture.shape[-2:]
        return target_size(height, width, self.factor, self.min_pixels, self.max_pixels)

    def tokens(self, picture: Tensor) -> int:
        """How many tokens ``picture`` will cost."""
        height, width = self.input_size(picture)
        return height // self.factor * (width // self.factor)

    def grid(self, picture: Tensor) -> tuple[int, int, int]:
        """(1, rows, columns) of the patches that ``picture`` becomes."""
        height, width = self.input_size(picture)
        return 1, height // self.patch_size, width // self.patch_size

    def pixel_values(
        self,
        pictures: Iterable[Tensor],
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        check: Callable[[], None] | None = None,
    ) -> Tensor:
        """``pictures`` as rows ``[patches, 3 * patch * patch]`` of ``dtype`` on ``device``, one
        picture below the other; ``grid`` tells the rows of each.

        Rows run merge block by merge block, so that the ``merge_size`` squared patches of one
        token are neighbours; within a row: channel, y, x. Layout and numbers are the official
        processor's (``Qwen2VLImageProcessor``), computed in float32 and rounded once to
        ``dtype``, but for time: it repeats a still picture's channels ``temporal_patch_size``
        times, which says nothing (see ``patch_embedding``).

        On CUDA all of it is computed there, from 8 bits that are copied without waiting.
        ``check`` is called before each picture; what it raises ends the work.
        """
        pictures, device = list(pictures), torch.device(device)
        counts = [math.prod(self.grid(picture)) for picture in pictures]
        # Only CUDA is sure to resize as the CPU does; to others the rows are copied.
        at = device if device.type == "cuda" else torch.device("cpu")
        rows = _room((sum(counts), 3 * self.patch_size**2), dtype, at)
        for picture, room in zip(pictures, rows.split(counts), strict=True):
            if check:
                check()
            self._fill(room, resize(_sent(picture, at), self.input_size(picture)))
        return rows.to(device)

    def _fill(self, rows: Tensor, picture: Tensor) -> None:
        """``rows`` of one resized picture."""
        patch, merge = self.patch_size, self.merge_size
        mean = _sent(torch.tensor(self.image_mean).mul_(255).view(3, 1), rows.device)
        std = _sent(torch.tensor(self.image_std).mul_(255).view(3, 1), rows.device)
        high, wide = (side // (patch * merge) for side in picture.shape[-2:])
        lines = picture.movedim(0, -1).reshape(high, merge, patch, wide, merge, patch * 3)
        # Patches are put in order while a number is a byte; then their channels part.
        ordered = lines.permute(0, 3, 1, 4, 2, 5).reshape(-1, patch**2, 3)
        some = max(1, _STRIP // patch**2)
        for room, eights in zip(rows.split(some), ordered.split(some), strict=True):
            room = room.view(-1, 3, patch**2)
            floats = room.dtype == torch.float32
            values = room if floats else torch.empty_like(room, dtype=torch.float32)
            values.copy_(eights.transpose(1, 2)).sub_(mean).div_(std)
            if not floats:
                room.copy_(values)


def sendable(picture: Tensor, device: torch.device) -> Tensor:
    """``picture`` where a copy to ``device`` starts from without delay: for CUDA, in pinned
    memory, unless the system has none to give."""
    if device.type == "cuda" and picture.device.type == "cpu":
        try:
            return picture.pin_memory()  # itself, if it is there
        except RuntimeError as error:
            log.debug("A picture is copied from where it lies, pinned memory is scarce: %s", error)
    return picture


def _sent(picture: Tensor, device: torch.device) -> Tensor:
    """``picture`` on ``device``; nobody waits for the copy."""
    return sendable(picture, device).to(device, non_blocking=device.type == "cuda")


def resize(picture: Tensor, size: Size) -> Tensor:
    """uint8 ``[3, H, W]`` to uint8 ``[3, *size]``, bicubic with antialiasing.

    On the CPU torch resizes 8-bit pictures natively; elsewhere through floats, rounded back, which
    differs by one level here and there.
    """
    if tuple(picture.shape[-2:]) == tuple(size):
        return picture
    if picture.device.type != "cpu":
        return resize_as_float(picture, size)
    # Native 8-bit kernels exist for the channels-last layout.
    batch = picture.unsqueeze(0).contiguous(memory_format=torch.channels_last)
    return _bicubic(batch, size)[0]


def resize_as_float(picture: Tensor, size: Size) -> Tensor:
    """``resize`` where there is no native 8-bit kernel: like that, along one side and then along
    the other, rounded in between. One channel at a time: floats take four times the bytes."""
    made = picture.new_empty(*size, 3)
    for channel, room in zip(picture, made.unbind(-1), strict=True):
        floats = channel[None, None].float()
        for between in ((picture.shape[-2], size[1]), size):
            floats = _bicubic(floats, between).round_().clamp_(0, 255)
        room.copy_(floats[0, 0])
    return made.movedim(-1, 0)


def _bicubic(batch: Tensor, size: Size) -> Tensor:
    return torch.nn.functional.interpolate(
        batch, size=size, mode="bicubic", align_corners=False, antialias=True
    )
