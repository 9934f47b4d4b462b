"""From JSON values to the things that they mark, under whatever names a model gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

from . import loose_json, markup
from .absence import says_none

Want = Literal["boxes", "points"]
Numbers = tuple[float, ...]

_NUMBER_LIST = re.compile(r"[\s\d.,;()\[\]<>+-]{3,200}")
_ONE_NUMBER = re.compile(r"\s{0,9}[-+]?\d{1,20}(?:\.\d{1,20})?\s{0,9}")

# Keys are compared without case, "_" and "-".
_COORDINATES = frozenset(
    (
        "bbox2d", "bbox", "bboxes", "bboxes2d", "box", "box2d", "boxes", "boundingbox",
        "boundingboxes", "boundingbox2d", "xyxy", "quad", "polygon", "startbox", "point2d",
        "point", "points", "points2d", "coordinate", "coordinates", "coords", "location",
        "position",
    )
)  # fmt: skip
_BOX_3D = frozenset(("bbox3d", "box3d", "boundingbox3d"))
# Names that say nothing of what is inside them.
_GENERIC = _COORDINATES | _BOX_3D | frozenset(
    (
        "object", "objects", "result", "results", "item", "items", "detections", "data",
        "arguments", "annotations", "instances", "output", "answer", "predictions",
    )
)  # fmt: skip
_LABELS = (
    "label", "name", "nameen", "category", "class", "object", "names", "en", "english", "title",
    "textcontent", "text", "content", "namezh", "zh", "sublabel", "description", "type",
)  # fmt: skip
_LABEL_LISTS = frozenset(("label", "labels", "name", "names", "category", "categories"))
_TEXTS = ("textcontent", "text", "content", "transcription", "linetext", "textline")
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("left", "top", "right", "bottom"),
)
# Deeper nesting than any reply that means something; bounds the recursion.
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Item:
    """One thing that a reply marks. ``box`` (x1, y1, x2, y2) and ``point`` (x, y) are finite
    numbers in the model's own space, whole ones as int. ``data``: the rest of what the reply says
    of it; a 3-D box stays there. An item may have neither box nor point (a 3-D box alone)."""

    box: Numbers | None = None
    point: Numbers | None = None
    label: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The words that the item holds, where it was read rather than named."""
        return _first(self.data, _TEXTS) or self.label


def from_objects(values: Sequence[loose_json.Value], want: Want) -> list[Item]:
    """What the objects in ``values`` mark.

    Numbers that are left of an object which was cut off mark nothing: nobody knows what they are.
    """
    items: list[Item] = []
    for found in values:
        is_named = found.key and _plain(found.key) not in _GENERIC and not _places(found.value)
        items += _walk({found.key: found.value} if is_named else found.value, want)
    return items


def from_bare_lists(values: Sequence[loose_json.Value], text: str) -> list[Item]:
    """What lists of numbers without any name mark. ``text``: where ``values`` were found."""
    return [
        item
        for found in values
        if found.key is None and isinstance(found.value, list) and (places := _places(found.value))
        for item in _items(places, markup.lead_in(text, found.start), {})
    ]


def are_empty(values: Sequence[loose_json.Value]) -> bool:
    """Whether there are values, and all of them say that nothing was found: ``[]``, null,
    ``{"objects": []}``, ``{"label": "cat", "bbox_2d": null}``."""
    return bool(values) and all(
        found.key is None and _says_nothing(found.value) for found in values
    )


def _walk(value: Any, want: Want, label: str = "", depth: int = 0) -> Iterator[Item]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for child in value:
            yield from _walk(child, want, label, depth + 1)
    elif isinstance(value, dict):
        yield from _read_object(value, want, label, depth)


def _read_object(value: Mapping[str, Any], want: Want, label: str, depth: int) -> Iterator[Item]:
    places: list[Numbers] = []
    data: dict[str, Any] = {}
    for key, member in value.items():
        found: list[Numbers] = []
        if _plain(key) in _COORDINATES:
            found = _places(member, corners=_holds_corners(_plain(key), want))
        if found:
            places += found
        else:
            data[key] = member
    if not places and (spelled := _spelled_out(value)):
        places = [spelled]
        data = {key: member for key, member in data.items() if _as_number(member) is None}
    own = _first(data, _LABELS) or label
    if places or any(_plain(key) in _BOX_3D for key in data):
        yield from _items(places, own or _any_string(data), data)
    by_name = not places and not own and all(_places(member) for member in value.values())
    for key, member in data.items():
        name = "" if _plain(key) in _GENERIC else str(key)
        if by_name:
            yield from _items(_places(member), name, {})
        else:
            yield from _walk(member, want, own or name, depth + 1)


def _items(places: Sequence[Numbers], label: str, data: Mapping[str, Any]) -> list[Item]:
    boxes = [place for place in places if len(place) == 4]
    points = [place for place in places if len(place) == 2]
    if not places:
        return [Item(label=label, data=data)]
    names = next((m for k, m in data.items() if _plain(k) in _LABEL_LISTS), None)
    if not isinstance(names, list) or len(names) != len(places):
        names = []
    return [
        Item(box, point, str(name or "").strip() or label, data)
        for box, point, name in zip_longest(boxes, points, names)
    ]


def _places(value: Any, corners: bool = False) -> list[Numbers]:
    """Boxes (4 numbers) and points (2) in a member's value: one, a list, or a list of lists.

    Eight numbers are the corners of a quadrilateral, whose upright box counts. ``corners``: pairs
    in a list are corners of one box, else points.
    """
    flat = _flat(value)
    if flat is not None:
        if len(flat) == 8:
            return [enclosing(list(zip(flat[0::2], flat[1::2], strict=True)))]
        return [flat] if len(flat) in (2, 4) else []
    if isinstance(value, dict):
        spelled = _spelled_out(value)
        return [spelled] if spelled else []
    if not isinstance(value, list):
        return []
    parts = [part for part in map(_flat, value) if part and len(part) in (2, 4, 8)]
    if corners and len(parts) > 1 and all(len(part) == 2 for part in parts):
        return [enclosing(parts)]
    return [place for part in parts for place in _places(list(part))]


def _flat(value: Any) -> Numbers | None:
    """The numbers of a flat list, or of a string such as "12, 30, 45, 60"; else None."""
    if isinstance(value, str):
        numbers = markup.numbers(value) if _NUMBER_LIST.fullmatch(value) else ()
        return numbers if numbers and all(map(markup.is_sane, numbers)) else None
    if not isinstance(value, list) or not value or len(value) > 8:
        return None
    numbers = tuple(number for member in value if (number := _as_number(member)) is not None)
    return numbers if len(numbers) == len(value) else None


def _as_number(value: Any) -> float | None:
    if isinstance(value, str) and _ONE_NUMBER.fullmatch(value):
        value = markup.number(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if markup.is_sane(value) else None


def _spelled_out(value: Mapping[str, Any]) -> Numbers | None:
    """The place in members ``x1, y1, x2, y2`` (or the like), ``x, y, width, height``, ``x, y``."""
    by_name = {
        _plain(key): number for key in value if (number := _as_number(value[key])) is not None
    }
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


def _holds_corners(key: str, want: Want) -> bool:
    return "point" not in key and (want == "boxes" or "box" in key)


def _plain(key: object) -> str:
    return str(key).lower().replace("_", "").replace("-", "").strip()


def _first(data: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of the named members that says something; English before other languages."""
    members = {_plain(key): member for key, member in data.items()}
    for name in names:
        member = members.get(name)
        if isinstance(member, dict):
            member = _first(member, _LABELS)
        if (
            isinstance(member, str | int | float)
            and not isinstance(member, bool)
            and str(member).strip()
        ):
            return str(member).strip()
    return ""


def _any_string(data: Mapping[str, Any]) -> str:
    return next((member.strip() for member in data.values() if isinstance(member, str)), "")


def _says_nothing(value: Any) -> bool:
    if isinstance(value, dict):
        named = [member for key, member in value.items() if _plain(key) in _COORDINATES]
        return all(map(_says_nothing, named or value.values()))
    if isinstance(value, list):
        return all(map(_says_nothing, value))
    return not value or (isinstance(value, str) and says_none(value))
