"""Replies that mark places with tags: HTML with ``data-bbox``, ``<box>``, ``<points>``.

Tags are found with expressions that stop at the next angle bracket, so time grows linearly with
the text; Python's ``html.parser`` may need minutes for 100 kB of unclosed tags (CVE-2025-6069).
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from typing import Any

from ..types import Size

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_NO_PICTURE_IS_SO_LARGE = 10**9
_NUMBERS = re.compile(_NUMBER)

# What may stand between angle brackets and be markup: an element's name, then nothing, or
# attributes. Anything else (x<y, <ann@example.com>, List<String>) is text of the page.
_NAMES = frozenset(
    (
        "html", "head", "body", "title", "meta", "link", "style", "script", "main", "header",
        "footer", "nav", "section", "article", "aside", "address", "div", "span", "p", "center",
        "h1", "h2", "h3", "h4", "h5", "h6", "hgroup", "br", "hr", "wbr", "pre", "code", "kbd",
        "samp", "var", "tt", "blockquote", "q", "cite", "a", "abbr", "b", "i", "u", "s", "em",
        "strong", "small", "big", "font", "mark", "del", "ins", "strike", "sub", "sup", "ruby",
        "rt", "rp", "time", "label", "img", "image", "figure", "figcaption", "picture", "source",
        "video", "audio", "svg", "path", "g", "ul", "ol", "li", "dl", "dt", "dd", "table",
        "caption", "colgroup", "col", "thead", "tbody", "tfoot", "tr", "td", "th", "form",
        "input", "button", "select", "option", "textarea", "fieldset", "legend", "details",
        "summary", "math", "mi", "mo", "mn", "mtext", "mrow", "mfrac", "msup", "msub", "msubsup",
        "msqrt", "mroot", "mover", "munder", "munderover", "mtable", "mtr", "mtd", "mstyle",
        "mspace", "mfenced", "semantics", "annotation", "formula", "chart",
    )
)  # fmt: skip
_ATTRIBUTES = re.compile(
    r"(?:\s+[A-Za-z_:][\w:.-]*\s*=[^<>]*"
    r"|\s+(?:hidden|checked|selected|disabled|readonly|required|nowrap|noshade|controls|reversed"
    r"|border))*\s*/?\s*",
    re.IGNORECASE,
)
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,15})(?=[\s/>])([^<>]*)>")
# A tag that the text breaks off in: whole attributes, then perhaps the beginning of one.
_BEGUN_TAG = re.compile(
    r"<(/?)([A-Za-z][A-Za-z0-9]{0,15})?"
    r"(?P<rest>(?:\s+[\w:.-]+\s*=\s*(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>=]+))*"
    r"(?:\s+[\w:.-]+\s*=\s*[\"'][^<>]*|\s+(?P<attribute>[\w:.-]*)\s*=?\s*|\s*/)?)\Z"
)
_COMMON_ATTRIBUTES = (
    "align", "alt", "bgcolor", "border", "class", "colspan", "data-bbox", "height", "href", "id",
    "rowspan", "src", "style", "title", "valign", "width",
)  # fmt: skip
_BEGUN_COMMENT = re.compile(r"<!(?:-(?:-[^<>]*)?)?\Z")
_BEGUN_PLACE = re.compile(r"<!--[^<>()]{0,60}\([\d\s,.+-]*\Z")
_DATA_BBOX = re.compile(r"\s?\bdata-bbox\s*=\s*(?:\"([^\"<>]*)\"|'([^'<>]*)')")
_CLASS = re.compile(r"\bclass\s*=\s*[\"']?([\w-]+)")
_VOID = frozenset(("img", "br", "hr", "input", "col", "meta", "link"))
_BREAK = re.compile(r"<(?:br|/tr|/li|/p|/div|/h[1-6])\b[^<>]*>", re.IGNORECASE)
_CELL = re.compile(r"</t[dh]\b[^<>]*>", re.IGNORECASE)
_DECLARED_SIZE = re.compile(r"\s*(\d{1,5})[ \t]+(\d{1,5})[ \t]*\r?\n\s*(?=```|<)")

_PAIR = rf"\s*{_NUMBER}\s*,\s*{_NUMBER}\s*"
_MARK = re.compile(
    r"(?:<ref>|<\|object_ref_start\|>)(?P<ref>[^<]*)(?=<)"
    rf"|\((?P<place>{_PAIR}(?:,{_PAIR})?)\)"
    rf"|(?:<box>|<\|box_start\|>)(?P<box>{_PAIR},{_PAIR})(?=</box>|<\|box_end\|>)"
)
_TAGGED = re.compile(
    r"(?P<open><(?:box|bbox|points?)>|<\|(?:box|point)_start\|>)"
    r"(?P<inside>[\s\d.,;()\[\]+-]{3,2000})(?:</(?:box|bbox|points?)>|<\|(?:box|point)_end\|>)"
)
_WRONG_END = re.compile(
    rf"\[(\s*{_NUMBER}(?:\s*,\s*{_NUMBER}){{3}}\s*)\)|\((\s*{_NUMBER}(?:\s*,\s*{_NUMBER}){{3}}\s*)\]"
)
_REF_BEFORE = re.compile(r"(?:<ref>|<\|object_ref_start\|>)([^<]*)<[^<>]*>\s*\Z")
_BOX_END = re.compile(r"\s*(?:</box>|<\|box_end\|>)")
_GAP = re.compile(r"[\s,]*")
_NEXT_PLACE = re.compile(r"[\s,]*\(\s*[-+\d]")
_POINTS = re.compile(r"<points?\s([^<>]*)(?:>([^<]*)|\Z)")
_AXIS = re.compile(rf"\b([xy])(\d{{0,4}})\s*=\s*[\"']?({_NUMBER})")
_MOST_PLACES = 20_000  # of a reply; more in no picture
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
_ROW = re.compile(r"</tr\b[^<>]*>", re.IGNORECASE)
_RULE = re.compile(r"\s*\|?(?:\s*:?-+:?\s*\|)*\s*:?-+:?\s*\|?\s*")
_ASSIGNMENT = re.compile(
    rf"(?<![\w.])(?:(?P<name>[xy][0-3]?|[xy][_ ]?(?:min|max|start|end|cent(?:er|re))"
    r"|(?:min|max|start|end|cent(?:er|re))[_ ]?[xy]|left|top|right|bottom|width|height|[wh]|c[xy])"
    rf"\s*[=:：]\s*[\"']?(?P<number>{_NUMBER})(?:\s?px)?"
    r"|(?P<corner>(?:top|upper|bottom|lower)[-_ ]?(?:left|right)|[左右][上下]角?)"
    r"(?:[-_ ](?:corner|point|coordinates?))*[\s*]*(?:is|at|are|[=:：])?[\s*]*(?:at\s*)?"
    rf"(?P<pair>[(\[（]\s*{_NUMBER}\s*[,，]\s*{_NUMBER}\s*[)\]）]))",
    re.IGNORECASE,
)
_BETWEEN = re.compile(r"[\s,，;；、|*\"']*(?:and|to|与|和)?[\s,，;；*-]*")
_BROKEN_OFF = re.compile(r"|\s*[,，;；][\w\s:：=(\[-]{0,40}[\d.,\s-]*", re.IGNORECASE)
_ALT = re.compile(r"\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')")


@dataclass
class Block:
    """A part of a document. ``box``: x1, y1, x2, y2 in the model's own space. ``tag``: the HTML
    element; ``kind``: its class, or its tag where it has none. ``html``: what the block itself
    holds, without the blocks inside it."""

    box: tuple[float, float, float, float]
    tag: str
    kind: str
    parts: list[str] = field(default_factory=list)

    @property
    def html(self) -> str:
        return "".join(self.parts)

    @cached_property
    def text(self) -> str:
        """The words of ``html``, one line for each line of the page."""
        lines = without_tags(_CELL.sub("\t", _BREAK.sub("\n", self.html)))
        return "\n".join(filter(None, (line.strip() for line in html.unescape(lines).split("\n"))))

    @property
    def label(self) -> str:
        """The words in one line; for a block without any, such as a picture, its kind."""
        return " ".join(self.text.split()) or self.kind


@dataclass
class Run:
    """Places ``(x, y)`` written directly one after the other. ``tag``: ``box`` or ``quad`` where
    that tag stands before it. ``cut``: another place begins after it and is incomplete, or the
    tag ``box`` is not closed after it."""

    start: int
    label: str = ""
    tag: str = ""
    places: list[tuple[float, float]] = field(default_factory=list)
    cut: bool = False


def number(text: str) -> float:
    """An int for whole numbers and a float for others: the difference tells fractions of a side
    from pixels. More digits than any picture needs give a float, perhaps infinite."""
    return int(text) if text.lstrip("+-").isdigit() and len(text) < 16 else float(text)


def is_sane(value: float) -> bool:
    """Whether a picture could have such a coordinate; not so for NaN and infinities."""
    return abs(value) < _NO_PICTURE_IS_SO_LARGE


def numbers(text: str) -> tuple[float, ...]:
    """All numbers in ``text``, whatever stands between them."""
    return tuple(number(found) for found in _NUMBERS.findall(text))


def declared_size(text: str) -> tuple[Size | None, str]:
    """The (height, width) that some Qwen2.5-VL documents begin with, and the text after it.

    It is the size of the resized picture, which the boxes of that document are in.
    """
    found = _DECLARED_SIZE.match(text)
    if not found or not int(found[1]) or not int(found[2]):
        return None, text
    return (int(found[1]), int(found[2])), text[found.end() :]


def replace_boxes(text: str, replace: Callable[[tuple[float, ...]], str]) -> str:
    """``text`` with each ``data-bbox`` rewritten; it is taken out where ``replace`` gives ""."""

    def new(found: re.Match[str]) -> str:
        value = replace(numbers(found[1] or found[2] or ""))
        return f' data-bbox="{value}"' if value else ""

    return _DATA_BBOX.sub(new, text)


def without_cut_tag(text: str, cut: bool = False) -> str:
    """``text`` without the tag or comment that it breaks off in, if it does.

    ``cut``: whether it is known to have been cut off. Then any beginning of a tag at its end
    counts (``<``, ``<ta``, ``</p``); else only what can be nothing but a tag, as in
    ``<p data-bbox="1 2``, so that a text that ends in ``x<y`` stays whole.
    """
    start = text.rfind("<")
    if start < 0 or not _is_begun(text, start, cut):
        return text
    return text[: start - (start > 0 and text[start - 1].isspace())]


def _is_begun(text: str, start: int, cut: bool) -> bool:
    if (_BEGUN_COMMENT if cut else _BEGUN_PLACE).match(text, start):
        return True
    tag = _BEGUN_TAG.match(text, start)
    if tag is None:
        return False
    name = (tag[2] or "").lower()
    if not tag["rest"]:
        return cut and any(known.startswith(name) for known in _NAMES)
    is_sure = re.search(r"=\s*[\"']", tag["rest"]) is not None
    attribute = (tag["attribute"] or "").lower()
    is_likely = cut and any(common.startswith(attribute) for common in _COMMON_ATTRIBUTES)
    return name in _NAMES and (is_sure or is_likely)


def tags(text: str) -> Iterator[re.Match[str]]:
    """The HTML tags of ``text``: group 1 is "/" for a closing one, 2 the name, 3 attributes."""
    return filter(_is_tag, _TAG.finditer(text))


def _is_tag(found: re.Match[str]) -> bool:
    known = found[2].lower() in _NAMES and _ATTRIBUTES.fullmatch(found[3]) is not None
    return known or _DATA_BBOX.search(found[3]) is not None


def without_tags(text: str) -> str:
    """The words between the HTML tags of ``text``."""
    return _TAG.sub(lambda found: "" if _is_tag(found) else found[0], text)


def has_tags(text: str) -> bool:
    """Whether ``text`` holds any HTML element."""
    return next(tags(text), None) is not None


def blocks(text: str, cut: bool = False) -> list[Block]:
    """The elements of an HTML reply that have a ``data-bbox`` of four numbers, in order.
    ``cut``: see ``without_cut_tag``.

    An element inside another with the very same box (a picture in its frame) is no block of its
    own. Unclosed elements and an end that was cut off are accepted.
    """
    found: list[Block] = []
    stack: list[tuple[str, Block | None]] = []
    inside: list[Block] = []
    is_open: dict[str, int] = {}
    cursor = 0

    def flush(end: int) -> None:
        if inside:
            inside[-1].parts.append(text[cursor:end])

    for tag in tags(text):
        name = tag[2].lower()
        if tag[1]:
            while is_open.get(name):
                top, block = stack.pop()
                is_open[top] -= 1
                if block:
                    flush(tag.start())
                    cursor = tag.end()
                    inside.pop()
                if top == name:
                    break
            continue
        block = _block(name, tag[3])
        if block and inside and inside[-1].box == block.box:
            block = None
        if block:
            flush(tag.start())
            cursor = tag.end()
            found.append(block)
        if name not in _VOID and not tag[3].endswith("/"):
            stack.append((name, block))
            is_open[name] = is_open.get(name, 0) + 1
            inside.extend([block] if block else [])
    if inside:
        inside[-1].parts.append(without_cut_tag(text[cursor:], cut))
    return found


def _block(name: str, attributes: str) -> Block | None:
    place = _DATA_BBOX.search(attributes)
    if not place:
        return None
    box = numbers(place[1] or place[2] or "")
    if len(box) != 4 or not all(map(is_sane, box)):
        return None
    kind = _CLASS.search(attributes)
    return Block((box[0], box[1], box[2], box[3]), name, kind[1] if kind else name)


def runs(text: str) -> list[Run]:
    """Places written as ``(x, y)``, with or without ``<box>`` or ``<|box_start|>`` around them.

    Four numbers, ``(x1, y1, x2, y2)`` or between tags, are a run of two with the tag ``box``.
    The label is that of the last ``<ref>`` (``<|object_ref_start|>``), else see ``lead_in``.
    """
    found: list[Run] = []
    label, end = "", -1
    for mark in islice(_MARK.finditer(text), _MOST_PLACES):
        if mark["ref"] is not None:
            label = mark["ref"].strip()
            continue
        place = numbers(mark["place"] or mark["box"])
        if end < 0 or len(place) == 4 or _GAP.fullmatch(text, end, mark.start()) is None:
            own = label or lead_in(text, mark.start())
            tag = "box" if len(place) == 4 else tag_before(text, mark.start())
            found.append(Run(mark.start(), own, tag))
        end = -1 if len(place) == 4 else mark.end()
        if all(map(is_sane, place)):
            found[-1].places += zip(place[0::2], place[1::2], strict=True)
        found[-1].cut = (
            _BOX_END.match(text, mark.end()) is None
            if found[-1].tag == "box"
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
    for tag in islice(_POINTS.finditer(text), _MOST_PLACES):
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


def _ref_before(text: str, position: int) -> str:
    ref = _REF_BEFORE.search(text, max(0, position - 200), position)
    return ref[1].strip() if ref else ""


def in_usual_form(text: str) -> str:
    """``text`` with what stands between tags of boxes and points as these usually write it:
    ``<box>[1, 2, 3, 4]</box>`` as ``<box>(1,2),(3,4)</box>``, ``<point>5 6</point>`` as
    ``<point x="5" y="6"></point>``; and ``[1, 2, 3, 4)`` with its own bracket."""
    text = _WRONG_END.sub(lambda found: f"[{found[1] or found[2]}]", text)
    return _TAGGED.sub(_rewritten, text)


def _rewritten(found: re.Match[str]) -> str:
    values = _NUMBERS.findall(found["inside"])
    is_box = "box" in found["open"]
    if not values or len(values) % (4 if is_box and len(values) > 2 else 2):
        return found[0]
    if is_box:
        places = ",".join(f"({x},{y})" for x, y in zip(values[0::2], values[1::2], strict=True))
        return f"<box>{places}</box>"
    axes = " ".join(
        f'x{at}="{x}" y{at}="{y}"'
        for at, (x, y) in enumerate(zip(values[0::2], values[1::2], strict=True), 1)
    )
    return f"<points {axes}></points>"


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


def table_rows(text: str) -> Iterator[dict[str, str]]:
    """The rows of the Markdown and HTML tables in ``text``, by the names in their heads."""
    if "</td" in text.lower():
        text = without_tags(_ROW.sub("\n|", _CELL.sub("|", text)))
    head: list[str] = []
    before: list[str] = []
    for line in text.split("\n"):
        cells = [cell.strip(" *`\t\r") for cell in line.strip().strip("|").split("|")]
        if "|" not in line:
            head = before = []
        elif _RULE.fullmatch(line):
            head = before
        elif head:
            if len(cells) == len(head):
                yield dict(zip(head, cells, strict=True))
        elif before and any(map(_NUMBERS.search, cells)):
            # A table of HTML has no rule below its head.
            head = before
            if len(cells) == len(head):
                yield dict(zip(head, cells, strict=True))
        else:
            before = cells


def assignments(text: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Numbers and pairs of numbers that are given to the names of a box's or point's parts, by
    groups, each with the name before it: ``click(x=5, y=6)``, ``Top-left: (1, 2), …``. The third:
    whether the text may break off inside the group.
    """
    group: dict[str, Any] = {}
    start = end = 0
    for found in islice(_ASSIGNMENT.finditer(text), _MOST_PLACES):
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
