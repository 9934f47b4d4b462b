"""Coordinate mapping: from the model's coordinate space to pixels of the original picture.

The space is ``Family.coordinates``: ``relative`` families write 0 to ``Family.box_scale`` along
each side of the picture, ``absolute`` ones pixels of the resized picture. Each axis is scaled by
itself, since resizing rounds each side to whole patches and so changes the aspect ratio a little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from .types import Box, Point, ReplyContext, Size

_MAX_COORDINATE = 10**9
_OTHER_SCALE = "The reply's scale is probably another one."
_Shape = TypeVar("_Shape", Box, Point)

EDGE_TOLERANCE = 0.02
"""Share of a side by which coordinates may lie outside the picture and still be clamped quietly."""


def to_box(
    values: Sequence[float], context: ReplyContext, label: str = "", score: float | None = None
) -> Box | None:
    """Maps a box (x1, y1, x2, y2 in the family's space) to pixels of the original picture.

    Corners in the wrong order are swapped, and coordinates outside the picture (1003 of 1000,
    say) are clamped. None if no area is left inside the picture, or a number is not finite.
    """
    mapped = _to_pixels(values, context)
    if mapped is None:
        return None
    (x1, x2), (y1, y2) = sorted(mapped[0::2]), sorted(mapped[1::2])
    return Box(x1, y1, x2, y2, label, score) if x1 < x2 and y1 < y2 else None


def to_point(
    values: Sequence[float], context: ReplyContext, label: str = "", score: float | None = None
) -> Point | None:
    """Maps a point (x, y in the family's space) to pixels of the original picture, clamped to it.
    None if it lies more than ``EDGE_TOLERANCE`` outside, or a number is not finite."""
    mapped = _to_pixels(values, context)
    if mapped is None or overshoot(values, context) > EDGE_TOLERANCE:
        return None
    return Point(mapped[0], mapped[1], label, score)


def overshoot(values: Sequence[float], context: ReplyContext) -> float:
    """How far coordinates (x, y, x, y, ...) reach outside the picture, as a share of its side: 0
    inside, 0.5 for 1500 of 1000, infinite if one is not finite."""
    # Python's ints are unbounded, and dividing a huge one overflows.
    if not all(-_MAX_COORDINATE < value < _MAX_COORDINATE for value in values):
        return math.inf
    xs, ys, (width, height) = values[0::2], values[1::2], _axis_lengths(values, context)
    return max(
        max(-min(xs), max(xs) - width, 0) / width, max(-min(ys), max(ys) - height, 0) / height
    )


class PixelMapper:
    """Maps the boxes and points of one reply to pixels, and records those outside the picture.

    A box that overlaps the picture is clamped to it. A box without area or wholly outside, and a
    point more than ``EDGE_TOLERANCE`` outside, cannot be mapped. ``notes`` reports both, and the
    ``unusable`` items of the reply, by label.
    """

    def __init__(self, context: ReplyContext, unusable: Sequence[str] = ()):
        self._context = context
        self._clamped: list[float] = []
        self._unmapped = [
            f"{label[:40] or 'one'} (its place is broken or of another kind)" for label in unusable
        ]
        self._is_outside = False
        self.count = 0

    def box(
        self, values: Sequence[float], label: str = "", score: float | None = None
    ) -> Box | None:
        """See ``to_box``."""
        return self._recorded(values, label, to_box(values, self._context, label, score))

    def point(
        self, values: Sequence[float], label: str = "", score: float | None = None
    ) -> Point | None:
        """See ``to_point``; the centre of a box, even of one without area."""
        if len(values) == 2:
            return self._recorded(values, label, to_point(values, self._context, label, score))
        box = to_box(values, self._context, label, score)
        if box is None and overshoot(values, self._context) <= EDGE_TOLERANCE:
            middle = ((values[0] + values[2]) / 2, (values[1] + values[3]) / 2)
            return self._recorded(middle, label, to_point(middle, self._context, label, score))
        return self._recorded(values, label, centre(box) if box else None)

    def data(self, values: Sequence[float]) -> dict[str, float]:
        """Data about a mapped box or point: ``outside``, its overshoot, if that is more than
        ``EDGE_TOLERANCE``."""
        share = overshoot(values, self._context)
        return {"outside": round(share, 4)} if share > EDGE_TOLERANCE else {}

    def notes(self) -> tuple[str, ...]:
        """Notes for the user, a sentence each; none if everything lies inside the picture."""
        found = []
        if self._clamped:
            found.append(
                f"{len(self._clamped)} of {self.count} boxes reached outside the picture, by up to "
                f"{_percent(max(self._clamped))} of its side, and were cut to it. {_OTHER_SCALE}"
            )
        if self._unmapped:
            found.append(f"Left out, as it cannot be mapped to the picture: {self.unmapped()}.")
        return tuple(found)

    def unmapped(self) -> str:
        """What could not be mapped, by label and numbers; "" if nothing."""
        more = f" and {len(self._unmapped) - 5} more" if len(self._unmapped) > 5 else ""
        return ", ".join(self._unmapped[:5]) + more

    def complaint(self) -> str:
        """The error message where nothing could be mapped."""
        unmapped = f"What the model marked cannot be mapped to the picture: {self.unmapped()}."
        if not self._is_outside:
            return f"{unmapped} A box needs a width and a height."
        if self._context.family.coordinates == "relative":
            space = f"0-{self._context.family.box_scale} along each side"
        else:
            space = f"pixels of {self._context.input_size[1]}x{self._context.input_size[0]}"
        return f"{unmapped} {self._context.family.title} is read as {space}. {_OTHER_SCALE}"

    def _recorded(
        self, values: Sequence[float], label: str, mapped: _Shape | None
    ) -> _Shape | None:
        self.count += 1
        share = overshoot(values, self._context)
        self._is_outside |= share > EDGE_TOLERANCE
        if mapped is None:
            numbers = ", ".join(map(_short, values))
            self._unmapped.append(f"{label[:40]} [{numbers}]".strip())
        elif share > EDGE_TOLERANCE:
            self._clamped.append(share)
        return mapped


def _short(value: float) -> str:
    return f"{value:g}" if abs(value) < _MAX_COORDINATE else "…"


def _percent(share: float) -> str:
    return f"{share:.0%}" if share < 10 else "more than 1000 %"


def centre(box: Box) -> Point:
    """The centre of a box, with its label and score."""
    return Point((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2, box.label, box.score)


def integer_box(box: Box) -> tuple[int, int, int, int]:
    """``(x1, y1, x2, y2)`` in integers, rounded outwards: never empty, and never outside the
    picture that ``box`` lies in."""
    return math.floor(box.x1), math.floor(box.y1), math.ceil(box.x2), math.ceil(box.y2)


def integer_point(point: Point, image_size: Size) -> tuple[int, int]:
    """``(x, y)`` of the pixel that contains the point, for a picture of (height, width)."""
    height, width = image_size
    return min(int(point.x), width - 1), min(int(point.y), height - 1)


def _to_pixels(values: Sequence[float], context: ReplyContext) -> list[float] | None:
    # Python's ints are always finite, and isfinite overflows on huge ones.
    if float in map(type, values) and not all(map(_is_finite, values)):
        return None
    height, width = context.image_size
    lengths = _axis_lengths(values, context)
    # Multiplying first is exact where the result is whole: 290 of 1000 on 100 pixels is 29.0, which
    # rounding outwards leaves alone.
    return [
        min(max(value, 0), lengths[i % 2]) * (width, height)[i % 2] / lengths[i % 2]
        for i, value in enumerate(values)
    ]


def _is_finite(value: float) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _axis_lengths(values: Sequence[float], context: ReplyContext) -> tuple[int, int]:
    """Width and height of the picture in the coordinate space of ``values``."""
    if _are_fractions(values):
        return 1, 1
    if context.family.coordinates == "relative":
        return context.family.box_scale, context.family.box_scale
    height, width = context.input_size
    return width, height


def _are_fractions(values: Sequence[float]) -> bool:
    """Whether coordinates are fractions of the sides, 0.0-1.0 or a little beyond, as some
    fine-tunes write them.

    Qwen models write whole numbers. In their own space, four numbers within 0-1 would be a box of
    less than one unit in the corner, so a decimal point among them decides; whole zeros and ones
    are units.
    """
    return float in map(type, values) and all(
        -EDGE_TOLERANCE <= value <= 1 + EDGE_TOLERANCE for value in values
    )
