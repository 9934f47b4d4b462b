"""Syntax checks of HTML, SVG and draw.io XML: whether code is whole and well-formed.

XML goes through expat without a tree, so that memory does not grow with it. Entities that a
document defines for itself are refused: a few lines of them can stand for gigabytes.
"""

from __future__ import annotations

import re
from collections import Counter
from xml.parsers import expat

MERMAID_DIAGRAM = re.compile(
    r"^[ \t]*(?:(?:graph|flowchart)(?:[ \t]+(?:TB|TD|BT|RL|LR)\b|[ \t]*$)|sequenceDiagram|"
    r"classDiagram(?:-v2)?|stateDiagram(?:-v2)?|erDiagram|journey|gantt|pie\b|quadrantChart|"
    r"requirementDiagram|gitGraph|C4(?:Context|Container|Component|Dynamic|Deployment)|mindmap|"
    r"timeline|zenuml|sankey(?:-beta)?|xychart(?:-beta)?|block(?:-beta)?|packet(?:-beta)?|kanban|"
    r"architecture(?:-beta)?|radar(?:-beta)?|treemap(?:-beta)?)",
    re.MULTILINE,
)
"""The line that a Mermaid diagram begins with, after front matter, directives and comments."""

_ENDS_EARLY = expat.errors.codes[expat.errors.XML_ERROR_NO_ELEMENTS]
SVG_NAMESPACE = "http://www.w3.org/2000/svg"

# Elements without content, and those whose end tag HTML lets one leave out.
_VOID = frozenset(
    ("area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track",
     "wbr", "param")
)  # fmt: skip
_OPTIONAL = frozenset(
    ("p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "optgroup",
     "rt", "rp", "colgroup", "caption", "head")
)  # fmt: skip
_RAW_TEXT = frozenset(("script", "style", "textarea", "title"))
_NEXT = re.compile(r"<(?:(!--)|([!?])|(/?)([a-zA-Z][^\s/<>]*))")
_QUOTE_OR_END = re.compile(r"[\"'>]")


class _Refused(Exception):
    """Raised by a handler of the XML parser, with why."""


def xml_problem(code: str, roots: tuple[str, ...], namespace: str = "") -> str:
    """Why ``code`` is no XML document whose root element is one of ``roots``; "" if it is one.
    ``namespace``: where the root must be, so that programs know what it is."""
    parser = expat.ParserCreate("utf-8", " ")  # whatever encoding the code names
    is_first = True

    def start(name: str, attributes: object) -> None:
        nonlocal is_first
        if not is_first:
            return
        is_first = False
        place, _, local = name.rpartition(" ")
        if local not in roots:
            raise _Refused(f"its root element is <{local[:40]}>, not <{'> or <'.join(roots)}>")
        if namespace and place != namespace:
            raise _Refused(f'its root element has no xmlns="{namespace}"')

    def doctype(name: str, system: str | None, public: str | None, has_subset: int) -> None:
        if has_subset:
            raise _Refused("it declares a document type of its own, which is not read")

    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = doctype
    try:
        parser.Parse(code.encode(), True)
    except _Refused as error:
        return str(error)
    except expat.ExpatError as error:
        if error.code == _ENDS_EARLY:
            return "it ends before its last element is closed"
        return f"{expat.ErrorString(error.code)} in line {error.lineno}"
    return ""


def mermaid_problem(code: str) -> str:
    """Why ``code`` is no Mermaid diagram, as far as its first word tells; "" if it may be one."""
    return "" if MERMAID_DIAGRAM.search(code) else "it begins with no kind of diagram"


def html_problem(code: str) -> str:
    """Why ``code`` is no well-formed HTML: an element that is never closed, or closed without
    being open; "" if it is. Browsers show such a page all the same, perhaps not as it was meant.

    Time grows linearly with the text, which that of Python's ``html.parser`` need not."""
    elements = _OpenElements(code)
    position = 0
    while found := _NEXT.search(code, position):
        comment, declaration, closing, name = found.groups()
        name = (name or "").lower()
        position = _tag_end(code, found.end(), is_comment=bool(comment))
        if position < 0:
            return f"the tag in {elements.line(found.start())} is cut off"
        if comment or declaration or name in _VOID or code.endswith("/>", 0, position):
            continue
        if closing:
            if problem := elements.close(name, found.start()):
                return problem
            continue
        elements.open(name, found.start())
        if name in _RAW_TEXT:  # its end tag alone ends it
            end = re.compile(f"</{name}[\\s/>]", re.IGNORECASE).search(code, position)
            position = end.start() if end else len(code)
    return elements.close_all()


class _OpenElements:
    """The elements of HTML that are open, outermost first, each with where its tag stands."""

    def __init__(self, code: str):
        self._code = code
        self._open: list[tuple[str, int]] = []
        self._counts: Counter[str] = Counter()

    def open(self, name: str, position: int) -> None:
        self._open.append((name, position))
        self._counts[name] += 1

    def close(self, name: str, position: int) -> str:
        """Closes the innermost ``name`` and what is open in it; why that is wrong, or ""."""
        if not self._counts[name]:
            return "" if name in _OPTIONAL else f"</{name}> in {self.line(position)} has no start"
        while True:
            inner, start = self._open.pop()
            self._counts[inner] -= 1
            if inner == name:
                return ""
            if inner not in _OPTIONAL:
                return self._never_closed(inner, start)

    def close_all(self) -> str:
        unclosed = [pair for pair in self._open if pair[0] not in _OPTIONAL]
        return self._never_closed(*unclosed[-1]) if unclosed else ""

    def line(self, position: int) -> str:
        return f"line {self._code.count(chr(10), 0, position) + 1}"

    def _never_closed(self, name: str, position: int) -> str:
        return f"<{name}> in {self.line(position)} is never closed"


def _tag_end(code: str, position: int, is_comment: bool) -> int:
    """Behind the end of a tag or comment, past ">" in quoted values; -1 if it has none."""
    if is_comment:
        end = code.find("-->", position)
        return end + 3 if end >= 0 else -1
    while found := _QUOTE_OR_END.search(code, position):
        if found[0] == ">":
            return found.end()
        position = code.find(found[0], found.end()) + 1
        if not position:
            return -1
    return -1
