"""Tiles: a large picture cut into overlapping parts, and what was found in one mapped back to it.

Geometry alone, in pixels. Standard library only."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

from .errors import BadOption
from .types import Box, Point, Size

Tile = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels of the picture; the last two are not part of the tile."""

_Shape = TypeVar("_Shape", bound=Box | Point)


def tiles(size: Size, tile: int, overlap: int) -> list[Tile]:
    """Cuts a picture of ``size`` (height, width) into tiles, row by row from the top left.

    Together they cover the picture, and none reaches outside it. Each side of a tile is ``tile``
    pixels, or that of the picture where it is shorter. Neighbours share at least ``overlap``
    pixels, more where the picture is no whole number of steps: tiles are as few as can be, and
    spread evenly. Raises ``BadOption`` unless 0 <= overlap < tile, and for a picture of no pixels.
    """
    if not 0 <= overlap < tile:
        raise BadOption(
            f"Tiles of {tile} px cannot overlap by {overlap} px: use 0 or more, and less than the "
            "tile's side."
        )
    height, width = size
    if height < 1 or width < 1:
        raise BadOption(f"A picture of {width}x{height} has no pixels to cut into tiles.")
    return [
        (x, y, x + min(tile, width), y + min(tile, height))
        for y in _starts(height, tile, overlap)
        for x in _starts(width, tile, overlap)
    ]


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where the tiles of one side begin."""
    room = length - tile  # for all steps together
    if room <= 0:
        return [0]
    steps = -(-room // (tile - overlap))
    return [step * room // steps for step in range(steps + 1)]


def to_picture(found: _Shape, tile: Tile) -> _Shape:
    """A box or point in pixels of ``tile``, in pixels of the picture that it was cut from."""
    offset = dict(zip(("x", "y", "x1", "y1", "x2", "y2"), tile[:2] * 3, strict=True))
    moved = {name: value + offset[name] for name, value in vars(found).items() if name in offset}
    return dataclasses.replace(found, **moved)


def is_cut(box: Box, tile: Tile, size: Size, margin: float = 1.0) -> bool:
    """Whether ``box``, in pixels of the picture, ends within ``margin`` pixels of a side of
    ``tile`` that is no side of the picture: what it holds may go on beyond that side."""
    height, width = size
    return (
        (box.x1 <= tile[0] + margin and tile[0] > 0)
        or (box.y1 <= tile[1] + margin and tile[1] > 0)
        or (box.x2 >= tile[2] - margin and tile[2] < width)
        or (box.y2 >= tile[3] - margin and tile[3] < height)
    )
