"""Annotation drawing: boxes and points drawn on pictures, and masks of boxes."""

from __future__ import annotations

import logging
import math
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..camera import EDGES
from ..types import Box, Cuboid, Point, Size
from . import text_rendering

if TYPE_CHECKING:
    from torch import Tensor

_PALETTE = (
    (230, 57, 70),
    (29, 122, 243),
    (46, 160, 67),
    (255, 152, 0),
    (156, 39, 176),
    (0, 172, 193),
    (216, 27, 130),
    (121, 85, 72),
    (255, 214, 10),
    (94, 92, 230),
    (124, 179, 66),
    (0, 121, 107),
)

Rectangle = tuple[int, int, int, int]

log = logging.getLogger(__name__)


def colour(label: str) -> tuple[int, int, int]:
    """The RGB colour of a label: the same in every picture and every run."""
    return _PALETTE[zlib.crc32(label.strip().lower().encode(errors="replace")) % len(_PALETTE)]


def mask(size: Size, boxes: Sequence[Box]) -> Tensor:
    """float32 ``[H, W]``: 1 in every pixel that a box touches, 0 elsewhere."""
    import torch

    canvas = torch.zeros(size)
    for box in boxes:
        rows = slice(math.floor(box.y1), math.ceil(box.y2))
        columns = slice(math.floor(box.x1), math.ceil(box.x2))
        canvas[rows, columns] = 1
    return canvas


def annotate(
    picture: Tensor,
    boxes: Sequence[Box],
    points: Sequence[Point] = (),
    check: Callable[[], None] | None = None,
    cuboids: Sequence[Cuboid] = (),
) -> Tensor:
    """A copy of ``picture`` (uint8 ``[3, H, W]``) with every box and point drawn and labelled.

    Where there are ``cuboids``, ``boxes`` are the rectangles around those that lie in the picture:
    then the edges of the cuboids are drawn instead, as far as they can be projected.

    Line width and text size scale with the picture. Labels stay inside it and, if there is room,
    do not overlap. A label too long for the picture is cut with an ellipsis; one that no font can
    draw is replaced by its number in the list, from 1. ``check`` is called before each item; what
    it raises reaches the caller.
    """
    import torch
    from PIL import Image, ImageDraw

    height, width = picture.shape[-2:]
    canvas = Image.fromarray(picture.movedim(0, -1).contiguous().cpu().numpy(), "RGB")
    pen = _Pen(ImageDraw.Draw(canvas), width, height)
    items: list[Box | Point] = [*boxes, *points]
    for cuboid in cuboids:
        pen.edges(cuboid)
    for item in items:
        if check is not None:
            check()
        if not cuboids:
            pen.mark(item)
    # Labels last, so that no line crosses a text.
    for item, number in zip(items, (*range(len(boxes)), *range(len(points))), strict=True):
        if check is not None:
            check()
        pen.label(item, number + 1)
    if pen.undrawable:
        log.info(
            "No font here has all letters of %r: such labels are drawn as numbers in the list.",
            pen.undrawable[0],
        )
    drawn = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8)
    return drawn.view(height, width, 3).movedim(-1, 0).contiguous()


class _Pen:
    """Draws on one picture and records which pixels labels occupy."""

    def __init__(self, draw: Any, width: int, height: int):
        import torch

        self.draw, self.width, self.height = draw, width, height
        longest = max(width, height)
        self.line = max(1, round(longest / 320))
        self.text_size = max(10, round(longest / 42))
        self.taken = torch.zeros(height, width, dtype=torch.bool)
        self.undrawable: list[str] = []

    def extent(self, item: Box | Point) -> Rectangle:
        """The pixels an item covers when drawn: left, top, right, bottom."""
        if isinstance(item, Box):
            left, top = math.floor(item.x1), math.floor(item.y1)
            return left, top, math.ceil(item.x2) - 1, math.ceil(item.y2) - 1
        reach = self.line * 3
        x, y = int(item.x), int(item.y)
        return x - reach, y - reach, x + reach, y + reach

    def mark(self, item: Box | Point) -> None:
        extent, hue = self.extent(item), colour(item.label)
        if isinstance(item, Box):
            self.draw.rectangle(extent, outline=hue, width=self.line)
        else:
            self.draw.ellipse(extent, fill=hue, outline="white", width=self.line)

    def edges(self, cuboid: Cuboid) -> None:
        for first, second in EDGES if cuboid.corners else ():
            ends = [cuboid.corners[first], cuboid.corners[second]]
            self.draw.line(ends, fill=colour(cuboid.label), width=self.line)

    def label(self, item: Box | Point, number: int) -> None:
        if not item.label.strip():
            return
        pad = max(1, self.text_size // 5)
        room = self.width - 2 * pad
        line = text_rendering.line(item.label, self.text_size, room)
        if line is None:
            self.undrawable.append(item.label)
            line = text_rendering.line(str(number), self.text_size, room)
            assert line is not None, "our own font has digits"
        wide, high = math.ceil(line.width) + 2 * pad, self.text_size + 2 * pad
        spot = self._label_position(self.extent(item), wide, high)
        left, top, right, bottom = spot
        self.taken[top : bottom + 1, left : right + 1] = True
        ground = colour(item.label)
        self.draw.rectangle(spot, fill=ground)
        ink = "black" if _brightness(ground) > 140 else "white"
        line.draw(self.draw, left + pad, (top + bottom) / 2, ink)

    def _label_position(self, anchor: Rectangle, wide: int, high: int) -> Rectangle:
        """Where to put a label: above the item, below it, or inside it; the first position that
        is free of other labels, preferably one that does not cover the item."""
        left, top, right, bottom = anchor
        tries = ((left, top - high), (left, bottom + 1), (left, top), (right - wide, bottom - high))
        positions = [self._inside(x, y, wide, high) for x, y in tries]
        return min(
            positions,
            key=lambda position: (self._is_taken(position), _overlap(position, anchor)),
        )

    def _is_taken(self, area: Rectangle) -> bool:
        left, top, right, bottom = area
        return bool(self.taken[top : bottom + 1, left : right + 1].any())

    def _inside(self, x: int, y: int, wide: int, high: int) -> Rectangle:
        x = max(0, min(x, self.width - wide))
        y = max(0, min(y, self.height - high))
        return x, y, x + wide - 1, y + high - 1


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _brightness(rgb: tuple[int, int, int]) -> float:
    """Luma of ITU-R BT.601, 0-255."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]
