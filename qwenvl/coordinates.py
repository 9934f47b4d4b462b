"""From the numbers in a reply to pixels of the original picture. Pure arithmetic.

What differs between model generations is one datum, ``Family.coordinates``: the length of the
ruler that the model measures with. ``relative`` families count 0-1000 along each side of the
picture; ``absolute`` ones count pixels of the resized picture that they saw. Each axis is scaled
by itself, for resizing rounds each side to whole patches and so shifts the aspect ratio a little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from .types import Box, Point, ReplyContext, Size

RELATIVE_SIDE = 1000
"""What one side of the picture measures in a ``relative`` family, whatever its pixels."""

_HUGE = 10**9
_OTHER_SCALE = "The reply's scale is probably another one."
_Place = TypeVar("_Place", Box, Point)

FAR_OUT = 0.02
"""How much of a picture's side a place may lie outside before that is more than carelessness."""


def to_box(
    values: Sequence[float], context: ReplyContext, label: str = "", score: float | None = None
) -> Box | None:
    """The box of ``values`` (x1, y1, x2, y2 in the family's space) in original pixels.

    Corners in the wrong order are swapped, and what reaches over the edge (1003 of 1000, say) is
    clamped. None where nothing is left: no area inside the picture, or a number is not finite.
    """
    mapped = _to_pixels(values, context)
    if mapped is None:
        return None
    (x1, x2), (y1, y2) = sorted(mapped[0::2]), sorted(mapped[1::2])
    return Box(x1, y1, x2, y2, label, score) if x1 < x2 and y1 < y2 else None


def to_point(values: Sequence[float], context: ReplyContext, label: str = "") -> Point | None:
    """The point of ``values`` (x, y in the family's space) in original pixels, clamped to the
    picture. None where it lies more than ``FAR_OUT`` outside, or a number is not finite."""
    mapped = _to_pixels(values, context)
    if mapped is None or outside(values, context) > FAR_OUT:
        return None
    return Point(mapped[0], mapped[1], label)


def outside(values: Sequence[float], context: ReplyContext) -> float:
    """How far ``values`` (x, y, and so on in turn) reach outside the picture, as a share of its
    side: 0 inside, 0.5 for 1500 of 1000, infinite for what is not finite."""
    # Python's whole numbers have no bound; a float's division has.
    if not all(-_HUGE < value < _HUGE for value in values):
        return math.inf
    xs, ys, (width, height) = values[0::2], values[1::2], _rulers(values, context)
    return max(
        max(-min(xs), max(xs) - width, 0) / width, max(-min(ys), max(ys) - height, 0) / height
    )


class Mapper:
    """Maps the places of one reply to pixels, and keeps account of those that lie outside.

    A box that overlaps the picture is clamped to it. A box without area or wholly outside, and a
    point more than ``FAR_OUT`` outside, cannot be mapped. ``notes`` tells of both, and of what
    the reader of the reply ``lost``, by label.
    """

    def __init__(self, context: ReplyContext, lost: Sequence[str] = ()):
        self._context = context
        self._clamped: list[float] = []
        self._lost = [
            f"{label[:40] or 'one'} (its place is broken or of another kind)" for label in lost
        ]
        self._is_outside = False
        self.count = 0

    def box(self, values: Sequence[float], label: str = "") -> Box | None:
        """See ``to_box``."""
        return self._noted(values, label, to_box(values, self._context, label))

    def point(self, values: Sequence[float], label: str = "") -> Point | None:
        """See ``to_point``; of a box, its middle, even where it has no area."""
        if len(values) == 2:
            return self._noted(values, label, to_point(values, self._context, label))
        box = to_box(values, self._context, label)
        if box is None and outside(values, self._context) <= FAR_OUT:
            middle = ((values[0] + values[2]) / 2, (values[1] + values[3]) / 2)
            return self._noted(middle, label, to_point(middle, self._context, label))
        return self._noted(values, label, centre(box) if box else None)

    def data(self, values: Sequence[float]) -> dict[str, float]:
        """What a program should know of a mapped place: ``outside``, the share of the picture's
        side that was cut off, where that is more than ``FAR_OUT``."""
        share = outside(values, self._context)
        return {"outside": round(share, 4)} if share > FAR_OUT else {}

    def notes(self) -> tuple[str, ...]:
        """Sentences for the person who asked; none where all places lie in the picture."""
        found = []
        if self._clamped:
            found.append(
                f"{len(self._clamped)} of {self.count} boxes reached outside the picture, by up to "
                f"{_percent(max(self._clamped))} of its side, and were cut to it. {_OTHER_SCALE}"
            )
        if self._lost:
            found.append(f"Left out, as it cannot be mapped to the picture: {self.lost()}.")
        return tuple(found)

    def lost(self) -> str:
        """What could not be mapped, by label and numbers; empty where all could."""
        more = f" and {len(self._lost) - 5} more" if len(self._lost) > 5 else ""
        return ", ".join(self._lost[:5]) + more

    def complaint(self) -> str:
        """Why there is nothing, where all of a reply's places were lost."""
        lost = f"What the model marked cannot be mapped to the picture: {self.lost()}."
        if not self._is_outside:
            return f"{lost} A box needs a width and a height."
        if self._context.family.coordinates == "relative":
            ruler = f"0-{RELATIVE_SIDE} along each side"
        else:
            ruler = f"pixels of {self._context.input_size[1]}x{self._context.input_size[0]}"
        return f"{lost} {self._context.family.title} is read as {ruler}. {_OTHER_SCALE}"

    def _noted(self, values: Sequence[float], label: str, place: _Place | None) -> _Place | None:
        self.count += 1
        share = outside(values, self._context)
        self._is_outside |= share > FAR_OUT
        if place is None:
            numbers = ", ".join(map(_short, values))
            self._lost.append(f"{label[:40]} [{numbers}]".strip())
        elif share > FAR_OUT:
            self._clamped.append(share)
        return place


def _short(value: float) -> str:
    return f"{value:g}" if abs(value) < _HUGE else "…"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share < 10 else "more than 1000 %"


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


def _to_pixels(values: Sequence[float], context: ReplyContext) -> list[float] | None:
    # Python's whole numbers have no bound and no infinity; isfinite overflows on very long ones.
    if float in map(type, values) and not all(map(_is_finite, values)):
        return None
    height, width = context.image_size
    rulers = _rulers(values, context)
    # Multiplied first, whole numbers that have an exact answer get it: 290 of 1000 on 100 pixels
    # is 29.0, and rounding up or down does not move it.
    return [
        min(max(value, 0), rulers[i % 2]) * (width, height)[i % 2] / rulers[i % 2]
        for i, value in enumerate(values)
    ]


def _is_finite(value: float) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _rulers(values: Sequence[float], context: ReplyContext) -> tuple[int, int]:
    """What the picture's width and height measure in the space of ``values``."""
    if _are_fractions(values):
        return 1, 1
    if context.family.coordinates == "relative":
        return RELATIVE_SIDE, RELATIVE_SIDE
    height, width = context.input_size
    return width, height


def _are_fractions(values: Sequence[float]) -> bool:
    """Whether a fine-tune wrote parts of the picture's sides, 0.0-1.0 or a little beyond.

    Qwen models write whole numbers. Read in their own space, four numbers within 0-1 would be a
    speck in the corner of less than one unit, so a decimal point among them settles it; whole
    zeros and ones stay what they are.
    """
    return float in map(type, values) and all(-FAR_OUT <= value <= 1 + FAR_OUT for value in values)
