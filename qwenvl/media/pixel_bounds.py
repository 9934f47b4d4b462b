"""Pixel bounds of an image: the least and the most pixels (width times height) that a model is to
see of it. Standard library only."""

from __future__ import annotations

from ..types import Size

PixelBounds = tuple["int | None", "int | None"]
"""Least and most pixels; None: the checkpoint's own bound."""


def with_longest_side(
    bounds: PixelBounds, size: Size, longest_side: int, token_pixels: int, own_max: int | None
) -> PixelBounds:
    """``bounds`` tightened so that an image of ``size`` keeps to ``longest_side`` pixels (0: any).

    A bound on the area does it, since resizing keeps the aspect ratio. ``token_pixels``: pixels of
    one image token, the least that a model can see. ``own_max``: the model's own upper bound, which
    a longest side does not raise (None: unknown).
    """
    min_pixels, max_pixels = bounds
    if not longest_side or max(size) <= longest_side:
        return bounds
    area = round(size[0] * size[1] * (longest_side / max(size)) ** 2)
    most = max(token_pixels, min(area, max_pixels or own_max or area))
    return min(min_pixels, most) if min_pixels else None, most
