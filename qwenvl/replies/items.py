"""From JSON values to the things that they mark, under whatever names a model gives them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

from . import loose_json, markup, places
from .absence import says_none
from .places import Numbers, plain

Want = Literal["boxes", "points", "lines"]

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
_PAIRS = frozenset(("points", "points2d"))
# Deeper nesting than any reply that means something; bounds the recursion.
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Item:
    """One thing that a reply marks. ``box`` (x1, y1, x2, y2) and ``point`` (x, y) are finite
    numbers in the model's own space, whole ones as int. ``data``: the rest of what the reply says
    of it; a 3-D box stays there. An item may have neither box nor point: a 3-D box alone, or the
    words of a line whose box is missing."""

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

    Numbers that are left of an object which was cut off mark nothing, for nobody knows what they
    are; but lists of them under a name (``{"cat": [[1, 2, 3, 4]], "dog": [[5``) do.
    """
    items: list[Item] = []
    for found in values:
        name = _name(found.key or found.within)
        alone = found.key and places.read(found.value) and not _is_list_of_lists(found.value)
        is_named = name and not alone
        items += _walk({name: found.value} if is_named else found.value, want)
    return items


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def from_bare_lists(values: Sequence[loose_json.Value], text: str, want: Want) -> list[Item]:
    """What lists of numbers without any name mark. ``text``: where ``values`` were found.

    Pairs that are left of a cut list of a box's corners mark nothing.
    """
    items: list[Item] = []
    for found in values:
        if found.key is None and isinstance(found.value, list):
            marked = places.read(found.value)
            if found.within and _holds_corners(plain(found.within), want):
                marked = [place for place in marked if len(place) > 2]
            items += _items(marked, markup.lead_in(text, found.start), {}) if marked else []
    return items


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
    marked, data = _own_places(value, want)
    own = _first(data, _LABELS) or label
    if marked or any(plain(key) in _BOX_3D for key in data):
        yield from _items(marked, own or _any_string(data), data)
    elif not own and _is_by_name(value):
        for key, member in value.items():
            if found := places.read(member):
                yield from _items(found, _name(key), {})
        return
    inner = [
        item
        for key, member in data.items()
        for item in _walk(member, want, own or _name(key), depth + 1)
    ]
    if want == "lines" and not marked and not inner and _first(data, (*_TEXTS, "label")):
        yield Item(label=own, data=data)
    yield from inner


def _own_places(value: Mapping[str, Any], want: Want) -> tuple[list[Numbers], dict[str, Any]]:
    """The places that an object's own members hold, and the other members."""
    marked: list[Numbers] = []
    data: dict[str, Any] = {}
    for key, member in value.items():
        found: list[Numbers] = []
        if plain(key) in _COORDINATES:
            if want == "points" and plain(key) in _PAIRS:
                member = places.in_pairs(member)
            found = places.read(member, corners=_holds_corners(plain(key), want))
        if found:
            marked += found
        else:
            data[key] = member
    if not marked and (spelled := places.spelled_out(value)):
        marked = [spelled]
        data = {
            key: member
            for key, member in data.items()
            if places.as_number(member) is None and plain(key) not in places.DIAGONAL
        }
    return marked, data


def _is_by_name(value: Mapping[str, Any]) -> bool:
    """Whether members are named for what is found: ``{"cat": [[…]], "dog": [], "count": 1}``."""
    return any(map(places.read, value.values())) and all(
        not isinstance(member, list | dict) or places.read(member) or _says_nothing(member)
        for member in value.values()
    )


def _items(marked: Sequence[Numbers], label: str, data: Mapping[str, Any]) -> list[Item]:
    boxes = [place for place in marked if len(place) > 2]
    points = [place for place in marked if len(place) == 2]
    if not marked:
        return [Item(label=label, data=data)]
    names = next((m for k, m in data.items() if plain(k) in _LABEL_LISTS), None)
    if not isinstance(names, list) or len(names) != len(marked):
        names = []
    return [
        Item(
            box and box[:4],
            point,
            str(name or "").strip() or label,
            {"score": box[4], **data} if box and len(box) == 5 else data,
        )
        for box, point, name in zip_longest(boxes, points, names)
    ]


def _holds_corners(key: str, want: Want) -> bool:
    return "point" not in key and (want != "points" or "box" in key)


def _name(key: str | None) -> str:
    """``key`` where it names what is under it, else ""."""
    return "" if not key or plain(key) in _GENERIC else str(key)


def _first(data: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of the named members that says something; English before other languages."""
    members = {plain(key): member for key, member in data.items()}
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


def _says_nothing(value: Any, depth: int = 0) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if isinstance(value, dict):
        named = [member for key, member in value.items() if plain(key) in _COORDINATES]
        return all(_says_nothing(member, depth + 1) for member in named or value.values())
    if isinstance(value, list):
        return all(_says_nothing(member, depth + 1) for member in value)
    return not value or (isinstance(value, str) and says_none(value))
