"""From the numbers in a reply to pixels of the original picture. Pure arithmetic.

What differs between model generations is one datum, ``Family.coordinates``: the length of the
ruler that the model measures with. ``relative`` families count 0-1000 along each side of the
picture; ``absolute`` ones count pixels of the resized picture that they saw. Each axis is scaled
by itself, for resizing rounds each side to whole patches and so shifts the aspect ratio a little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .types import Box, Point, Seen, Size

RELATIVE_SIDE = 1000
"""What one side of the picture measures in a ``relative`` family, whatever its pixels."""


def to_box(
    values: Sequence[float], seen: Seen, label: str = "", score: float | None = None
) -> Box | None:
    """The box of ``values`` (x1, y1, x2, y2 in the family's space) in original pixels.

    Corners in the wrong order are swapped, and what reaches over the edge (1003 of 1000, say) is
    clamped. None where nothing is left: no area inside the picture, or a number is not finite.
    """
    mapped = _to_pixels(values, seen)
    if mapped is None:
        return None
    (x1, x2), (y1, y2) = sorted(mapped[0::2]), sorted(mapped[1::2])
    return Box(x1, y1, x2, y2, label, score) if x1 < x2 and y1 < y2 else None


def to_point(values: Sequence[float], seen: Seen, label: str = "") -> Point | None:
    """The point of ``values`` (x, y in the family's space) in original pixels, clamped to the
    picture. None where a number is not finite."""
    mapped = _to_pixels(values, seen)
    return None if mapped is None else Point(mapped[0], mapped[1], label)


def centre(box: Box) -> Point:
    """The middle of a box, with its label."""
    return Point((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2, box.label)


def whole_box(box: Box) -> tuple[int, int, int, int]:
    """``(x1, y1, x2, y2)`` of the least whole pixels that hold all of ``box``: never empty, and
    never outside the picture that ``box`` lies in."""
    return math.floor(box.x1), math.floor(box.y1), math.ceil(box.x2), math.ceil(box.y2)


def whole_point(point: Point, image_size: Size) -> tuple[int, int]:
    """``(x, y)`` of the pixel that holds the point, for a picture of (height, width)."""
    height, width = image_size
    return min(int(point.x), width - 1), min(int(point.y), height - 1)


def _to_pixels(values: Sequence[float], seen: Seen) -> list[float] | None:
    # Python's whole numbers have no bound and no infinity; isfinite overflows on very long ones.
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        return None
    height, width = seen.image_size
    rulers = _rulers(values, seen)
    # Multiplied first, whole numbers that have an exact answer get it: 290 of 1000 on 100 pixels
    # is 29.0, and rounding up or down does not move it.
    return [
        min(max(value, 0), rulers[i % 2]) * (width, height)[i % 2] / rulers[i % 2]
        for i, value in enumerate(values)
    ]


def _rulers(values: Sequence[float], seen: Seen) -> tuple[int, int]:
    """What the picture's width and height measure in the space of ``values``."""
    if _are_fractions(values):
        return 1, 1
    if seen.family.coordinates == "relative":
        return RELATIVE_SIDE, RELATIVE_SIDE
    height, width = seen.input_size
    return width, height


def _are_fractions(values: Sequence[float]) -> bool:
    """Whether a fine-tune wrote parts of the picture's sides, 0.0-1.0.

    Qwen models write whole numbers. Read in their own space, four numbers within 0-1 would be a
    speck in the corner of less than one unit, so a decimal point among them settles it; whole
    zeros and ones stay what they are.
    """
    return any(isinstance(value, float) for value in values) and all(
        0 <= value <= 1 for value in values
    )
