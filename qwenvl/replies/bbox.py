"""From the values of JSON members to numbers of places: boxes of four, points of two."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

Numbers = tuple[float, ...]

NUMBER = r"[-+]?\d+(?:\.\d+)?"
"""The expression of a number in a reply."""
MOST_PLACES = 5_000
"""How many places of a reply are read: no picture holds more."""
find_numbers = re.compile(NUMBER)
_NO_PICTURE_IS_SO_LARGE = 10**9

_NUMBER_LIST = re.compile(r"[\s\d.,;()\[\]<>+-]{3,200}")
# Of a flat list: longer ones are no places.
_MOST_NUMBERS = 400
_ONE_NUMBER = re.compile(r"\s{0,9}([-+]?\d{1,20}(?:\.\d{1,20})?)\s{0,9}(?:px)?")

_NOT_IN_NAMES = re.compile(r"[\s_*`-]+")

# Members that spell out a box: two opposite corners, or a corner (or the middle) and a size.
_CORNERS = tuple(
    tuple(names.split())
    for names in (
        "x1 y1 x2 y2",
        "x0 y0 x1 y1",
        "xmin ymin xmax ymax",
        "minx miny maxx maxy",
        "left top right bottom",
        "xleft ytop xright ybottom",
        "leftx topy rightx bottomy",
        "l t r b",
        "xstart ystart xend yend",
        "startx starty endx endy",
        "topleftx toplefty bottomrightx bottomrighty",
        "xtl ytl xbr ybr",
        "xtopleft ytopleft xbottomright ybottomright",
    )
)
_CORNER_AND_ENDS = tuple(
    tuple(names.split())
    for names in ("x y x2 y2", "x y right bottom", "x y xmax ymax", "x y xend yend")
)
_FIRST_CORNERS = tuple(
    tuple(names.split())
    for names in ("x y", "left top", "l t", "xmin ymin", "x1 y1", "x0 y0", "topleftx toplefty")
)
_MIDDLES = tuple(
    tuple(names.split())
    for names in ("cx cy", "xc yc", "centerx centery", "xcenter ycenter", "centrex centrey")
)
_DIAGONALS = tuple(
    tuple(names.split())
    for names in (
        "topleft bottomright", "upperleft lowerright", "lefttop rightbottom", "tl br", "lt rb",
        "ul lr", "leftup rightdown", "leftupper rightlower", "bottomleft topright",
        "lowerleft upperright", "bl tr", "lb rt", "start end", "begin end", "from to", "min max",
        "p1 p2", "pt1 pt2", "point1 point2", "corner1 corner2", "corner1 corner3", "x1y1 x2y2",
        "左上角 右下角", "左上 右下", "左下角 右上角",
    )
)  # fmt: skip
# A corner, or the middle, as one member: {"position": {"x", "y"}, "size": {"width", "height"}}.
_WITH_SIZE = (
    "topleft", "upperleft", "position", "origin", "location", "corner", "start", "coordinate",
    "coordinates", "bbox", "box",
)  # fmt: skip
_CENTRES = ("center", "centre", "middle")
_SIZES = (("width", "height"), ("w", "h"))
_SIZE_NAMES = ("size", "dimensions", "dimension", "extent")
_PART_OF_A_BOX = frozenset(
    ("w", "h", "width", "height", "x2", "y2", "xmax", "ymax", "right", "bottom", "r", "radius")
)
_SUFFIX = re.compile(r"(?:corner|coordinates?|coords?|point|position|坐标)$")
CORNER_NAMES = frozenset(name for names in _DIAGONALS for name in names)
"""Names of a box's corners, as ``plain`` gives them."""
AREAS = frozenset(
    ("polygon", "poly", "quad", "quadbox", "vertices", "corners", "contour", "segmentation")
)
"""Members whose pairs are corners of one shape."""
_SIDES_AS_SIZE = ("xywh", "bboxxywh", "boxxywh", "ltwh", "bboxltwh")


def number(text: str) -> float:
    """An int for whole numbers and a float for others: the difference tells fractions of a side
    from pixels. More digits than any picture needs give a float, perhaps infinite."""
    return float(text) if "." in text or len(text) > 15 else int(text)


def is_sane(value: float) -> bool:
    """Whether a picture could have such a coordinate; not so for NaN and infinities."""
    return abs(value) < _NO_PICTURE_IS_SO_LARGE


def numbers(text: str) -> tuple[float, ...]:
    """All numbers in ``text``, whatever stands between them."""
    return tuple(number(found) for found in find_numbers.findall(text))


def read(value: Any, corners: bool = False, key: str = "") -> list[Numbers]:
    """Boxes (4 numbers, or 5 with a score of 0-1) and points (2) in a member's value: one, a list,
    or a list of lists. ``key``: the member's name, as ``plain`` gives it.

    ``corners``: pairs in a list are corners of one box, else points. Eight numbers are the corners
    of a quadrilateral, whose upright box counts, if ``key`` says so; else two boxes, as sixteen
    are four.
    """
    flat = _flat(value)
    if flat is not None:
        return _from_flat(flat, key)
    if isinstance(value, dict):
        inner = next((value[name] for name in value if plain(name) in (*AREAS, "points")), None)
        if inner is not None and "box" in key:
            return read(inner, True, "points")
        spelled = spelled_out(value)
        return [spelled] if spelled else []
    if not isinstance(value, list):
        return []
    parts = [part for part in map(_flat_or_pair, value) if part and _is_place(part, key)]
    if (corners or key in AREAS) and len(parts) > 1 and all(len(part) == 2 for part in parts):
        return [enclosing(parts)]
    return [place for part in parts for place in _from_flat(part, key)]


def _from_flat(flat: Numbers, key: str) -> list[Numbers]:
    if key in AREAS and len(flat) >= 6 and len(flat) % 2 == 0:
        return [enclosing(list(zip(flat[0::2], flat[1::2], strict=True)))]
    if key in _SIDES_AS_SIZE and len(flat) == 4:
        return [(flat[0], flat[1], flat[0] + flat[2], flat[1] + flat[3])]
    if len(flat) > 5:
        return _boxes(flat)
    return [flat] if _is_place(flat, key) else []


def _boxes(flat: Numbers) -> list[Numbers]:
    """The boxes of a flat list of several; none where these cannot be boxes."""
    parts = [flat[start : start + 4] for start in range(0, len(flat), 4)]
    whole = all(len(part) == 4 and part[0] < part[2] and part[1] < part[3] for part in parts)
    return parts if whole else []


def _is_place(flat: Numbers, key: str) -> bool:
    if len(flat) > 5:
        return bool(_from_flat(flat, key))
    return len(flat) in (2, 4) or (len(flat) == 5 and 0 <= flat[4] <= 1)


def _flat_or_pair(value: Any) -> Numbers | None:
    return spelled_out(value) if isinstance(value, dict) else _flat(value)


def in_pairs(value: Any) -> Any:
    """A flat list ``[x1, y1, x2, y2, …]`` as a list of pairs; anything else as it is."""
    if not isinstance(value, list) or len(value) % 2 or any(as_number(v) is None for v in value):
        return value
    return [value[start : start + 2] for start in range(0, len(value), 2)]


def _flat(value: Any) -> Numbers | None:
    """The numbers of a flat list, or of a string such as "12, 30, 45, 60"; else None."""
    if isinstance(value, str):
        found = numbers(value) if _NUMBER_LIST.fullmatch(value) else ()
        return found if found and all(map(is_sane, found)) else None
    if not isinstance(value, list) or not value or len(value) > _MOST_NUMBERS:
        return None
    found = tuple(n for member in value if (n := as_number(member)) is not None)
    return found if len(found) == len(value) else None


def as_number(value: Any) -> float | None:
    """A number of a size that a picture can have, or one alone in a string; else None."""
    if isinstance(value, str) and (found := _ONE_NUMBER.fullmatch(value)):
        value = number(found[1])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if is_sane(value) else None


def spelled_out(value: Mapping[str, Any]) -> Numbers | None:
    """The place that members spell out, under any of the names above: two opposite corners, a
    corner or the middle with a size, the middle alone, or ``x`` and ``y`` alone. None where a part
    of a box is missing: a corner is no point."""
    if len(value) < 2 and not any(plain(key) in _CENTRES for key in value):
        return None
    by_name = {plain(key): member for key, member in value.items()}
    pairs = {
        short: pair
        for name in by_name
        if (pair := _pair(by_name[name])) is not None
        for short in (name, corner_name(name))
    }
    for first, second in _DIAGONALS:
        if first in pairs and second in pairs:
            return enclosing((pairs[first], pairs[second]))
    named = {
        name.removeprefix("bbox").removeprefix("box"): found
        for name in by_name
        if (found := as_number(by_name[name])) is not None
    }
    for names in (*_CORNERS, *_CORNER_AND_ENDS):
        if all(name in named for name in names):
            return tuple(named[name] for name in names)
    middle = _first_pair(_MIDDLES, named) or next((pairs[n] for n in _CENTRES if n in pairs), None)
    corner = _first_pair(_FIRST_CORNERS, named) or next(
        (pairs[name] for name in _WITH_SIZE if name in pairs), None
    )
    size = _first_pair(_SIZES, named) or next(
        (sides for name in _SIZE_NAMES if (sides := _size(by_name.get(name)))), None
    )
    if middle or (corner and size):
        return _sized(middle or corner or (), size, bool(middle))
    if "x" in named and "y" in named and not _PART_OF_A_BOX & named.keys():
        return named["x"], named["y"]
    return None


def _first_pair(names: Sequence[Sequence[str]], numbers: Mapping[str, float]) -> Numbers | None:
    found = (pair for pair in names if all(name in numbers for name in pair))
    return next((tuple(numbers[name] for name in pair) for pair in found), None)


def _pair(value: Any) -> Numbers | None:
    """A place of two numbers: a list, a string, or members ``x`` and ``y``."""
    if isinstance(value, dict):
        names = {plain(key): as_number(member) for key, member in value.items()}
        x, y = names.get("x"), names.get("y")
        return None if x is None or y is None or len(names) > 3 else (x, y)
    flat = _flat(value)
    return flat if flat is not None and len(flat) == 2 else None


def _size(value: Any) -> Numbers | None:
    if isinstance(value, dict):
        names = {plain(k): side for k in value if (side := as_number(value[k])) is not None}
        return _first_pair(_SIZES, names)
    return _pair(value)


def _sized(corner: Numbers, size: Numbers | None, is_middle: bool) -> Numbers:
    if size is None:
        return corner
    (x, y), (width, height) = corner, size
    if is_middle:
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return x, y, x + width, y + height


def in_order(box: Numbers, order: str) -> Numbers:
    """``box`` as x1, y1, x2, y2, where a reply says that its numbers are ``xywh`` or ``yxyx``."""
    first, second, third, fourth = box
    if order == "xywh":
        return first, second, first + third, second + fourth
    return second, first, fourth, third


def is_absent(place: Sequence[float]) -> bool:
    """Whether a place says "nowhere": a box of zeros, or -1 in every number."""
    return all(value == -1 for value in place) or (len(place) > 2 and not any(place))


def are_years(place: Sequence[float]) -> bool:
    """Whether four numbers read as years one after the other rather than as a box."""
    rising = all(first <= second for first, second in pairwise(place))
    return len(place) == 4 and rising and place[0] >= 1800 and place[3] <= 2100


def is_part(key: str, member: Any) -> bool:
    """Whether a member is a part of what ``spelled_out`` reads, and so no data beside it."""
    name = plain(key)
    return (
        as_number(member) is not None
        or corner_name(name) in CORNER_NAMES
        or name in (*_SIZE_NAMES, *_WITH_SIZE, *_CENTRES)
    )


def corner_name(name: str) -> str:
    """A corner's name without what it needs not: "top-left corner" is ``topleft``."""
    name = plain(name)
    return _SUFFIX.sub("", name) or name


def enclosing(places: Sequence[Numbers]) -> Numbers:
    """The upright box around places ``(x, y)``."""
    xs, ys = zip(*places, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


@lru_cache(maxsize=512)
def plain(key: str) -> str:
    """A member's name as names are compared: without case, "_", "-", blanks, and what follows in
    brackets (``Bounding Box (x1, y1, x2, y2)``)."""
    return _NOT_IN_NAMES.sub("", key.split("(")[0].split("[")[0].lower())
