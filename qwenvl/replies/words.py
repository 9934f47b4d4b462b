"""What words say of a place: its name before it, whether the numbers are a place at all, and
places that are spelled out (``Top-left: (1, 2), bottom-right: (3, 4)``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from .places import MOST_PLACES, NUMBER, number, numbers

_LEAD_LENGTH = 60
_LEAD_EDGE = re.compile(r"[\n:：,，.。;；!?()\[\]{}<>|]")
_ABOUT_BOXES = re.compile(
    r"box|coordinate|locat|position|point|answer|result|output|here|坐标|位置|框|结果",
    re.IGNORECASE,
)
_LEAD_SEPARATOR = re.compile(r"\s*(?:[:：=→]|\s[-–—]|[-=]>)\s*\Z")
_BULLET = re.compile(r"^(?:[-*+•‣▪●◦·–—]\s+|#+\s+|\(?\d{1,3}[.)]\s+|[①-⑳]\s*)+")
_EMPHASIS = re.compile(r"^(\*\*|__|\*|`)(.+?)\1?$", re.DOTALL)
# Where words speak of a place, numbers after them are one ...
_WHERE = re.compile(
    r"\b(?:at|bbox|box|boxes|bounding|coordinates?|positions?|positioned|locat\w+|region|area"
    r"|rectangle|corners?|detected|found|here|spans?|points?|click\w*|tap)\b|坐标|位置|框|位于|在|点",
    re.IGNORECASE,
)
# ... and after these they are not.
_NO_PLACE = re.compile(
    r"\b(?:in|of|since|by|for|with|the|from|during|between|years?|dates?|pages?|versions?|chapters?"
    r"|scores?|sizes?|values?|prices?|numbers?|ages?|range|ranges|refs?|see)\s+\Z",
    re.IGNORECASE,
)
_ASSIGNMENT = re.compile(
    rf"(?<![\w.])(?:(?P<name>[xy][0-3]?|[xy][_ ]?(?:min|max|start|end|cent(?:er|re))"
    r"|(?:min|max|start|end|cent(?:er|re))[_ ]?[xy]|left|top|right|bottom|width|height|[wh]|c[xy])"
    rf"\s*[=:：]\s*[\"']?(?P<number>{NUMBER})(?:\s?px)?"
    r"|(?P<corner>(?:top|upper|bottom|lower)[-_ ]?(?:left|right)|[左右][上下]角?)"
    r"(?:[-_ ](?:corner|point|coordinates?))*[\s*]*(?:is|at|are|[=:：])?[\s*]*(?:at\s*)?"
    rf"(?P<pair>[(\[（]\s*{NUMBER}\s*[,，]\s*{NUMBER}\s*[)\]）]))",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"[\s,，;；、|*\"']*(?:and|to|与|和)?[\s,，;；*-]*")
_BROKEN_OFF = re.compile(r"|\s*[,，;；][\w\s:：=(\[-]{0,40}[\d.,\s-]*", re.IGNORECASE)


def lead_in(text: str, position: int) -> str:
    """The name written before a place: ``cat: [...]`` or, where a decoder dropped Qwen's
    special tokens, ``cat(…),(…)``. Empty for a sentence about boxes ("The box is: ...")."""
    lead = text[max(0, position - _LEAD_LENGTH) : position]
    trimmed = lead.rstrip()
    if separator := _LEAD_SEPARATOR.search(lead):
        trimmed = lead[: separator.start()]
    elif trimmed != lead:
        return ""
    name = clean_label(_LEAD_EDGE.split(trimmed)[-1].strip()).strip("*_#\"'`")
    return "" if len(name.split()) > 5 or _ABOUT_BOXES.search(name) else name


def clean_label(label: str) -> str:
    """``label`` without the Markdown around it: a bullet before it, bold, code."""
    if label[:1].isalnum() and label[-1:].isalnum():
        return label
    return _EMPHASIS.sub(r"\2", _BULLET.sub("", label, count=1)).strip() or label


def is_talk(text: str, position: int, place: tuple[float, ...]) -> bool:
    """Whether the sentence before ``position`` says that the numbers there are something else
    than a place: "founded in [1990, 1991, 1992, 1993]"."""
    lead = text[max(0, position - _LEAD_LENGTH) : position].rpartition("\n")[2]
    if not lead.rstrip()[-1:].isalpha() or _WHERE.search(lead):
        return False
    years = len(place) == 4 and all(1800 <= value <= 2100 for value in place)
    return years or _NO_PLACE.search(lead) is not None


def assignments(text: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Numbers and pairs of numbers that are given to the names of a box's or point's parts, by
    groups, each with the name before it: ``click(x=5, y=6)``, ``Top-left: (1, 2), …``. The third:
    whether the text may break off inside the group.
    """
    group: dict[str, Any] = {}
    start = end = 0
    for found in islice(_ASSIGNMENT.finditer(text), MOST_PLACES):
        name = found["name"] or found["corner"]
        if group and (name in group or not _BETWEEN.fullmatch(text, end, found.start())):
            yield _name_before(text, start), group, False
            group = {}
        if not group:
            start = found.start()
        if found["pair"]:
            group[name] = list(numbers(found["pair"]))
        elif found.end() < len(text):  # else it may be half a number
            group[name] = number(found["number"])
        end = found.end()
    if group:
        yield _name_before(text, start), group, _BROKEN_OFF.fullmatch(text, end) is not None


def _name_before(text: str, position: int) -> str:
    """See ``lead_in``; at the beginning of a line, what the line above it says."""
    lead = text[max(0, position - _LEAD_LENGTH) : position]
    before = lead.rstrip(" \t*-•").rstrip("\n")
    if before == lead or "\n" not in lead[len(before) :]:
        return lead_in(text, position)
    named = before.rstrip(":： ") + ":"
    return lead_in(named, len(named))
