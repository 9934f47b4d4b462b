"""Cutting crops out of pictures: with padding of their own, and all of one size if wanted. Pure
functions."""

from __future__ import annotations

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
    """``area`` grown about its middle to width / height = ``ratio``, moved into the picture, and
    cut to it where that is too small."""
    width = max(area["width"], round(area["height"] * ratio))
    height = max(area["height"], round(area["width"] / ratio))
    left, width = _placed(area["x"], area["width"], min(width, size[1]), size[1])
    top, height = _placed(area["y"], area["height"], min(height, size[0]), size[0])
    return {"x": left, "y": top, "width": width, "height": height}


def _placed(start: int, length: int, wanted: int, room: int) -> tuple[int, int]:
    """Where ``wanted`` pixels about the middle of ``length`` begin, and how many they are."""
    return max(0, min(start - (wanted - length) // 2, room - wanted)), wanted


def _fitted(found: Tensor, cut: Cut) -> Tensor:
    """A crop scaled to the wanted size, its shape kept, black where it does not reach."""
    import torch

    height, width = found.shape[1:3]
    scale = min(side / own for side, own in ((cut.width, width), (cut.height, height)) if side)
    inner = max(1, round(height * scale)), max(1, round(width * scale))
    whole = cut.height or inner[0], cut.width or inner[1]
    inner = min(inner[0], whole[0]), min(inner[1], whole[1])
    scaled = torch.nn.functional.interpolate(
        found.movedim(-1, 1).float(), size=inner, mode="bicubic", antialias=True
    )
    canvas = found.new_zeros(1, *whole, found.shape[-1], dtype=torch.float32)
    top, left = (whole[0] - inner[0]) // 2, (whole[1] - inner[1]) // 2
    canvas[:, top : top + inner[0], left : left + inner[1]] = scaled.clamp(0, 1).movedim(1, -1)
    return canvas
