"""Coordinate tags: ``<box>``, ``<ref>``, ``<point>``, Qwen's special tokens, bare ``(x, y)``."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from itertools import islice

from .bbox import MAX_ITEMS, NUMBER, NUMBERS, is_plausible, parse_number, parse_numbers
from .prose import preceding_label

_PAIR = rf"\s*{NUMBER}\s*,\s*{NUMBER}\s*"
_MARK = re.compile(
    r"(?:<ref>|<\|object_ref_start\|>)(?P<ref>[^<]*)(?=<)"
    rf"|\((?P<point>{_PAIR}(?:,{_PAIR})?)\)"
    rf"|(?:<box>|<\|box_start\|>)(?P<box>{_PAIR},{_PAIR})(?=</box>|<\|box_end\|>)"
)
_TAGGED = re.compile(
    r"(?P<open><(?:box|bbox|points?|point_2d|coordinate|click)>|<\|(?:box|point)_start\|>"
    r"|<points? alt=(?:\"(?P<alt>[^\"<>]*)\")>)"
    r"(?P<inside>[\s\d.,;()\[\]+-]{3,2000})"
    r"(?:</(?:box|bbox|points?|point_2d|coordinate|click)>|<\|(?:box|point)_end\|>)",
    re.IGNORECASE,
)
# Numbers whose bracket is closed by one of another kind; strings match too and are left alone.
_WRONG_END = re.compile(
    rf"\"[^\"\n]*\"|\[(\s*{NUMBER}(?:\s*,\s*{NUMBER}){{1,3}}\s*)[)}}]"
    rf"|[({{](\s*{NUMBER}(?:\s*,\s*{NUMBER}){{1,3}}\s*)\]"
    rf"|\{{(\s*{NUMBER}(?:\s*,\s*{NUMBER}){{3}}\s*)\}}"
)
_REF_BEFORE = re.compile(r"(?:<ref>|<\|object_ref_start\|>)([^<]*)<[^<>]*>\s*\Z")
_BOX_END = re.compile(r"\s*(?:</box>|<\|box_end\|>)")
_GAP = re.compile(r"[\s,]*")
# Between two corners of one box.
_TO = re.compile(r"\s{0,4}(?:-|–|—|~|to|[-=]>|→|到|至)\s{0,4}")
_OF_A_BOX = re.compile(r"\b(?:bbox|box|rectangle)\b[^\n()]{0,20}\Z|框[^\n()]{0,8}\Z", re.IGNORECASE)
_NEXT_POINT = re.compile(r"[\s,]*\(\s*[-+\d]")
_POINTS = re.compile(r"<points?\s([^<>]*)(?:>([^<]*)|\Z)")
_AXIS = re.compile(rf"\b([xy])(\d{{0,4}})\s*=\s*[\"']?({NUMBER})")
_ALT = re.compile(r"\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")


@dataclass
class PointRun:
    """Consecutive points ``(x, y)``. ``tag``: ``box`` or ``quad`` if that tag stands before them.
    ``cut``: another point begins after them and is incomplete, or ``<box>`` is not closed."""

    start: int
    label: str = ""
    tag: str = ""
    end: int = 0
    points: list[tuple[float, float]] = field(default_factory=list)
    cut: bool = False


def fix_brackets(text: str) -> str:
    """``text`` with mismatched brackets around numbers, as in ``[1, 2, 3, 4)``, corrected."""
    return _WRONG_END.sub(
        lambda found: f"[{found[found.lastindex]}]" if found.lastindex else found[0], text
    )


def normalise_tags(text: str) -> str:
    """``text`` with coordinate tags in their canonical form: ``<box>[1, 2, 3, 4]</box>`` becomes
    ``<box>(1,2),(3,4)</box>``, ``<point>5 6</point>`` ``<points x1="5" y1="6"></points>``."""
    return _TAGGED.sub(_canonical, text)


def _canonical(found: re.Match[str]) -> str:
    values = NUMBERS.findall(found["inside"])
    is_box = "box" in found["open"].lower()
    if not values or len(values) % (4 if is_box and len(values) > 2 else 2):
        return found[0]
    pairs = list(zip(values[0::2], values[1::2], strict=True))
    if is_box:
        return f"<box>{','.join(f'({x},{y})' for x, y in pairs)}</box>"
    axes = " ".join(f'x{at}="{x}" y{at}="{y}"' for at, (x, y) in enumerate(pairs, 1))
    return f"<points {axes}>{found['alt'] or ''}</points>"


def point_runs(text: str) -> list[PointRun]:
    """Runs of points ``(x, y)``, with or without ``<box>`` or ``<|box_start|>`` around them.

    Four numbers, ``(x1, y1, x2, y2)`` or between tags, are a run of two points with the tag
    ``box``. The label is that of the last ``<ref>`` (``<|object_ref_start|>``), or else the
    ``preceding_label``.
    """
    found: list[PointRun] = []
    label, end = "", -1
    for mark in islice(_MARK.finditer(text), MAX_ITEMS):
        if mark["ref"] is not None:
            label = mark["ref"].strip()
            continue
        values = parse_numbers(mark["point"] or mark["box"])
        gap = text[end : mark.start()] if end >= 0 else None
        is_range = gap is not None and len(found[-1].points) == 1 and _TO.fullmatch(gap) is not None
        if gap is None or len(values) == 4 or not (is_range or _GAP.fullmatch(gap)):
            own = label or preceding_label(text, mark.start())
            tag = "box" if len(values) == 4 else tag_before(text, mark.start())
            found.append(PointRun(mark.start(), own, tag))
        end = -1 if len(values) == 4 else mark.end()
        run = found[-1]
        run.end = mark.end()
        if all(map(is_plausible, values)):
            run.points += zip(values[0::2], values[1::2], strict=True)
        is_of_a_box = len(run.points) == 2 and _OF_A_BOX.search(
            text[max(0, run.start - 40) : run.start]
        )
        run.tag = run.tag or ("box" if is_range or is_of_a_box else "")
        run.cut = (
            _BOX_END.match(text, mark.end()) is None
            if run.tag == "box"
            else _NEXT_POINT.match(text, mark.end()) is not None
        )
    return found


def tag_before(text: str, position: int) -> str:
    """``box`` or ``quad`` if that tag stands directly before ``position``, else ""."""
    before = text[max(0, position - 20) : position].rstrip()
    for tag in ("box", "quad"):
        if before.endswith((f"<{tag}>", f"<|{tag}_start|>")):
            return tag
    return ""


def point_tags(text: str) -> list[tuple[str, tuple[float, float]]]:
    """Labels and points of ``<point x= y= alt=>`` and ``<points x1= y1= x2= y2= … alt=>``.

    In a tag that was cut off, the last attribute may be incomplete and does not count.
    """
    found = []
    for tag in islice(_POINTS.finditer(text), MAX_ITEMS):
        attributes = tag[1] if tag[2] is not None else tag[1].rpartition(" ")[0]
        axes: dict[str, dict[str, float]] = {}
        for axis, index, value in _AXIS.findall(attributes):
            axes.setdefault(index, {})[axis] = parse_number(value)
        alt = _ALT.search(attributes)
        label = ((alt[1] or alt[2]) if alt else tag[2]) or _ref_before(text, tag.start())
        found += [
            (html.unescape(label).strip(), (point["x"], point["y"]))
            for point in axes.values()
            if len(point) == 2 and all(map(is_plausible, point.values()))
        ]
    return found


def label_before(text: str, position: int) -> str:
    """The label of the coordinates at ``position``: a ``<ref>`` before them, or else the
    ``preceding_label``."""
    return _ref_before(text, position) or preceding_label(text, position)


def _ref_before(text: str, position: int) -> str:
    ref = _REF_BEFORE.search(text, max(0, position - 200), position)
    return ref[1].strip() if ref else ""
