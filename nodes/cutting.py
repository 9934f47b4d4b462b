"""Cutting crops out of pictures: with padding of their own, and all of one size if wanted. Pure
functions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..qwenvl.types import Size
from . import picking
from .picking import BoundingBox

if TYPE_CHECKING:
    from torch import Tensor

SURROUNDINGS, BARS = "surroundings", "bars"
FITS = (SURROUNDINGS, BARS)


@dataclass(frozen=True)
class Cut:
    """How crops are cut. ``padding``: added to the box on every side, in ``unit``, for the crop
    alone. ``width``, ``height``: of every crop, in pixels; where one is 0, the crop keeps its
    shape, where both are, its size. ``fit``, one of ``FITS``: how it gets another shape, by more of
    the picture around the box, or by black bars."""

    padding: int = 0
    unit: str = picking.PIXELS
    width: int = 0
    height: int = 0
    fit: str = SURROUNDINGS


def crop(picture: Tensor, box: BoundingBox, cut: Cut) -> Tensor:
    """IMAGE ``[1, height, width, C]``: the crop of a picture ``[H, W, C]`` at ``box``."""
    size = picture.shape[0], picture.shape[1]
    area = picking.padded(box, picking.Rule(padding=cut.padding, unit=cut.unit), size)
    if cut.width and cut.height and cut.fit == SURROUNDINGS:
        area = _widened(area, cut.width / cut.height, size)
    found = picking.crop(picture, area)
    return _fitted(found, cut) if cut.width or cut.height else found


def _widened(area: BoundingBox, ratio: float, size: Size) -> dict[str, Any]:
    """``area`` grown about its middle to width / height = ``ratio`` or, in whole pixels, up to one
    pixel more, moved into the picture, and cut to it where that is too small."""
    width = max(area["width"], _whole(area["height"] * ratio))
    height = max(area["height"], _whole(area["width"] / ratio))
    left, width = _placed(area["x"], area["width"], min(width, size[1]), size[1])
    top, height = _placed(area["y"], area["height"], min(height, size[0]), size[0])
    return {"x": left, "y": top, "width": width, "height": height}


def _whole(length: float) -> int:
    return math.ceil(length - 1e-6)  # 10 * 1.1 is 11


def _placed(start: int, length: int, wanted: int, room: int) -> tuple[int, int]:
    """Where ``wanted`` pixels about the middle of ``length`` begin, and how many they are."""
    return max(0, min(start - (wanted - length) // 2, room - wanted)), wanted


def _fitted(found: Tensor, cut: Cut) -> Tensor:
    """A crop scaled to the wanted size, its shape kept, black where it does not reach. What an area
    has beyond the shape by whole pixels, less than one of them, is cut off on both sides."""
    from torch.nn import functional

    height, width = found.shape[1:3]
    scales = [side / own for side, own in ((cut.width, width), (cut.height, height)) if side]
    scale = max(scales) if cut.fit == SURROUNDINGS and _has_shape(found, cut) else min(scales)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    scaled = functional.interpolate(
        found.movedim(-1, 1).float(), size=inner, mode="bicubic", antialias=True
    ).clamp(0, 1)
    missing = (cut.height or inner[0]) - inner[0], (cut.width or inner[1]) - inner[1]
    top, left = (length // 2 for length in missing)
    sides = (left, missing[1] - left, top, missing[0] - top)  # below 0: cut off
    return functional.pad(scaled, sides).movedim(1, -1).contiguous()


def _has_shape(found: Tensor, cut: Cut) -> bool:
    """Whether a crop has the wanted shape but for less than one of its own pixels too much."""
    if not (cut.width and cut.height):
        return False
    height, width = found.shape[1:3]
    ratio = cut.width / cut.height
    return max(width - height * ratio, height - width / ratio) < 1
