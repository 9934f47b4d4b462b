"""Labelled items from JSON values, tables and named numbers, under whatever keys a model uses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Literal

from . import bbox, loose_json, markup, prose, tags
from .absence import says_none
from .bbox import MAX_ITEMS, Coordinates, normalised

Expected = Literal["boxes", "points", "lines", "boxes_3d"]

# Keys are compared without case, "_" and "-".
_COORDINATE_KEYS = frozenset(
    (
        "bbox2d", "bbox", "bboxes", "bboxes2d", "box", "box2d", "boxes", "boundingbox",
        "boundingboxes", "boundingbox2d", "xyxy", "quad", "polygon", "startbox", "point2d",
        "point", "points", "points2d", "coordinate", "coordinates", "coords", "location",
        "position", "region", "rect", "rectangle", "xywh", "bboxxywh", "boxxywh", "ltwh",
        "bboxltwh", "bboxxyxy", "boxxyxy", "boundingpoly", "bounds", "roi", "x1y1x2y2",
        "bboxcoordinates", "bboxcoords", "boxcoordinates", "boundingboxcoordinates", "坐标",
        "边界框", "位置",
    )
) | bbox.POLYGON_KEYS  # fmt: skip
_MAX_METRES = 1e6
_BOX_3D_KEYS = frozenset(("bbox3d", "box3d", "boundingbox3d"))
# Keys that do not name what is inside them.
_GENERIC_KEYS = _COORDINATE_KEYS | _BOX_3D_KEYS | frozenset(
    (
        "object", "objects", "action", "result", "results", "item", "items", "detections", "data",
        "arguments", "annotations", "instances", "output", "answer", "predictions",
    )
)  # fmt: skip
_LABEL_KEYS = (
    "label", "name", "nameen", "category", "class", "object", "names", "classname", "categoryname",
    "objectname", "labelname", "entity", "phrase", "ref", "en", "english", "title", "caption",
    "textcontent", "text", "content", "namezh", "zh", "sublabel", "description", "desc", "名称",
    "类别", "标签", "文字", "type",
)  # fmt: skip
# Under these, a number is an ID as often as a label: {"label": 3, "class_name": "cat"} ...
_LABEL_OR_ID_KEYS = frozenset(("label", "name", "category", "class", "object"))
# ... and gives way to one of these,
_LABEL_ONLY_KEYS = frozenset(
    ("classname", "categoryname", "objectname", "labelname", "entity", "phrase", "ref", "caption")
) | _LABEL_OR_ID_KEYS  # fmt: skip
_ID = re.compile(
    r"(?:(?:id|obj|object|item|box|class|no\.?|number)?[\s_#-]*\d+|(?=[a-f-]*\d)[0-9a-f-]{12,})",
    re.I,
)
# Keys of numbers that are no coordinates, whatever a list of them looks like.
_OTHER_NUMBER_KEYS = frozenset(
    ("scores", "score", "values", "color", "colour", "colors", "rgb", "rgba", "size", "sizes",
     "imagesize", "resolution", "shape", "ids", "version", "years", "counts", "probabilities")
)  # fmt: skip
_ID_KEYS = frozenset(
    ("id", "uid", "uuid", "index", "idx", "objectid", "instanceid", "trackid", "classid", "labelid",
     "categoryid", "format", "color", "colour", "confidence", "score")
)  # fmt: skip
_LABEL_LIST_KEYS = frozenset(("label", "labels", "name", "names", "category", "categories"))
_TEXT_KEYS = ("textcontent", "text", "content", "transcription", "linetext", "textline")
_DIGIT = re.compile(r"\d")
_POINT_LIST_KEYS = frozenset(("points", "points2d"))
# Deeper nesting than in any meaningful reply; bounds the recursion.
_MAX_DEPTH = 8


@dataclass(frozen=True)
class Item:
    """One labelled box or point of a reply. ``box`` (x1, y1, x2, y2) and ``point`` (x, y) are
    finite numbers in the model's own space, whole ones as int. ``data``: the other members of its
    object; a 3-D box stays there. An item may have neither box nor point: a 3-D box alone, or the
    text of a line whose box is missing."""

    box: Coordinates | None = None
    point: Coordinates | None = None
    label: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def box_3d(self) -> Coordinates | None:
        """The nine numbers of a 3-D box, as they were written; None without one."""
        for key, member in self.data.items():
            if is_box_3d_key(key) and isinstance(member, list) and len(member) == 9:
                is_number = all(isinstance(v, int | float) and v == v for v in member)
                if is_number and all(abs(v) < _MAX_METRES for v in member):
                    return tuple(member)
        return None

    @property
    def other_data(self) -> dict[str, Any]:
        """``data`` without the 3-D box."""
        return {k: member for k, member in self.data.items() if not is_box_3d_key(k)}

    @property
    def text(self) -> str:
        """The text that was read there, or else the label."""
        return _first_text(self.data, _TEXT_KEYS) or self.label


def is_box_3d_key(key: str) -> bool:
    return normalised(key) in _BOX_3D_KEYS


def from_objects(values: Sequence[loose_json.Value], expected: Expected) -> list[Item]:
    """Items of the objects in ``values``.

    Numbers left over from an object that was cut off are no items, for it is unknown what they
    are; but lists of lists under a key (``{"cat": [[1, 2, 3, 4]], "dog": [[5``) are.
    """
    items: list[Item] = []
    for found in values:
        label = _label_of_key(found.key or found.within)
        is_flat = found.key and bbox.parse(found.value) and not _is_list_of_lists(found.value)
        is_labelled = label and not is_flat
        items += _walk({label: found.value} if is_labelled else found.value, expected)
    return items


def _is_list_of_lists(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list)


def has_broken_coordinates(item: Item) -> bool:
    """Whether a member with a key of coordinates holds numbers that cannot be read as such."""
    return not (item.box or item.point) and any(
        normalised(key) in _COORDINATE_KEYS
        and not _is_empty(member)
        and _DIGIT.search(str(member)[:400])
        for key, member in item.data.items()
    )


def has_label(item: Item) -> bool:
    """Whether the object that an item was read from has a label or text of its own."""
    return any(normalised(key) in (*_LABEL_KEYS, *_TEXT_KEYS) for key in item.data)


def from_bare_lists(
    values: Sequence[loose_json.Value], text: str, expected: Expected
) -> list[Item]:
    """Items of lists of numbers outside objects. ``text``: where ``values`` were found.

    Pairs left over from a cut-off list of corners are no items; nor are numbers that a sentence
    introduces as something else ("founded in [1990, 1991]").
    """
    items: list[Item] = []
    for found in values[:MAX_ITEMS]:
        if found.key is None and isinstance(found.value, list):
            coordinates = bbox.parse(found.value, corners=expected != "points")
            if found.within and _are_pairs_corners(normalised(found.within), expected):
                coordinates = [values for values in coordinates if len(values) > 2]
            if coordinates and not prose.are_other_numbers(text, found.start, coordinates[0]):
                items += _make_items(coordinates, tags.label_before(text, found.start), {})
    return items


def from_tables(text: str) -> list[Item]:
    """Items of the rows of Markdown and HTML tables."""
    return [item for row in markup.table_rows(text) for item in _items_of_row(row)]


def _items_of_row(row: Mapping[str, str]) -> Iterator[Item]:
    named = any(normalised(key) in _COORDINATE_KEYS for key in row) or bbox.from_members(row)
    column = next((key for key in row if not named and bbox.parse(row[key])), None)
    members = {"bbox" if key == column else key: cell for key, cell in row.items()}
    if named or column is not None:
        yield from _items_of_object(members, "boxes", "", 0)


def from_assignments(text: str) -> list[Item]:
    """Items of named numbers: ``x=5, y=6``, ``Top-left: (1, 2), bottom-right: (3, 4)``."""
    return [
        item
        for label, members, is_cut in prose.named_values(text)
        if (values := bbox.from_members(members)) and not (is_cut and len(values) == 2)
        for item in _make_items([values], label, {})
    ]


def wrapped_answer(values: Sequence[loose_json.Value]) -> str:
    """The text that an object such as ``{"answer": "…"}`` only wraps; "" if there is none."""
    texts = [
        member
        for found in values
        if isinstance(found.value, dict)
        for key, member in found.value.items()
        if normalised(key) in _GENERIC_KEYS and isinstance(member, str)
    ]
    return texts[0] if len(texts) == 1 else ""


def are_empty(values: Sequence[loose_json.Value]) -> bool:
    """Whether there are values, and all of them say that nothing was found: ``[]``, null,
    ``{"objects": []}``, ``{"label": "cat", "bbox_2d": null}``."""
    return bool(values) and all(found.key is None and _is_empty(found.value) for found in values)


def _walk(value: Any, expected: Expected, label: str = "", depth: int = 0) -> Iterator[Item]:
    if depth > _MAX_DEPTH:
        return
    if isinstance(value, list):
        for child in value:
            yield from _walk(child, expected, label, depth + 1)
    elif isinstance(value, dict):
        yield from _items_of_object(value, expected, label, depth)


def _items_of_object(
    value: Mapping[str, Any], expected: Expected, label: str, depth: int
) -> Iterator[Item]:
    coordinates, data = _own_coordinates(value, expected)
    own = _own_label(data) or label
    if coordinates or any(map(is_box_3d_key, data)):
        yield from _make_items(coordinates, own or _any_string(data), data)
    elif not own and _maps_labels_to_coordinates(value):
        for key, member in value.items():
            if normalised(key) not in _OTHER_NUMBER_KEYS and (found := bbox.parse(member)):
                yield from _make_items(found, _label_of_key(key), {})
        return
    inner = [
        item
        for key, member in data.items()
        if bbox.corner_key(key) not in bbox.CORNER_KEYS
        for item in _walk(member, expected, own or _label_of_key(key), depth + 1)
    ]
    item = Item(label=own or _any_string(data), data=data)
    if not coordinates and not inner and has_broken_coordinates(item):
        yield item
    elif (
        expected == "lines"
        and not coordinates
        and not inner
        and _first_text(data, (*_TEXT_KEYS, "label"))
    ):
        yield Item(label=own, data=data)
    yield from inner


def _own_coordinates(
    value: Mapping[str, Any], expected: Expected
) -> tuple[list[Coordinates], dict[str, Any]]:
    """The boxes and points in an object's own members, and its other members."""
    coordinates: list[Coordinates] = []
    data: dict[str, Any] = {}
    for key, member in value.items():
        name = normalised(key)
        found: list[Coordinates] = []
        if name in _COORDINATE_KEYS:
            if expected == "points" and name in _POINT_LIST_KEYS:
                member = bbox.as_pairs(member)
            found = bbox.parse(member, _are_pairs_corners(name, expected), name)
        if found:
            coordinates += found
        else:
            data[key] = member
    # A corner beside a size, or beside the opposite corner, is no point.
    if not any(len(values) > 2 for values in coordinates):
        named_values = bbox.from_members(value)
        if named_values and (not coordinates or len(named_values) > 2):
            return [named_values], {
                key: member
                for key, member in value.items()
                if not bbox.is_coordinate_member(key, member)
            }
    return coordinates, data


def _maps_labels_to_coordinates(value: Mapping[str, Any]) -> bool:
    """Whether keys are labels: ``{"cat": [[…]], "dog": [], "count": 1}``."""
    if any(
        bbox.are_like_years(values) for member in value.values() for values in bbox.parse(member)
    ):
        return False
    return any(map(bbox.parse, value.values())) and all(
        not isinstance(member, list | dict) or bbox.parse(member) or _is_empty(member)
        for member in value.values()
    )


def _make_items(
    coordinates: Sequence[Coordinates], label: str, data: Mapping[str, Any]
) -> list[Item]:
    boxes = [values for values in coordinates if len(values) > 2]
    points = [values for values in coordinates if len(values) == 2]
    if not coordinates:
        return [Item(label=label, data=data)]
    names = next((m for k, m in data.items() if normalised(k) in _LABEL_LIST_KEYS), None)
    if not isinstance(names, list) or len(names) != len(coordinates):
        names = []
    return [
        Item(
            box and box[:4],
            point,
            _as_text(name) or label,
            {"score": box[4], **data} if box and len(box) == 5 else data,
        )
        for box, point, name in zip_longest(boxes, points, names)
    ]


def _are_pairs_corners(key: str, expected: Expected) -> bool:
    return "point" not in key and (expected != "points" or "box" in key)


def _label_of_key(key: str | None) -> str:
    """``key`` if it names what is under it, else ""."""
    return "" if not key or normalised(key) in _GENERIC_KEYS else str(key)


def _first_text(data: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of the members ``names`` that is not empty; English before other languages."""
    members = {normalised(key): member for key, member in data.items()}
    here = filter(members.__contains__, names)
    return next((text for name in here if (text := _as_text(members[name]))), "")


def _own_label(data: Mapping[str, Any]) -> str:
    """An object's label: the first member of ``_LABEL_KEYS`` that is not empty, but an ID only if
    there is no other."""
    members = {normalised(key): member for key, member in data.items()}
    number, is_text = "", False
    for name in filter(members.__contains__, _LABEL_KEYS):
        text = _as_text(members[name])
        if not text:
            continue
        if name in _LABEL_OR_ID_KEYS and _ID.fullmatch(text):
            if not number:
                number, is_text = text, isinstance(members[name], str) and text.isdigit()
        # A number in quotes may be what was read: it gives way to names only.
        elif not (number and is_text and name not in _LABEL_ONLY_KEYS):
            return text
    return number


def _as_text(member: Any, depth: int = 0) -> str:
    """A member as text: of an object its label, of a list its members joined."""
    if depth > _MAX_DEPTH or isinstance(member, bool):
        return ""
    if isinstance(member, str | int | float):
        return str(member).strip()
    if isinstance(member, dict):
        members = {normalised(key): inner for key, inner in member.items()}
        text = (_as_text(members.get(name), depth + 1) for name in _LABEL_KEYS)
        return next(filter(None, text), "")
    if isinstance(member, list):
        return ", ".join(filter(None, (_as_text(word, depth + 1) for word in member[:20])))
    return ""


def _any_string(data: Mapping[str, Any]) -> str:
    strings = (
        member.strip()
        for key, member in data.items()
        if isinstance(member, str) and normalised(key) not in _ID_KEYS
    )
    return next((text for text in strings if text and not _ID.fullmatch(text)), "")


def _is_empty(value: Any, depth: int = 0) -> bool:
    if depth > _MAX_DEPTH:
        return False
    if isinstance(value, dict):
        named = [member for key, member in value.items() if normalised(key) in _COORDINATE_KEYS]
        return all(_is_empty(member, depth + 1) for member in named or value.values())
    if isinstance(value, list):
        return all(_is_empty(member, depth + 1) for member in value)
    return not value or (isinstance(value, str) and says_none(value))
