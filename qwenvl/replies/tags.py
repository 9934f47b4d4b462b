"""Places that are written with tags of their own: ``<box>``, ``<ref>``, ``<point>``, Qwen's special
tokens, and bare ``(x, y)``.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field
from itertools import islice

from .bbox import MOST_PLACES, NUMBER, find_numbers, is_sane, number, numbers
from .prose import lead_in

_PAIR = rf"\s*{NUMBER}\s*,\s*{NUMBER}\s*"
_MARK = re.compile(
    r"(?:<ref>|<\|object_ref_start\|>)(?P<ref>[^<]*)(?=<)"
    rf"|\((?P<place>{_PAIR}(?:,{_PAIR})?)\)"
    rf"|(?:<box>|<\|box_start\|>)(?P<box>{_PAIR},{_PAIR})(?=</box>|<\|box_end\|>)"
)
_TAGGED = re.compile(
    r"(?P<open><(?:box|bbox|points?|point_2d|coordinate|click)>|<\|(?:box|point)_start\|>"
    r"|<points? alt=(?:\"(?P<alt>[^\"<>]*)\")>)"
    r"(?P<inside>[\s\d.,;()\[\]+-]{3,2000})"
    r"(?:</(?:box|bbox|points?|point_2d|coordinate|click)>|<\|(?:box|point)_end\|>)",
    re.IGNORECASE,
)
# Numbers whose bracket is closed by another kind, and strings, which are left alone.
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
_NEXT_PLACE = re.compile(r"[\s,]*\(\s*[-+\d]")
_POINTS = re.compile(r"<points?\s([^<>]*)(?:>([^<]*)|\Z)")
_AXIS = re.compile(rf"\b([xy])(\d{{0,4}})\s*=\s*[\"']?({NUMBER})")
_ALT = re.compile(r"\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")


@dataclass
class Run:
    """Places ``(x, y)`` written directly one after the other. ``tag``: ``box`` or ``quad`` where
    that tag stands before it. ``cut``: another place begins after it and is incomplete, or the
    tag ``box`` is not closed after it."""

    start: int
    label: str = ""
    tag: str = ""
    end: int = 0
    places: list[tuple[float, float]] = field(default_factory=list)
    cut: bool = False


def with_right_brackets(text: str) -> str:
    """``text`` with ``[1, 2, 3, 4)`` and the like closed by its own bracket, outside strings."""
    return _WRONG_END.sub(
        lambda found: f"[{found[found.lastindex]}]" if found.lastindex else found[0], text
    )


def in_usual_form(text: str) -> str:
    """``text`` with what stands between tags of boxes and points as these usually write it:
    ``<box>[1, 2, 3, 4]</box>`` as ``<box>(1,2),(3,4)</box>``, ``<point>5 6</point>`` as
    ``<points x1="5" y1="6"></points>``."""
    return _TAGGED.sub(_rewritten, text)


def _rewritten(found: re.Match[str]) -> str:
    values = find_numbers.findall(found["inside"])
    is_box = "box" in found["open"].lower()
    if not values or len(values) % (4 if is_box and len(values) > 2 else 2):
        return found[0]
    pairs = list(zip(values[0::2], values[1::2], strict=True))
    if is_box:
        return f"<box>{','.join(f'({x},{y})' for x, y in pairs)}</box>"
    axes = " ".join(f'x{at}="{x}" y{at}="{y}"' for at, (x, y) in enumerate(pairs, 1))
    return f"<points {axes}>{found['alt'] or ''}</points>"


def runs(text: str) -> list[Run]:
    """Places written as ``(x, y)``, with or without ``<box>`` or ``<|box_start|>`` around them.

    Four numbers, ``(x1, y1, x2, y2)`` or between tags, are a run of two with the tag ``box``.
    The label is that of the last ``<ref>`` (``<|object_ref_start|>``), else see ``lead_in``.
    """
    found: list[Run] = []
    label, end = "", -1
    for mark in islice(_MARK.finditer(text), MOST_PLACES):
        if mark["ref"] is not None:
            label = mark["ref"].strip()
            continue
        place = numbers(mark["place"] or mark["box"])
        gap = text[end : mark.start()] if end >= 0 else None
        is_range = gap is not None and len(found[-1].places) == 1 and _TO.fullmatch(gap) is not None
        if gap is None or len(place) == 4 or not (is_range or _GAP.fullmatch(gap)):
            own = label or lead_in(text, mark.start())
            tag = "box" if len(place) == 4 else tag_before(text, mark.start())
            found.append(Run(mark.start(), own, tag))
        end = -1 if len(place) == 4 else mark.end()
        run = found[-1]
        run.end = mark.end()
        if all(map(is_sane, place)):
            run.places += zip(place[0::2], place[1::2], strict=True)
        is_of_a_box = len(run.places) == 2 and _OF_A_BOX.search(
            text[max(0, run.start - 40) : run.start]
        )
        run.tag = run.tag or ("box" if is_range or is_of_a_box else "")
        run.cut = (
            _BOX_END.match(text, mark.end()) is None
            if run.tag == "box"
            else _NEXT_PLACE.match(text, mark.end()) is not None
        )
    return found


def tag_before(text: str, position: int) -> str:
    """``box`` or ``quad`` where that tag stands directly before ``position``, else ""."""
    before = text[max(0, position - 20) : position].rstrip()
    for tag in ("box", "quad"):
        if before.endswith((f"<{tag}>", f"<|{tag}_start|>")):
            return tag
    return ""


def points(text: str) -> list[tuple[str, tuple[float, float]]]:
    """Labels and places of ``<point x= y= alt=>`` and ``<points x1= y1= x2= y2= … alt=>``.

    Of a tag that was cut off, the last attribute may be half and does not count.
    """
    found = []
    for tag in islice(_POINTS.finditer(text), MOST_PLACES):
        attributes = tag[1] if tag[2] is not None else tag[1].rpartition(" ")[0]
        axes: dict[str, dict[str, float]] = {}
        for axis, index, value in _AXIS.findall(attributes):
            axes.setdefault(index, {})[axis] = number(value)
        alt = _ALT.search(attributes)
        label = ((alt[1] or alt[2]) if alt else tag[2]) or _ref_before(text, tag.start())
        found += [
            (html.unescape(label).strip(), (place["x"], place["y"]))
            for place in axes.values()
            if len(place) == 2 and all(map(is_sane, place.values()))
        ]
    return found


def name_before(text: str, position: int) -> str:
    """The name of a place: in a ``<ref>`` before it, or as ``words.lead_in`` says."""
    return _ref_before(text, position) or lead_in(text, position)


def _ref_before(text: str, position: int) -> str:
    ref = _REF_BEFORE.search(text, max(0, position - 200), position)
    return ref[1].strip() if ref else ""
