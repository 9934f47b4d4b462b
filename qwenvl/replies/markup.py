"""HTML and Markdown documents: blocks with ``data-bbox``, tables, and what counts as an HTML tag.

Tags are matched by expressions that stop at the next angle bracket, so that time grows linearly
with the text; Python's ``html.parser`` may take minutes for 100 kB of unclosed tags
(CVE-2025-6069).
"""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field
from functools import cached_property

from ..types import Size
from .bbox import MAX_ITEMS, NUMBERS, is_plausible, parse_numbers

# Element names. Markup is such a name in angle brackets, alone or with attributes; anything else
# (x<y, <ann@example.com>, List<String>) is text of the page.
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
# Elements that count as tags without attributes and unclosed. Others without attributes are tags
# only if the document closes them too: manuals mention <source> and <title> as words.
_STRUCTURE = frozenset(
    (
        "html", "head", "body", "div", "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "ul",
        "ol", "li", "dl", "dt", "dd", "table", "caption", "thead", "tbody", "tfoot", "tr", "td",
        "th", "pre", "blockquote", "figure", "math", "mrow",
    )
)  # fmt: skip
_NAMED_ATTRIBUTE = re.compile(r"[A-Za-z_:][\w:.-]*\s{0,4}=")
_FLAGS = frozenset(
    ("hidden", "checked", "selected", "disabled", "readonly", "required", "nowrap", "noshade",
     "controls", "reversed", "border")
)  # fmt: skip
_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9]{0,15})(?=[\s/>])([^<>]*)>")
# A tag that the text is cut off in: complete attributes, then perhaps the beginning of one.
_UNFINISHED_TAG = re.compile(
    r"<(/?)([A-Za-z][A-Za-z0-9]{0,15})?"
    r"(?P<rest>(?:\s+[\w:.-]+\s{0,4}=\s{0,4}(?:\"[^\"<>]*\"|'[^'<>]*'|[^\s\"'<>=]+))*"
    r"(?:\s+[\w:.-]+\s{0,4}=\s{0,4}[\"'][^<>]*|\s+(?P<attribute>[\w:.-]+)=?|\s?/)?)\Z"
)
_COMMON_ATTRIBUTES = (
    "align", "alt", "bgcolor", "border", "class", "colspan", "data-bbox", "data-label", "height",
    "href", "id", "rowspan", "src", "style", "title", "valign", "width",
)  # fmt: skip
_UNFINISHED_COMMENT = re.compile(r"<!(?:-(?:-[^<>]*)?)?\Z")
_UNFINISHED_BOX_COMMENT = re.compile(r"<!--[^<>()]{0,60}\([\d\s,.+-]*\Z")
_DATA_BBOX = re.compile(r"\s?\bdata-bbox\s*=\s*(?:\"([^\"<>]*)\"|'([^'<>]*)')")
_KIND = re.compile(r"\b(?:class|data-label)\s*=\s*[\"']?([\w-]+)")
_VOID = frozenset(("img", "br", "hr", "input", "col", "meta", "link"))
_BREAK = re.compile(r"<(?:br|/tr|/li|/p|/div|/h[1-6])\b[^<>]*>", re.IGNORECASE)
_CELL = re.compile(r"</t[dh]\b[^<>]*>", re.IGNORECASE)
_ROW = re.compile(r"</tr\b[^<>]*>", re.IGNORECASE)
_RULE = re.compile(r":?-+:?")
_DECLARED_SIZE = re.compile(r"\s*(\d{1,5})[ \t]+(\d{1,5})[ \t]*\r?\n\s*(?=```|<)")
_ANY_BOX = re.compile(
    r"data-bbox|```html|<!--[^<>()]{0,60}\((?:[^<>(),]{1,20},){3}[^<>(),]{1,20}\)"
)


@dataclass
class Block:
    """An HTML element with a ``data-bbox``. ``box``: x1, y1, x2, y2 in the model's own space.
    ``tag``: the element; ``kind``: its class or label, or else its tag. ``html``: its inner HTML
    without the blocks nested in it."""

    box: tuple[float, float, float, float]
    tag: str
    kind: str
    parts: list[str] = field(default_factory=list)

    @property
    def html(self) -> str:
        return "".join(self.parts)

    @cached_property
    def text(self) -> str:
        """The text of ``html``, one line for each line of the page."""
        lines = strip_tags(_CELL.sub("\t", _BREAK.sub("\n", self.html)))
        return "\n".join(filter(None, (line.strip() for line in html.unescape(lines).split("\n"))))

    @property
    def label(self) -> str:
        """The text in one line; for a block without text, such as a picture, its kind."""
        return " ".join(self.text.split()) or self.kind


def declared_size(text: str) -> tuple[Size | None, str]:
    """The (height, width) that some Qwen2.5-VL documents begin with, and the text after it.

    It is the size of the resized picture, in whose pixels the document's boxes are.
    """
    found = _DECLARED_SIZE.match(text)
    if not found or not int(found[1]) or not int(found[2]) or not _ANY_BOX.search(text):
        return None, text
    return (int(found[1]), int(found[2])), text[found.end() :]


def rewrite_boxes(text: str, replace: Callable[[tuple[float, ...]], str]) -> str:
    """``text`` with each ``data-bbox`` rewritten, or removed where ``replace`` returns "" and after
    the first ``MAX_ITEMS``."""
    count = itertools.count(1)

    def new(found: re.Match[str]) -> str:
        if next(count) > MAX_ITEMS:
            return ""
        value = replace(parse_numbers(found[1] or found[2] or ""))
        return f' data-bbox="{value}"' if value else ""

    return _DATA_BBOX.sub(new, text)


def strip_unfinished_tag(text: str, cut: bool = False) -> str:
    """``text`` without an unfinished tag or comment at its end.

    ``cut``: whether the text is known to have been cut off. If so, any beginning of a tag counts
    (``<``, ``<ta``, ``</p``); else only an unmistakable one, as in ``<p data-bbox="1 2``, so that
    a text that ends in ``x<y`` stays whole.
    """
    start = text.rfind("<")
    if start < 0 or not _is_unfinished(text, start, cut):
        return text
    return text[: start - (start > 0 and text[start - 1].isspace())]


def _is_unfinished(text: str, start: int, cut: bool) -> bool:
    if (_UNFINISHED_COMMENT if cut else _UNFINISHED_BOX_COMMENT).match(text, start):
        return True
    tag = _UNFINISHED_TAG.match(text[start:].rstrip())
    if tag is None:
        return False
    name = (tag[2] or "").lower()
    if not tag["rest"]:
        return cut and any(known.startswith(name) for known in _NAMES)
    is_sure = re.search(r"=\s{0,4}[\"']", tag["rest"]) is not None
    attribute = (tag["attribute"] or "").lower()
    is_likely = cut and any(common.startswith(attribute) for common in _COMMON_ATTRIBUTES)
    return name in _NAMES and (is_sure or is_likely)


def tags(text: str) -> Iterator[re.Match[str]]:
    """The HTML tags in ``text``: group 1 is "/" for a closing tag, 2 the name, 3 the attributes."""
    found = list(_TAG.finditer(text))
    closed = {tag[2].lower() for tag in found if tag[1]}
    opened = {tag[2].lower() for tag in found if not tag[1]}
    return (tag for tag in found if _is_tag(tag, opened if tag[1] else closed))


def _is_tag(found: re.Match[str], others: Set[str]) -> bool:
    """``others``: the names of the document's closing tags or, for a closing tag, of its opening
    ones."""
    if found[3] and _DATA_BBOX.search(found[3]):
        return True
    name = found[2].lower()
    # "List<I>" and "Vec<Label>": no document writes its tags so.
    if name not in _NAMES or not (found[2].islower() or (found[2].isupper() and len(name) > 1)):
        return False
    attributes = found[3].strip().removesuffix("/").strip()
    if attributes:
        words = attributes.split()
        named = next((at for at, word in enumerate(words) if word.lower() not in _FLAGS), None)
        return named is None or _NAMED_ATTRIBUTE.match(" ".join(words[named:])) is not None
    return name in _STRUCTURE or name in others


def strip_tags(text: str) -> str:
    """``text`` without its HTML tags."""
    parts, end = [], 0
    for tag in tags(text):
        parts.append(text[end : tag.start()])
        end = tag.end()
    return "".join(parts) + text[end:]


def has_tags(text: str) -> bool:
    """Whether ``text`` holds any HTML tag."""
    return next(tags(text), None) is not None


def blocks(text: str, cut: bool = False) -> list[Block]:
    """The elements of an HTML reply that have a ``data-bbox`` of four numbers, in order.
    ``cut``: see ``strip_unfinished_tag``.

    An element nested in one with the same box (an image in its figure) is not a block of its own.
    Unclosed elements and a cut-off end are accepted.
    """
    if "data-bbox" not in text:
        return []
    found: list[Block] = []
    stack: list[tuple[str, Block | None]] = []
    inside: list[Block] = []
    is_open: dict[str, int] = {}
    cursor = count = 0

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
        block = None
        if count < MAX_ITEMS and (block := block_of(tag)):
            count += 1
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
        inside[-1].parts.append(strip_unfinished_tag(text[cursor:], cut))
    return found


def block_of(tag: re.Match[str]) -> Block | None:
    """The block, still empty, that an opening tag with a ``data-bbox`` of four numbers begins."""
    name, attributes = tag[2].lower(), tag[3]
    found = _DATA_BBOX.search(attributes)
    if not found:
        return None
    box = parse_numbers(found[1] or found[2] or "")
    if len(box) != 4 or not all(map(is_plausible, box)):
        return None
    kind = _KIND.search(attributes)
    return Block((box[0], box[1], box[2], box[3]), name, kind[1] if kind else name)


def table_rows(text: str) -> Iterator[dict[str, str]]:
    """The rows of the Markdown and HTML tables in ``text``, as cells by column header."""
    if "</td" in text.lower():
        text = strip_tags(_ROW.sub("\n|", _CELL.sub("|", text)))
    header: list[str] = []
    previous: list[str] = []
    if "|" not in text:
        return
    for line in text.split("\n"):
        if "|" not in line:
            header = previous = []
            continue
        cells = [cell.strip(" *`\t\r") for cell in line.strip().strip("|").split("|")]
        if all(map(_RULE.fullmatch, cells)):
            header = previous
        elif header:
            if len(cells) == len(header):
                yield dict(zip(header, cells, strict=True))
        elif previous and any(map(NUMBERS.search, cells)):
            # HTML tables have no rule below the header.
            header = previous
            if len(cells) == len(header):
                yield dict(zip(header, cells, strict=True))
        else:
            previous = cells
