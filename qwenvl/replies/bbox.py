"""Bounding boxes and points from the values of JSON members, under all the keys that models use.

A box is four numbers, a point two, in the model's own coordinate space.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

Coordinates = tuple[float, ...]

NUMBER = r"[-+]?\d+(?:\.\d+)?"
"""Regular expression of a number in a reply."""
MAX_ITEMS = 5_000
"""Most boxes and points that are read of one reply: no picture holds more."""
NUMBERS = re.compile(NUMBER)
_MAX_COORDINATE = 10**9

_NUMBER_LIST = re.compile(r"[\s\d.,;()\[\]<>+-]{3,200}")
# Longer flat lists of numbers are no coordinates.
_MAX_LIST_LENGTH = 400
_ONE_NUMBER = re.compile(r"\s{0,9}([-+]?\d{1,20}(?:\.\d{1,20})?)\s{0,9}(?:px)?")

_IGNORED_IN_KEYS = re.compile(r"[\s_*`-]+")

# Keys of numbers that make up a box: two opposite corners, or a corner (or the centre) and a size.
_CORNER_NUMBERS = tuple(
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
_CORNER_AND_END_NUMBERS = tuple(
    tuple(names.split())
    for names in ("x y x2 y2", "x y right bottom", "x y xmax ymax", "x y xend yend")
)
_FIRST_CORNER_NUMBERS = tuple(
    tuple(names.split())
    for names in ("x y", "left top", "l t", "xmin ymin", "x1 y1", "x0 y0", "topleftx toplefty")
)
_CENTRE_KEYS = tuple(
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
# A corner, or the centre, as one member: {"position": {"x", "y"}, "size": {"width", "height"}}.
_CORNER_POINT_KEYS = (
    "topleft", "upperleft", "position", "origin", "location", "corner", "start", "coordinate",
    "coordinates", "bbox", "box",
)  # fmt: skip
_CENTRE_POINT_KEYS = ("center", "centre", "middle")
_SIZE_KEYS = (("width", "height"), ("w", "h"))
_SIZE_PAIR_KEYS = ("size", "dimensions", "dimension", "extent")
_BOX_ONLY_KEYS = frozenset(
    ("w", "h", "width", "height", "x2", "y2", "xmax", "ymax", "right", "bottom", "r", "radius")
)
_NUMBER_KEYS = frozenset(
    name
    for group in (_CORNER_NUMBERS, _CORNER_AND_END_NUMBERS, _CENTRE_KEYS, _SIZE_KEYS)
    for names in group
    for name in names
)
_SUFFIX = re.compile(r"(?:corner|coordinates?|coords?|point|position|坐标)$")
CORNER_KEYS = frozenset(name for names in _DIAGONALS for name in names)
"""Normalised keys of a box's corners."""
POLYGON_KEYS = frozenset(
    ("polygon", "poly", "quad", "quadbox", "vertices", "corners", "contour", "segmentation")
)
"""Normalised keys whose pairs are the corners of one polygon."""
_XYWH_KEYS = ("xywh", "bboxxywh", "boxxywh", "ltwh", "bboxltwh")


def is_number_key(key: str) -> bool:
    """Whether a number under ``key`` may be one of those that make up a box or a point."""
    return normalised(key) in _NUMBER_KEYS


def parse_number(text: str) -> float:
    """An int for a whole number, else a float: the difference tells fractions of a side from
    pixels. More digits than any picture needs give a float, perhaps infinite."""
    return float(text) if "." in text or len(text) > 15 else int(text)


def is_plausible(value: float) -> bool:
    """Whether a picture could have such a coordinate; false for NaN and infinities."""
    return abs(value) < _MAX_COORDINATE


def parse_numbers(text: str) -> tuple[float, ...]:
    """All numbers in ``text``, whatever separates them."""
    return tuple(parse_number(found) for found in NUMBERS.findall(text))


def parse(value: Any, corners: bool = False, key: str = "") -> list[Coordinates]:
    """Boxes (4 numbers, or 5 with a score of 0-1) and points (2) in a member's value: one, a list,
    or a list of lists. ``key``: the member's normalised key.

    ``corners``: pairs in a list are the corners of one box, else points. Eight numbers are the
    corners of a quadrilateral, which becomes its bounding box, if ``key`` says so; else they are
    two boxes, as sixteen are four.
    """
    flat = _flat_numbers(value)
    if flat is not None:
        return _split_flat(flat, key)
    if isinstance(value, dict):
        inner = next(
            (value[name] for name in value if normalised(name) in (*POLYGON_KEYS, "points")), None
        )
        if inner is not None and "box" in key:
            return parse(inner, True, "points")
        named = from_members(value)
        return [named] if named else []
    if not isinstance(value, list):
        return []
    parts = [part for part in map(_coordinates_of, value) if part and _are_coordinates(part, key)]
    if (
        (corners or key in POLYGON_KEYS)
        and len(parts) > 1
        and all(len(part) == 2 for part in parts)
    ):
        return [bounding_box(parts)]
    return [values for part in parts for values in _split_flat(part, key)]


def _split_flat(flat: Coordinates, key: str) -> list[Coordinates]:
    if key in POLYGON_KEYS and len(flat) >= 6 and len(flat) % 2 == 0:
        return [bounding_box(list(zip(flat[0::2], flat[1::2], strict=True)))]
    if key in _XYWH_KEYS and len(flat) == 4:
        return [(flat[0], flat[1], flat[0] + flat[2], flat[1] + flat[3])]
    if len(flat) > 5:
        return _split_boxes(flat)
    return [flat] if _are_coordinates(flat, key) else []


def _split_boxes(flat: Coordinates) -> list[Coordinates]:
    """The boxes in a flat list of several; none if its numbers cannot be boxes."""
    parts = [flat[start : start + 4] for start in range(0, len(flat), 4)]
    whole = all(len(part) == 4 and part[0] < part[2] and part[1] < part[3] for part in parts)
    return parts if whole else []


def _are_coordinates(flat: Coordinates, key: str) -> bool:
    if len(flat) > 5:
        return bool(_split_flat(flat, key))
    return len(flat) in (2, 4) or (len(flat) == 5 and 0 <= flat[4] <= 1)


def _coordinates_of(value: Any) -> Coordinates | None:
    return from_members(value) if isinstance(value, dict) else _flat_numbers(value)


def as_pairs(value: Any) -> Any:
    """A flat list ``[x1, y1, x2, y2, …]`` as a list of pairs; anything else unchanged."""
    if not isinstance(value, list) or len(value) % 2 or any(as_number(v) is None for v in value):
        return value
    return [value[start : start + 2] for start in range(0, len(value), 2)]


def _flat_numbers(value: Any) -> Coordinates | None:
    """The numbers of a flat list, or of a string such as "12, 30, 45, 60"; else None."""
    if isinstance(value, str):
        found = parse_numbers(value) if _NUMBER_LIST.fullmatch(value) else ()
        return found if found and all(map(is_plausible, found)) else None
    if not isinstance(value, list) or not value or len(value) > _MAX_LIST_LENGTH:
        return None
    found = tuple(n for member in value if (n := as_number(member)) is not None)
    return found if len(found) == len(value) else None


def as_number(value: Any) -> float | None:
    """A plausible coordinate, also as a string; else None."""
    if isinstance(value, str) and (found := _ONE_NUMBER.fullmatch(value)):
        value = parse_number(found[1])
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if is_plausible(value) else None


def from_members(value: Mapping[str, Any]) -> Coordinates | None:
    """The box or point in an object's members, under any of the keys above: two opposite corners, a
    corner or the centre with a size, the centre alone, or ``x`` and ``y`` alone. None if a part of
    a box is missing: a corner is no point."""
    if len(value) < 2 and not any(normalised(key) in _CENTRE_POINT_KEYS for key in value):
        return None
    by_name = {normalised(key): member for key, member in value.items()}
    pairs = {
        short: pair
        for name in by_name
        if (pair := _xy_pair(by_name[name])) is not None
        for short in (name, corner_key(name))
    }
    for first, second in _DIAGONALS:
        if first in pairs and second in pairs:
            return bounding_box((pairs[first], pairs[second]))
    named = {
        name.removeprefix("bbox").removeprefix("box"): found
        for name in by_name
        if (found := as_number(by_name[name])) is not None
    }
    for names in (*_CORNER_NUMBERS, *_CORNER_AND_END_NUMBERS):
        if all(name in named for name in names):
            return tuple(named[name] for name in names)
    centre = _first_pair(_CENTRE_KEYS, named) or next(
        (pairs[n] for n in _CENTRE_POINT_KEYS if n in pairs), None
    )
    corner = _first_pair(_FIRST_CORNER_NUMBERS, named) or next(
        (pairs[name] for name in _CORNER_POINT_KEYS if name in pairs), None
    )
    size = _first_pair(_SIZE_KEYS, named) or next(
        (sides for name in _SIZE_PAIR_KEYS if (sides := _width_height(by_name.get(name)))), None
    )
    if centre or (corner and size):
        return _with_size(centre or corner or (), size, bool(centre))
    if "x" in named and "y" in named and not _BOX_ONLY_KEYS & named.keys():
        return named["x"], named["y"]
    return None


def _first_pair(names: Sequence[Sequence[str]], values: Mapping[str, float]) -> Coordinates | None:
    found = (pair for pair in names if all(name in values for name in pair))
    return next((tuple(values[name] for name in pair) for pair in found), None)


def _xy_pair(value: Any) -> Coordinates | None:
    """A point: a list or string of two numbers, or members ``x`` and ``y``."""
    if isinstance(value, dict):
        names = {normalised(key): as_number(member) for key, member in value.items()}
        x, y = names.get("x"), names.get("y")
        return None if x is None or y is None or len(names) > 3 else (x, y)
    flat = _flat_numbers(value)
    return flat if flat is not None and len(flat) == 2 else None


def _width_height(value: Any) -> Coordinates | None:
    if isinstance(value, dict):
        names = {normalised(k): side for k in value if (side := as_number(value[k])) is not None}
        return _first_pair(_SIZE_KEYS, names)
    return _xy_pair(value)


def _with_size(corner: Coordinates, size: Coordinates | None, is_centre: bool) -> Coordinates:
    if size is None:
        return corner
    (x, y), (width, height) = corner, size
    if is_centre:
        return x - width / 2, y - height / 2, x + width / 2, y + height / 2
    return x, y, x + width, y + height


def to_xyxy(box: Coordinates, order: str) -> Coordinates:
    """``box`` as x1, y1, x2, y2, from the ``order`` ``xywh`` or ``yxyx``."""
    first, second, third, fourth = box
    if order == "xywh":
        return first, second, first + third, second + fourth
    return second, first, fourth, third


def is_null(values: Sequence[float]) -> bool:
    """Whether coordinates are a placeholder for none: a box of zeros, or -1 everywhere."""
    return all(value == -1 for value in values) or (len(values) > 2 and not any(values))


def are_like_years(values: Sequence[float]) -> bool:
    """Whether four numbers look like consecutive years rather than a box."""
    rising = all(first <= second for first, second in pairwise(values))
    return len(values) == 4 and rising and values[0] >= 1800 and values[3] <= 2100


def is_coordinate_member(key: str, member: Any) -> bool:
    """Whether ``from_members`` reads this member as a part of the coordinates."""
    name = normalised(key)
    return (
        as_number(member) is not None
        or corner_key(name) in CORNER_KEYS
        or name in (*_SIZE_PAIR_KEYS, *_CORNER_POINT_KEYS, *_CENTRE_POINT_KEYS)
    )


def corner_key(name: str) -> str:
    """A corner's name, normalised and without suffixes: "top-left corner" is ``topleft``."""
    name = normalised(name)
    return _SUFFIX.sub("", name) or name


def bounding_box(points: Sequence[Coordinates]) -> Coordinates:
    """The axis-aligned box around points ``(x, y)``."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


@lru_cache(maxsize=512)
def normalised(key: str) -> str:
    """A key for comparison: in lower case, without "_", "-", blanks, and anything in brackets after
    it (``Bounding Box (x1, y1, x2, y2)``)."""
    return _IGNORED_IN_KEYS.sub("", key.split("(")[0].split("[")[0].lower())
