"""Image tensors: IMAGE batches and picture files to uint8 RGB tensors, and back.

A *picture* is a uint8 RGB tensor ``[3, H, W]``, preferably channels-last in memory, as in an
IMAGE: that layout resizes fastest. Other layouts give the same results, more slowly. Values are
rounded to 8 bits before resizing, as in the official processors: resizing floats overshoots at
edges, and no later step would clamp that.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..errors import BadImage, QwenVLError

MAX_ASPECT_RATIO = 200
"""Longest to shortest side; the official ``smart_resize`` refuses more."""

CHUNK_PIXELS = 1 << 18
"""Pixels converted to or from floats at a time, so that they stay in the CPU's cache."""

_MAX_OVERSHOOT = 0.5  # a decoder's overshoot is clamped; beyond this the values were never 0-1


def pictures(image: Tensor, first: int = 0) -> list[Tensor]:
    """Splits an IMAGE ``[B, H, W, C]`` (or one image ``[H, W, C]``) into pictures.

    Floats are 0-1 and rounded to 8 bits; overshoot of up to 0.5 is clamped. uint8 is taken as it
    is. ``C`` is 1 (grey), 3 (RGB) or 4 (RGBA, composited on white as Qwen's own tools do).
    Raises ``BadImage`` for any other shape or dtype, an empty batch, NaN or infinity, values far
    out of range, or an aspect ratio over 200; its messages number the pictures from ``first``.
    """
    found = []
    for number, picture in enumerate(pictures_or_errors(image, first), first + 1):
        if isinstance(picture, BadImage):
            raise BadImage(f"Picture {number}: {picture}")
        found.append(picture)
    return found


def pictures_or_errors(image: Tensor, first: int = 0) -> list[Tensor | BadImage]:
    """As ``pictures``, but one of them that holds NaN or infinity, or is too long, becomes its
    error, which does not name it. What is wrong with the whole IMAGE is raised."""
    batch = _batch(image)
    try:
        check_aspect(batch.shape[1], batch.shape[2])
    except BadImage as error:
        return [error] * len(batch)
    return [_to_rgb8(one, index) for index, one in enumerate(batch, first)]


def drawable_pictures(image: Tensor) -> list[Tensor]:
    """As ``pictures``, but to be looked at by people: of any aspect ratio, and black where they
    hold NaN or infinity."""
    found = []
    for index, one in enumerate(_batch(image)):
        picture = _to_rgb8(one, index)
        if isinstance(picture, BadImage):
            (picture,) = drawable_pictures(one.nan_to_num(0, 0, 0).clamp(0, 1))
        found.append(picture)
    return found


def _batch(image: Tensor) -> Tensor:
    """``image`` as a batch. Raises ``BadImage`` where it is no IMAGE."""
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
    if image.dtype != torch.uint8 and not image.is_floating_point():
        raise BadImage(f"Expected a float or uint8 IMAGE, got {image.dtype}.")
    return image


def _to_rgb8(image: Tensor, index: int) -> Tensor | BadImage:
    height, width, channels = image.shape
    rgb = empty((height, width, 3), torch.uint8, image.device)
    if image.dtype == torch.uint8 and channels != 4:
        rgb.copy_(image)
    else:
        rows = max(1, CHUNK_PIXELS // width)
        for source, target in zip(image.split(rows), rgb.split(rows), strict=True):
            unit = source.float() / 255 if source.dtype == torch.uint8 else _clamped(source)
            if unit is None:
                return _bad_values(image, index)
            if channels == 4:
                colour, alpha = unit[..., :3], unit[..., 3:]
                unit = colour * alpha + (1 - alpha)
            # By way of int16: torch's direct cast from float to uint8 is slow.
            target.copy_(unit.mul(255).round_().to(torch.int16))
    return rgb.movedim(-1, 0)


def empty(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised tensor. On the CPU numpy allocates it, with huge pages: torch's small ones
    are faulted in one by one, which for tens of megabytes takes longer than all the work here."""
    if device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    import numpy as np

    buffer = np.empty(math.prod(shape) * dtype.itemsize, dtype=np.uint8)
    return torch.from_numpy(buffer).view(dtype).view(shape)


def _clamped(values: Tensor) -> Tensor | None:
    """Float32 in 0-1; None where the values cannot be an image's."""
    values = values.float()
    low, high = (float(value) for value in torch.aminmax(values))
    if not (low >= -_MAX_OVERSHOOT and high <= 1 + _MAX_OVERSHOOT):  # NaN fails this too
        return None
    return values if low >= 0 and high <= 1 else values.clamp(0, 1)


def _bad_values(image: Tensor, index: int) -> BadImage:
    """The error of one picture, given back; raises what will be true of the others as well."""
    low, high = (float(value) for value in torch.aminmax(image.float()))
    if not (math.isfinite(low) and math.isfinite(high)):
        return BadImage(
            "It holds NaN or infinite values. A VAE that overflows in fp16 makes such pictures: "
            "decode it in fp32 (--fp32-vae) or remove it from the batch."
        )
    raise BadImage(
        f"Picture {index + 1} has values from {low:.3g} to {high:.3g}; an IMAGE runs from 0 to "
        "1. Divide by 255, or map -1..1 to 0..1, before this node."
    )


def check_aspect(height: int, width: int) -> None:
    """Raises ``BadImage`` if one side is over 200 times the other."""
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise BadImage(
            f"A picture of {width}x{height} is more than {MAX_ASPECT_RATIO} times as long as it is "
            "wide; the models refuse that. Crop or pad it."
        )


def read(path: str | Path) -> Tensor:
    """Reads an image file: EXIF orientation applied, alpha composited on white, the first frame
    of several.

    Raises ``BadImage``, which names the file, if it is missing, not an image, or damaged.
    """
    from .image_files import decode

    pixels = torch.from_numpy(decode(path))
    try:
        return pictures(pixels if pixels.ndim == 3 else pixels[None, ..., None])[0]
    except BadImage as error:
        raise BadImage(f"{path}: {str(error).removeprefix('Picture 1: ')}") from error


def write_png(picture: Tensor, path: Path) -> None:
    """Writes a picture without loss, as a whole or not at all, and the folders that it lies in.
    Raises ``QwenVLError`` where that is not possible."""
    from PIL import Image

    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = picture.movedim(0, -1).contiguous().cpu().numpy()
        Image.fromarray(rows, "RGB").save(partial, format="PNG", compress_level=4)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise QwenVLError(f"{path} cannot be written to: {error.strerror or error}.") from error


def to_image(batch: Sequence[Tensor]) -> Tensor:
    """Stacks pictures of one size into an IMAGE ``[B, H, W, 3]``, float32, 0-1."""
    return torch.stack([picture.movedim(0, -1) for picture in batch]).float().div_(255)
