"""Replies that mark places with tags: HTML with ``data-bbox``, ``<box>``, ``<points>``.

Tags are found with expressions that stop at the next angle bracket, so time grows linearly with
the text; Python's ``html.parser`` may need minutes for 100 kB of unclosed tags (CVE-2025-6069).
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, field

from ..types import Size

_NUMBER = r"[-+]?\d+(?:\.\d+)?"
_NO_PICTURE_IS_SO_LARGE = 10**9
_NUMBERS = re.compile(_NUMBER)

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,15})(?![A-Za-z0-9])([^<>]*)>")
_CUT_TAG = re.compile(r"\s?<(?:[A-Za-z/!][^<>]*)?\Z")
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
_BOX_END = re.compile(r"\s*(?:</box>|<\|box_end\|>)")
_GAP = re.compile(r"[\s,]*")
_NEXT_PLACE = re.compile(r"[\s,]*\(\s*[-+\d]")
_POINTS = re.compile(r"<points?\s([^<>]*)(?:>([^<]*)|\Z)")
_AXIS = re.compile(rf"\b([xy])(\d{{0,4}})\s*=\s*[\"']?({_NUMBER})")
_LEAD_LENGTH = 60
_LEAD_EDGE = re.compile(r"[\n:：,，.。;；!?()\[\]{}<>|]")
_ABOUT_BOXES = re.compile(
    r"box|coordinate|locat|position|point|answer|result|output|here|坐标|位置|框|结果",
    re.IGNORECASE,
)
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

    @property
    def text(self) -> str:
        """The words of ``html``, one line for each line of the page."""
        lines = _TAG.sub("", _CELL.sub("\t", _BREAK.sub("\n", self.html)))
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


def without_cut_tag(text: str) -> str:
    """``text`` without the tag or comment that it breaks off in, if it does."""
    return _CUT_TAG.sub("", text)


def has_tags(text: str) -> bool:
    """Whether ``text`` holds any HTML element."""
    return _TAG.search(text) is not None


def blocks(text: str) -> list[Block]:
    """The elements of an HTML reply that have a ``data-bbox`` of four numbers, in order.

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

    for tag in _TAG.finditer(text):
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
        inside[-1].parts.append(without_cut_tag(text[cursor:]))
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
    for mark in _MARK.finditer(text):
        if mark["ref"] is not None:
            label = mark["ref"].strip()
            continue
        place = numbers(mark["place"] or mark["box"])
        if end < 0 or len(place) == 4 or _GAP.fullmatch(text, end, mark.start()) is None:
            own = label or lead_in(text, mark.start())
            tag = "box" if len(place) == 4 else _tag_before(text, mark.start())
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


def _tag_before(text: str, position: int) -> str:
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
    for tag in _POINTS.finditer(text):
        attributes = tag[1] if tag[2] is not None else tag[1].rpartition(" ")[0]
        axes: dict[str, dict[str, float]] = {}
        for axis, index, value in _AXIS.findall(attributes):
            axes.setdefault(index, {})[axis] = number(value)
        alt = _ALT.search(attributes)
        label = ((alt[1] or alt[2]) if alt else tag[2]) or ""
        found += [
            (html.unescape(label).strip(), (place["x"], place["y"]))
            for place in axes.values()
            if len(place) == 2 and all(map(is_sane, place.values()))
        ]
    return found


def lead_in(text: str, position: int) -> str:
    """The name written before a place: ``cat: [...]`` or, where a decoder dropped Qwen's
    special tokens, ``cat(…),(…)``. Empty for a sentence about boxes ("The box is: ...")."""
    lead = text[max(0, position - _LEAD_LENGTH) : position]
    trimmed = lead.rstrip()
    if trimmed.endswith((":", "：")):
        trimmed = trimmed[:-1]
    elif trimmed != lead:
        return ""
    name = _LEAD_EDGE.split(trimmed)[-1].strip(" \t*_-#\"'`")
    return "" if len(name.split()) > 5 or _ABOUT_BOXES.search(name) else name
