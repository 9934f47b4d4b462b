"""Boxes and points drawn on pictures, and as masks."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from .types import Box, Point, Size

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

# Pillow brings one Latin font. For other scripts: what Linux, Windows and macOS ship.
_WIDE_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "NotoSansCJKsc-Regular.otf",
    "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc",
    "DroidSansFallbackFull.ttf",
    "msyh.ttc",
    "YuGothM.ttc",
    "PingFang.ttc",
    "Hiragino Sans GB.ttc",
    "Arial Unicode.ttf",
    "DejaVuSans.ttf",
)

Rectangle = tuple[int, int, int, int]


def colour(label: str) -> tuple[int, int, int]:
    """The RGB colour of a label: the same in every picture and every run."""
    return _PALETTE[zlib.crc32(label.strip().lower().encode()) % len(_PALETTE)]


def mask(size: Size, boxes: Sequence[Box]) -> Tensor:
    """float32 ``[H, W]``: 1 in every pixel that a box touches, 0 elsewhere."""
    import torch

    canvas = torch.zeros(size)
    for box in boxes:
        rows = slice(math.floor(box.y1), math.ceil(box.y2))
        columns = slice(math.floor(box.x1), math.ceil(box.x2))
        canvas[rows, columns] = 1
    return canvas


def annotate(picture: Tensor, boxes: Sequence[Box], points: Sequence[Point] = ()) -> Tensor:
    """A copy of ``picture`` (uint8 ``[3, H, W]``) with every box and point drawn and labelled.

    Lines and letters grow with the picture. Labels stay inside it and, where there is room, off
    each other; one too long for the picture is cut with an ellipsis.
    """
    import torch
    from PIL import Image, ImageDraw

    height, width = picture.shape[-2:]
    canvas = Image.fromarray(picture.movedim(0, -1).contiguous().cpu().numpy(), "RGB")
    pen = _Pen(ImageDraw.Draw(canvas), width, height)
    for box in boxes:
        pen.box(box)
    for point in points:
        pen.point(point)
    # Last, so that no line crosses a word.
    for label, anchor in [(box.label, pen.around(box)) for box in boxes] + [
        (point.label, pen.around(point)) for point in points
    ]:
        pen.label(label, anchor)
    drawn = torch.frombuffer(bytearray(canvas.tobytes()), dtype=torch.uint8)
    return drawn.view(height, width, 3).movedim(-1, 0).contiguous()


class _Pen:
    """Draws on one picture and remembers where words already stand."""

    def __init__(self, draw: Any, width: int, height: int):
        self.draw, self.width, self.height = draw, width, height
        longest = max(width, height)
        self.line = max(1, round(longest / 320))
        self.text_size = max(10, round(longest / 42))
        self.taken: list[Rectangle] = []

    def around(self, item: Box | Point) -> Rectangle:
        """The pixels an item covers when drawn: left, top, right, bottom."""
        if isinstance(item, Box):
            left, top = math.floor(item.x1), math.floor(item.y1)
            return left, top, math.ceil(item.x2) - 1, math.ceil(item.y2) - 1
        reach = self.line * 3
        x, y = int(item.x), int(item.y)
        return x - reach, y - reach, x + reach, y + reach

    def box(self, box: Box) -> None:
        self.draw.rectangle(self.around(box), outline=colour(box.label), width=self.line)

    def point(self, point: Point) -> None:
        self.draw.ellipse(
            self.around(point), fill=colour(point.label), outline="white", width=self.line
        )

    def label(self, label: str, anchor: Rectangle) -> None:
        text = " ".join(label.split())
        if not text:
            return
        font = _font(self.text_size, text.isascii())
        pad = max(1, self.text_size // 5)
        text = _fitted(text, font, self.width - 2 * pad)
        wide, high = math.ceil(font.getlength(text)) + 2 * pad, self.text_size + 2 * pad
        spot = self._spot(anchor, wide, high)
        self.taken.append(spot)
        ground = colour(label)
        self.draw.rectangle(spot, fill=ground)
        ink = "black" if _brightness(ground) > 140 else "white"
        middle = (spot[0] + pad, (spot[1] + spot[3]) / 2)
        self.draw.text(middle, text, fill=ink, font=font, anchor="lm")

    def _spot(self, anchor: Rectangle, wide: int, high: int) -> Rectangle:
        """Above the item, below it, or inside it: the first place that is free of other words,
        and better one that does not hide the item."""
        left, top, right, bottom = anchor
        tries = ((left, top - high), (left, bottom + 1), (left, top), (right - wide, bottom - high))
        places = [self._inside(x, y, wide, high) for x, y in tries]
        return min(
            places,
            key=lambda place: (
                any(_overlap(place, other) for other in self.taken),
                _overlap(place, anchor),
            ),
        )

    def _inside(self, x: int, y: int, wide: int, high: int) -> Rectangle:
        x = max(0, min(x, self.width - wide))
        y = max(0, min(y, self.height - high))
        return x, y, x + wide - 1, y + high - 1


def _overlap(a: Rectangle, b: Rectangle) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def _brightness(rgb: tuple[int, int, int]) -> float:
    """Luma of ITU-R BT.601, 0-255."""
    return 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2]


def _fitted(text: str, font: Any, room: int) -> str:
    if font.getlength(text) <= room:
        return text
    keep = next(
        (n for n in range(len(text) - 1, 0, -1) if font.getlength(text[:n] + "…") <= room), 0
    )
    return text[:keep].rstrip() + "…"


@lru_cache(maxsize=32)
def _font(size: int, latin: bool) -> Any:
    """Pillow's own font, or for other scripts the first that this system has. Without one, other
    letters come out as empty squares; the ``label`` of the data stays right."""
    from PIL import ImageFont

    for name in () if latin else _WIDE_FONTS:
        try:
            return ImageFont.truetype(name, size)
        except OSError:
            continue
    return ImageFont.load_default(size)
