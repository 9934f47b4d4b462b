"""Coordinates in prose: labels before them, numbers that are something else, and named parts
(``Top-left: (1, 2), bottom-right: (3, 4)``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

from .bbox import MAX_ITEMS, NUMBER, parse_number, parse_numbers

_LEAD_LENGTH = 60
_LEAD_EDGE = re.compile(r"[\n:：,，.。;；!?()\[\]{}<>|]")
_ABOUT_BOXES = re.compile(
    r"box|coordinate|locat|position|point|answer|result|output|here|坐标|位置|框|结果",
    re.IGNORECASE,
)
_LEAD_SEPARATOR = re.compile(r"\s{0,4}(?:[:：=→]|\s[-–—]|[-=]>)[\s*_`]{0,6}\Z")
_BULLET = re.compile(r"^(?:[-*+•‣▪●◦·–—]\s+|#+\s+|\(?\d{1,3}[.)]\s+|[①-⑳]\s*)+")
_LABEL_BULLET = re.compile(r"^[-*+•‣▪●]\s+(?=[^\W\d_]|\*\*|`)")
_EMPHASIS = re.compile(r"^(\*\*|`)(.+)\1$", re.DOTALL)
_CALL = re.compile(
    r"\.\w{1,20}\Z|\A(?:\w*click|tap|move_?to|drag_?to|scroll|press)\Z", re.IGNORECASE
)
# A short label before numbers, with only a blank between: "- cat [1, 2, 3, 4]".
_BARE_LABEL = re.compile(
    r"(?:\A|\n)\s{0,8}(?:[-*+•]\s+|\d{1,3}[.)]\s+)?([^\W\d_][^\n:.,!?()\[\]{}]{0,30}?)\s\Z"
)
_NO_LABEL = re.compile(
    r"\b(?:is|are|was|were|at|in|on|the|of|to|and|from|see|it|this|that|has|have|with|for)\b",
    re.IGNORECASE,
)
# Numbers after these words are coordinates ...
_WHERE = re.compile(
    r"\b(?:at|bbox|box|boxes|bounding|coordinates?|positions?|positioned|locat\w+|region|area"
    r"|rectangle|corners?|detected|found|here|spans?|points?|click\w*|tap)\b|坐标|位置|框|位于|在|点",
    re.IGNORECASE,
)
# ... and after these they are something else.
_OTHER_NUMBERS = re.compile(
    r"\b(?:in|of|since|by|for|with|the|during|between|see|count|years?|dates?|pages?|versions?"
    r"|chapters?|scores?|sizes?|values?|prices?|numbers?|ages?|ranges?|ref(?:erence)?s?|figures?"
    r"|colou?rs?|rgba?|ip|phone|tel|resolution|ratios?|shapes?|dimensions?|sales|counts?|totals?"
    r"|ids?|steps?)(?:\s+(?:is|are|was|were))?\s{0,4}[:=：]?\s{0,4}\Z",
    re.IGNORECASE,
)
# How a reply says in which order its numbers are.
_XYWH = re.compile(
    r"\bx\s?,\s?y\s?,\s?w(?:idth)?\s?,\s?h(?:eight)?\b|:\s?[\"']xywh[\"']", re.IGNORECASE
)
_YXYX = re.compile(
    r"\by_?(?:min|1)\s?,\s?x_?(?:min|1)\s?,\s?y_?(?:max|2)\s?,\s?x_?(?:max|2)\b", re.I
)
_SIZE_AFTER = re.compile(
    r"[\s,;.]{0,4}(?:and |with )?(?:a |its )?(?:width|height|size|dimensions?|w\s?[=:])",
    re.IGNORECASE,
)
_AND = rf"{NUMBER}\s{{0,4}}(?:px)?\s{{0,4}}[,，;]\s{{0,4}}"
_WORD = re.compile(r"[b-ehlmopr-uw-yB-EHLMOPR-UW-Y左右]\w*")
_ENDS = frozenset(("", *",.;!?)]}<>|/\\"))  # never directly after the name of a part
_ASSIGNMENT = re.compile(
    rf"(?<![\w.])(?:(?P<name>[xy][0-3]?|[xy][_ ]?(?:min|max|start|end|cent(?:er|re))"
    r"|(?:min|max|start|end|cent(?:er|re))[_ ]?[xy]|left|top|right|bottom|width|height|[wh]|c[xy])"
    rf"\s{{0,4}}[=:：]\s{{0,4}}[\"']?(?P<number>{NUMBER})(?:\s?px)?"
    rf"|(?P<side>width|height) (?:is |of )?(?P<length>{NUMBER})"
    rf"|(?P<size>size|dimensions?)\s{{0,4}}[=:：]?\s{{0,4}}(?:of |is )?(?P<wide>{NUMBER})\s?(?:px)?"
    rf"\s?[x×*]\s?(?P<high>{NUMBER})"
    r"|(?P<corner>(?:top|upper|bottom|lower)[-_ ]?(?:left|right)|[左右][上下]角?"
    r"|corner|position|origin)"
    r"(?:[-_ ](?:corner|point|coordinates?)){0,2}(?:坐标)?(?: of (?:the|its|this) \w{1,20})?"
    r"[\s*]{0,4}(?:is|at|are|为|是|在|[=:：])?[\s*]{0,4}(?:at\s{1,4})?"
    rf"(?P<pair>[(\[（]\s{{0,4}}{_AND}{NUMBER}\s{{0,4}}[)\]）]"
    rf"|[(\[（]?\s?x\s?[=:]\s?{_AND}y\s?[=:]\s?{NUMBER}(?:\s?[)\]）])?))",
    re.IGNORECASE,
)
_BETWEEN = re.compile(
    r"[\s,，;；。、|.*\"']{0,12}(?:and|to|with|与|和)?[\s,，;；*-]{0,8}(?:the|a|its)?\s{0,4}",
    re.IGNORECASE,
)
_CUT_OFF = re.compile(r"|\s*[,，;；][\w\s:：=(\[-]{0,40}[\d.,\s-]*", re.IGNORECASE)


def preceding_label(text: str, position: int) -> str:
    """The label before coordinates: ``cat: [...]``, ``- cat [...]`` or, where decoding skipped
    Qwen's special tokens, ``cat(…),(…)``. Empty for a sentence about boxes ("The box is: ...")
    and for a function call (``click(…)``)."""
    lead = text[max(0, position - _LEAD_LENGTH) : position]
    trimmed = lead.rstrip(" `\"'")
    if separator := _LEAD_SEPARATOR.search(lead):
        trimmed = lead[: separator.start()]
    elif trimmed != lead:
        bare = _BARE_LABEL.search(lead)
        return (
            bare[1] if bare and not _NO_LABEL.search(bare[1]) and len(bare[1].split()) < 4 else ""
        )
    elif _CALL.search(re.split(r"[^\w.]", lead)[-1]):
        return ""
    name = strip_markdown(_BULLET.sub("", _LEAD_EDGE.split(trimmed)[-1].strip()).strip("*_#\"'`$ "))
    return "" if len(name.split()) > 5 or _ABOUT_BOXES.search(name) else name


def strip_markdown(label: str) -> str:
    """``label`` without Markdown: a bullet before it, bold, code."""
    if label[:1].isalnum() and label[-1:].isalnum():
        return label
    return _EMPHASIS.sub(r"\2", _LABEL_BULLET.sub("", label, count=1)).strip() or label


def are_other_numbers(text: str, position: int, values: tuple[float, ...]) -> bool:
    """Whether the words before ``position`` introduce ``values`` as something other than
    coordinates: "founded in [1990, 1991, 1992, 1993]", "scores: [10, 20, 30, 40]"."""
    lead = text[max(0, position - _LEAD_LENGTH) : position].rpartition("\n")[2]
    if not lead.rstrip(" :=：")[-1:].isalpha() or _WHERE.search(lead):
        return False
    years = len(values) == 4 and all(1800 <= value <= 2100 for value in values)
    return (years and lead.rstrip()[-1:].isalpha()) or _OTHER_NUMBERS.search(lead) is not None


def size_follows(text: str, position: int) -> bool:
    """Whether a width or a size follows, so that the point before it is a corner."""
    return _SIZE_AFTER.match(text, position) is not None


def coordinate_order(text: str) -> str:
    """``xywh`` or ``yxyx`` if a reply says that its boxes are in that order, else ""."""
    if _XYWH.search(text):
        return "xywh"
    return "yxyx" if _YXYX.search(text) else ""


def named_values(text: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Groups of numbers and pairs that are assigned to the parts of a box or point, as in
    ``click(x=5, y=6)`` or ``Top-left: (1, 2), …``: the label before the group, its members, and
    whether the text may be cut off inside it.
    """
    group: dict[str, Any] = {}
    start = end = 0
    for found in islice(_match_assignments(text), MAX_ITEMS):
        name = found["name"] or found["side"] or found["size"] or found["corner"]
        gap = text[end : found.start()]
        if group and (name in group or len(gap) > 40 or not _BETWEEN.fullmatch(gap)):
            yield _group_label(text, start), group, False
            group = {}
        if not group:
            start = found.start()
        is_whole = found.end() < len(text)  # else the number may be incomplete
        if found["pair"]:
            if is_whole or found["pair"][-1] in ")]）":
                group[name] = list(parse_numbers(found["pair"]))
        elif is_whole and found["size"]:
            group["size"] = [parse_number(found["wide"]), parse_number(found["high"])]
        elif is_whole:
            group[name] = parse_number(found["number"] or found["length"])
        end = found.end()
    if group:
        yield _group_label(text, start), group, _CUT_OFF.fullmatch(text, end) is not None


def _match_assignments(text: str) -> Iterator[re.Match[str]]:
    """``_ASSIGNMENT.finditer(text)``, tried only at word starts, which takes linear time."""
    end = 0
    for word in _WORD.finditer(text):
        start, behind = word.start(), text[word.end() : word.end() + 1]
        if start >= end and behind not in _ENDS and (found := _ASSIGNMENT.match(text, start)):
            yield found
            end = found.end()


def _group_label(text: str, position: int) -> str:
    """The ``preceding_label``; at the start of a line, the label in the line above."""
    lead = text[max(0, position - _LEAD_LENGTH) : position]
    before = lead.rstrip(" \t*-•").rstrip("\n")
    if before == lead or "\n" not in lead[len(before) :]:
        return preceding_label(text, position)
    named = before.rstrip(":： ") + ":"
    return preceding_label(named, len(named))
