"""Regions of a picture that things are looked for in, and nowhere else: rectangles and masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..coordinates import integer_box
from ..tiles import Tile
from ..types import Box, Cuboid, Point, Size

if TYPE_CHECKING:
    from torch import Tensor

MARGIN = 0.1
"""Share of a region's longer side that the model is shown around it."""


@dataclass(frozen=True, eq=False)
class Region:
    """``area``: the rectangle; what counts as inside is, within it, where ``mask`` (bool ``[H, W]``
    of the whole picture) is True; without one, all of it."""

    area: Tile
    mask: Tensor | None = None

    def holds(self, shape: Box | Point | Cuboid) -> bool:
        """Whether a point lies inside, or at least half of a box's pixels do."""
        if isinstance(shape, Point):
            x, y = int(shape.x), int(shape.y)
            return self._inside((x, y, x + 1, y + 1)) > 0
        assert isinstance(shape, Box), "regions are of pictures"
        x1, y1, x2, y2 = tile = integer_box(shape)
        return 2 * self._inside(tile) >= (x2 - x1) * (y2 - y1)

    def _inside(self, tile: Tile) -> int:
        """How many pixels of ``tile`` lie inside."""
        left, top = max(tile[0], self.area[0]), max(tile[1], self.area[1])
        right, bottom = min(tile[2], self.area[2]), min(tile[3], self.area[3])
        if left >= right or top >= bottom:
            return 0
        if self.mask is None:
            return (right - left) * (bottom - top)
        return int(self.mask[top:bottom, left:right].sum())

    def shown(self, size: Size) -> Tile:
        """What the model is shown of a picture of ``size``: the area and a margin."""
        x1, y1, x2, y2 = self.area
        margin = math.ceil(MARGIN * max(x2 - x1, y2 - y1))
        height, width = size
        return (
            max(0, min(x1 - margin, width)),
            max(0, min(y1 - margin, height)),
            min(width, x2 + margin),
            min(height, y2 + margin),
        )


def of_mask(mask: Tensor) -> list[Region]:
    """The region that a mask (``[H, W]``, 0-1, as large as the picture) marks from 0.5 on; none
    where it marks nothing."""
    inside = mask >= 0.5
    rows, columns = inside.any(1).nonzero().flatten(), inside.any(0).nonzero().flatten()
    if not len(rows):
        return []
    area = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return [Region(area, inside)]


def of_boxes(boxes: Sequence[Box]) -> list[Region]:
    """A region for each box."""
    return [Region(integer_box(box)) for box in boxes]
