"""From JSON values to the things that they mark, under whatever names a model gives them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

from . import bbox, loose_json, markup, prose, tags
from .absence import says_none
from .bbox import MOST_PLACES, Numbers, plain

Want = Literal["boxes", "points", "lines"]

# Keys are compared without case, "_" and "-".
_COORDINATES = frozenset(
    (
        "bbox2d", "bbox", "bboxes", "bboxes2d", "box", "box2d", "boxes", "boundingbox",
        "boundingboxes", "boundingbox2d", "xyxy", "quad", "polygon", "startbox", "point2d",
        "point", "points", "points2d", "coordinate", "coordinates", "coords", "location",
        "position", "region", "rect", "rectangle", "xywh", "bboxxywh", "boxxywh", "ltwh",
        "bboxltwh", "bboxxyxy", "boxxyxy", "boundingpoly", "bounds", "roi", "x1y1x2y2",
        "bboxcoordinates", "bboxcoords", "boxcoordinates", "boundingboxcoordinates", "坐标",
        "边界框", "位置",
    )
) | bbox.AREAS  # fmt: skip
_BOX_3D = frozenset(("bbox3d", "box3d", "boundingbox3d"))
# Names that say nothing of what is inside them.
_GENERIC = _COORDINATES | _BOX_3D | frozenset(
    (
        "object", "objects", "action", "result", "results", "item", "items", "detections", "data",
        "arguments", "annotations", "instances", "output", "answer", "predictions",
    )
)  # fmt: skip
_LABELS = (
    "label", "name", "nameen", "category", "class", "object", "names", "classname", "categoryname",
    "objectname", "labelname", "entity", "phrase", "ref", "en", "english", "title", "caption",
    "textcontent", "text", "content", "namezh", "zh", "sublabel", "description", "desc", "名称",
    "类别", "标签", "文字", "type",
)  # fmt: skip
# Of these, a number is an id as often as a name: {"label": 3, "class_name": "cat"} ...
_MAYBE_IDS = frozenset(("label", "name", "category", "class", "object"))
# ... and gives way to one of these,
_NAMES = frozenset(
    ("classname", "categoryname", "objectname", "labelname", "entity", "phrase", "ref", "caption")
) | _MAYBE_IDS  # fmt: skip
_ID = re.compile(
    r"(?:(?:id|obj|object|item|box|class|no\.?|number)?[\s_#-]*\d+|(?=[a-f-]*\d)[0-9a-f-]{12,})",
    re.I,
)
# Names of numbers that are no place, whatever a list of them looks like.
_NO_PLACES = frozenset(
    ("scores", "score", "values", "color", "colour", "colors", "rgb", "rgba", "size", "sizes",
     "imagesize", "resolution", "shape", "ids", "version", "years", "counts", "probabilities")
)  # fmt: skip
_ID_KEYS = frozenset(
    ("id", "uid", "uuid", "index", "idx", "objectid", "instanceid", "trackid", "classid", "labelid",
     "categoryid", "format", "color", "colour", "confidence", "score")
)  # fmt: skip
_LABEL_LISTS = frozenset(("label", "labels", "name", "names", "category", "categories"))
_TEXTS = ("textcontent", "text", "content", "transcription", "linetext", "textline")
_DIGIT = re.compile(r"\d")
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
        alone = found.key and bbox.read(found.value) and not _is_list_of_lists(found.value)
        is_named = name and not alone
        items += _walk({name: found.value} if is_named else found.value, want)
    return items


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def is_broken(item: Item) -> bool:
    """Whether something under a name of coordinates holds numbers that are no place."""
    return not (item.box or item.point) and any(
        plain(key) in _COORDINATES
        and not _says_nothing(member)
        and _DIGIT.search(str(member)[:400])
        for key, member in item.data.items()
    )


def is_named(item: Item) -> bool:
    """Whether the object that an item was read from says in so many words what it is."""
    return any(plain(key) in (*_LABELS, *_TEXTS) for key in item.data)


def from_bare_lists(values: Sequence[loose_json.Value], text: str, want: Want) -> list[Item]:
    """What lists of numbers without any name mark. ``text``: where ``values`` were found.

    Pairs that are left of a cut list of a box's corners mark nothing; nor do numbers that a
    sentence tells of something else ("founded in [1990, 1991]").
    """
    items: list[Item] = []
    for found in values[:MOST_PLACES]:
        if found.key is None and isinstance(found.value, list):
            marked = bbox.read(found.value, corners=want != "points")
            if found.within and _holds_corners(plain(found.within), want):
                marked = [place for place in marked if len(place) > 2]
            if marked and not prose.is_talk(text, found.start, marked[0]):
                items += _items(marked, tags.name_before(text, found.start), {})
    return items


def from_tables(text: str) -> list[Item]:
    """What the rows of Markdown and HTML tables mark."""
    return [item for row in markup.table_rows(text) for item in _read_row(row)]


def _read_row(row: Mapping[str, str]) -> Iterator[Item]:
    named = any(plain(key) in _COORDINATES for key in row) or bbox.spelled_out(row)
    place = next((key for key in row if not named and bbox.read(row[key])), None)
    members = {"bbox" if key == place else key: cell for key, cell in row.items()}
    if named or place is not None:
        yield from _read_object(members, "boxes", "", 0)


def from_assignments(text: str) -> list[Item]:
    """What is spelled out in words: ``x=5, y=6``, ``Top-left: (1, 2), bottom-right: (3, 4)``."""
    return [
        item
        for label, members, is_cut in prose.assignments(text)
        if (place := bbox.spelled_out(members)) and not (is_cut and len(place) == 2)
        for item in _items([place], label, {})
    ]


def wrapped(values: Sequence[loose_json.Value]) -> str:
    """The answer that an object only wraps, as ``{"answer": "…"}`` does; "" if there is none."""
    texts = [
        member
        for found in values
        if isinstance(found.value, dict)
        for key, member in found.value.items()
        if plain(key) in _GENERIC and isinstance(member, str)
    ]
    return texts[0] if len(texts) == 1 else ""


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
    own = _label(data) or label
    if marked or any(plain(key) in _BOX_3D for key in data):
        yield from _items(marked, own or _any_string(data), data)
    elif not own and _is_by_name(value):
        for key, member in value.items():
            if plain(key) not in _NO_PLACES and (found := bbox.read(member)):
                yield from _items(found, _name(key), {})
        return
    inner = [
        item
        for key, member in data.items()
        if bbox.corner_name(key) not in bbox.CORNER_NAMES
        for item in _walk(member, want, own or _name(key), depth + 1)
    ]
    item = Item(label=own or _any_string(data), data=data)
    if not marked and not inner and is_broken(item):
        yield item
    elif want == "lines" and not marked and not inner and _first(data, (*_TEXTS, "label")):
        yield Item(label=own, data=data)
    yield from inner


def _own_places(value: Mapping[str, Any], want: Want) -> tuple[list[Numbers], dict[str, Any]]:
    """The places that an object's own members hold, and the other members."""
    marked: list[Numbers] = []
    data: dict[str, Any] = {}
    for key, member in value.items():
        name = plain(key)
        found: list[Numbers] = []
        if name in _COORDINATES:
            if want == "points" and name in _PAIRS:
                member = bbox.in_pairs(member)
            found = bbox.read(member, _holds_corners(name, want), name)
        if found:
            marked += found
        else:
            data[key] = member
    # A corner beside a size, or beside the opposite corner, is no point.
    if not any(len(place) > 2 for place in marked):
        spelled = bbox.spelled_out(value)
        if spelled and (not marked or len(spelled) > 2):
            return [spelled], {
                key: member for key, member in value.items() if not bbox.is_part(key, member)
            }
    return marked, data


def _is_by_name(value: Mapping[str, Any]) -> bool:
    """Whether members are named for what is found: ``{"cat": [[…]], "dog": [], "count": 1}``."""
    if any(bbox.are_years(place) for member in value.values() for place in bbox.read(member)):
        return False
    return any(map(bbox.read, value.values())) and all(
        not isinstance(member, list | dict) or bbox.read(member) or _says_nothing(member)
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
            _said(name) or label,
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
    here = filter(members.__contains__, names)
    return next((said for name in here if (said := _said(members[name]))), "")


def _label(data: Mapping[str, Any]) -> str:
    """What an object calls itself: the first of ``_LABELS`` that says something, but an id only
    where no other member names it."""
    members = {plain(key): member for key, member in data.items()}
    number, is_text = "", False
    for name in filter(members.__contains__, _LABELS):
        said = _said(members[name])
        if not said:
            continue
        if name in _MAYBE_IDS and _ID.fullmatch(said):
            if not number:
                number, is_text = said, isinstance(members[name], str) and said.isdigit()
        # A number in quotes may be what was read: it gives way to names only.
        elif not (number and is_text and name not in _NAMES):
            return said
    return number


def _said(member: Any, depth: int = 0) -> str:
    """The words of a member; of an object in it, its label; of a list of words, all."""
    if depth > _MAX_DEPTH or isinstance(member, bool):
        return ""
    if isinstance(member, str | int | float):
        return str(member).strip()
    if isinstance(member, dict):
        members = {plain(key): inner for key, inner in member.items()}
        said = (_said(members.get(name), depth + 1) for name in _LABELS)
        return next(filter(None, said), "")
    if isinstance(member, list):
        return ", ".join(filter(None, (_said(word, depth + 1) for word in member[:20])))
    return ""


def _any_string(data: Mapping[str, Any]) -> str:
    strings = (
        member.strip()
        for key, member in data.items()
        if isinstance(member, str) and plain(key) not in _ID_KEYS
    )
    return next((said for said in strings if said and not _ID.fullmatch(said)), "")


def _says_nothing(value: Any, depth: int = 0) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if isinstance(value, dict):
        named = [member for key, member in value.items() if plain(key) in _COORDINATES]
        return all(_says_nothing(member, depth + 1) for member in named or value.values())
    if isinstance(value, list):
        return all(_says_nothing(member, depth + 1) for member in value)
    return not value or (isinstance(value, str) and says_none(value))
