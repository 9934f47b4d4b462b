"""From the values of JSON members to numbers of places: boxes of four, points of two."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import markup

Numbers = tuple[float, ...]

_NUMBER_LIST = re.compile(r"[\s\d.,;()\[\]<>+-]{3,200}")
_ONE_NUMBER = re.compile(r"\s{0,9}[-+]?\d{1,20}(?:\.\d{1,20})?\s{0,9}")

_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
DIAGONAL = ("topleft", "bottomright")


def read(value: Any, corners: bool = False) -> list[Numbers]:
    """Boxes (4 numbers, or 5 with a score of 0-1) and points (2) in a member's value: one, a list,
    or a list of lists.

    Eight numbers are the corners of a quadrilateral, whose upright box counts. ``corners``: pairs
    in a list are corners of one box, else points.
    """
    flat = _flat(value)
    if flat is not None:
        if len(flat) == 8:
            return [enclosing(list(zip(flat[0::2], flat[1::2], strict=True)))]
        return [flat] if _is_place(flat) else []
    if isinstance(value, dict):
        spelled = spelled_out(value)
        return [spelled] if spelled else []
    if not isinstance(value, list):
        return []
    parts = [part for part in map(_flat, value) if part and _is_place(part)]
    if corners and len(parts) > 1 and all(len(part) == 2 for part in parts):
        return [enclosing(parts)]
    return [place for part in parts for place in read(list(part))]


def _is_place(flat: Numbers) -> bool:
    return len(flat) in (2, 4, 8) or (len(flat) == 5 and 0 <= flat[4] <= 1)


def in_pairs(value: Any) -> Any:
    """A flat list ``[x1, y1, x2, y2, …]`` as a list of pairs; anything else as it is."""
    if not isinstance(value, list) or len(value) % 2 or any(as_number(v) is None for v in value):
        return value
    return [value[start : start + 2] for start in range(0, len(value), 2)]


def _flat(value: Any) -> Numbers | None:
    """The numbers of a flat list, or of a string such as "12, 30, 45, 60"; else None."""
    if isinstance(value, str):
        numbers = markup.numbers(value) if _NUMBER_LIST.fullmatch(value) else ()
        return numbers if numbers and all(map(markup.is_sane, numbers)) else None
    if not isinstance(value, list) or not value or len(value) > 8:
        return None
    numbers = tuple(number for member in value if (number := as_number(member)) is not None)
    return numbers if len(numbers) == len(value) else None


def as_number(value: Any) -> float | None:
    """A number of a size that a picture can have, or one alone in a string; else None."""
    if isinstance(value, str) and _ONE_NUMBER.fullmatch(value):
        value = markup.number(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if markup.is_sane(value) else None


def spelled_out(value: Mapping[str, Any]) -> Numbers | None:
    """The place in members ``x1, y1, x2, y2`` (or the like), ``x, y, width, height``, ``x, y``, or
    pairs ``top_left`` and ``bottom_right``."""
    ends = {plain(key): _flat(value[key]) or () for key in value if plain(key) in DIAGONAL}
    if [len(end) for end in ends.values()] == [2, 2]:
        return tuple(number for name in DIAGONAL for number in ends[name])
    by_name = {plain(key): number for key in value if (number := as_number(value[key])) is not None}
    for names in _CORNERS:
        if all(name in by_name for name in names):
            return tuple(by_name[name] for name in names)
    if "x" not in by_name or "y" not in by_name:
        return None
    x, y = by_name["x"], by_name["y"]
    if "width" in by_name and "height" in by_name:
        return x, y, x + by_name["width"], y + by_name["height"]
    return x, y


def enclosing(places: Sequence[Numbers]) -> Numbers:
    """The upright box around places ``(x, y)``."""
    xs, ys = zip(*places, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def plain(key: object) -> str:
    """A member's name as names are compared: without case, "_" and "-"."""
    return str(key).lower().replace("_", "").replace("-", "").strip()
