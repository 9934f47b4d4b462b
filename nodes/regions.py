"""The input inside: masks or boxes to the engine's regions, a list for each picture."""

from __future__ import annotations

from typing import Any

from ..qwenvl.errors import BadOption
from ..qwenvl.grounding.regions import Region, of_boxes, of_mask
from ..qwenvl.types import Size
from . import box_values, picking


def regions(inside: Any, count: int, size: Size) -> list[list[Region]]:
    """The regions of each of ``count`` pictures of ``size``, from any node's MASK or BOUNDING_BOX.

    A region is what a mask shows white, or a box. Several masks are regions of a single picture;
    with several pictures there is one mask each, fewer masks than pictures being repeated, as
    elsewhere in ComfyUI. Masks of another size are stretched. Raises ``BadOption`` for what is no
    mask and no box.
    """
    if hasattr(inside, "ndim"):
        masks = _masks(inside, size)
        if count == 1:
            return [[region for mask in masks for region in of_mask(mask)]]
        return [of_mask(masks[number % len(masks)]) for number in range(count)]
    frames = box_values.frames(inside, count, size)
    return [of_boxes([picking.engine_box(box) for box in frame]) for frame in frames]


def _masks(mask: Any, size: Size) -> Any:
    """MASK ``[N, H, W]`` of any size as ``[N, *size]``."""
    import torch

    if mask.ndim not in (2, 3) or 0 in mask.shape:
        raise BadOption(f"inside is no mask: its shape is {list(mask.shape)}.")
    if not torch.isfinite(mask).all():
        raise BadOption("The mask of inside holds NaN or infinite values.")
    planes = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    return torch.nn.functional.interpolate(planes, size=size, mode="bilinear")[:, 0]
