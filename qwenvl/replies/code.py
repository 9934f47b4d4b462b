"""Code in a reply: taken out of its Markdown fence, or out of the prose around it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .syntax import MERMAID_DIAGRAM

# Indentation, marks, name, and what follows: attributes, or the code itself. The marks are looked
# ahead for, and then taken all at once: given back one by one, long lines would take long.
_FENCE = re.compile(r"^([ \t]*)(?=(`{3,}|~{3,}))\2(?![^\n`]*`)[ \t]*([\w.+#-]*)([^\n]*)$")
_PLAIN_TAGS = frozenset(("", "text", "txt", "plaintext", "plain", "code", "output"))
# Fences around the whole of an answer, which hold fences themselves.
_DOCUMENT_TAGS = frozenset(("markdown", "md"))
_PROLOG = r"(?:<\?xml[^<>]*>\s*|<!DOCTYPE[^<>]*>\s*|<!--[^<>]{0,400}-->\s*){0,4}"
# A page, rather than an element that the prose before it names.
_PAGE = re.compile(r"<!DOCTYPE html\b|<html\b", re.IGNORECASE)
# A paragraph of talk behind a diagram that stands in no fence.
_TALK = re.compile(r"\n[ \t]*\n(?=[A-Z]\w*(?: \S+){3,}[.:!]?(?:\n|\Z))")


@dataclass(frozen=True)
class Language:
    """A language that pictures are written in. ``tags``: what its fences are called, the usual
    name first. ``start``: how its code begins; ``end``: how it ends where no fence shows it ("":
    with the reply)."""

    title: str
    tags: tuple[str, ...]
    start: re.Pattern[str]
    end: str = ""


HTML = Language(
    "HTML",
    ("html", "htm", "html5", "xhtml"),
    re.compile(rf"{_PROLOG}<[a-z][a-z0-9-]*(?:\s[^<>]*)?>", re.IGNORECASE),
    ">",
)
SVG = Language("SVG", ("svg", "xml", "svg+xml"), re.compile(rf"{_PROLOG}<svg\b"), "</svg>")
MERMAID = Language("Mermaid", ("mermaid", "mmd"), MERMAID_DIAGRAM)
DRAWIO = Language(
    "draw.io",
    ("drawio", "xml", "mxgraph", "mxfile", "draw.io"),
    re.compile(rf"{_PROLOG}<(?:mxfile|mxGraphModel)\b"),
    ">",
)


@dataclass(frozen=True)
class Code:
    """Code of the language asked for, without blank lines around it. ``others``: what further
    pieces of code in the reply are called."""

    text: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Fenced:
    tag: str
    body: str


def find_code(answer: str, language: Language) -> Code | None:
    """The code of ``language`` in ``answer``: of several fences the one that holds it, the largest
    where more do; without fences from where it begins to where it ends. None if there is none.
    Time grows linearly with the text."""
    fences = [fence for fence in _fences(answer) if fence.body.strip()]
    best = max(fences, key=lambda fence: _rank(fence, language), default=None)
    if best is not None and any(_rank(best, language)[:2]):
        rest = [fence.tag for fence in fences if fence is not best and fence.tag]
        return Code(_own_part(best, language), tuple(dict.fromkeys(rest)))
    bare = _unfenced(answer, language)
    if bare is None and best is not None and best.tag in _PLAIN_TAGS:
        return Code(best.body)
    return None if bare is None else Code(bare)


def _rank(fence: _Fenced, language: Language) -> tuple[bool, bool, int]:
    if language in (HTML, DRAWIO):  # programs hold tags too, but do not begin with them
        is_like_it = language.start.match(fence.body.lstrip()) is not None
    else:
        is_like_it = language.start.search(fence.body) is not None
    return is_like_it, fence.tag in language.tags, len(fence.body)


def _fences(answer: str) -> Iterator[_Fenced]:
    """The code in each fence, the last one of which may be open. As in Markdown, a fence ends with
    at least as many marks as it began with, and its indentation is none of its code."""
    indent = marks = tag = ""
    body: list[str] | None = None
    for line in answer.split("\n"):
        found = _FENCE.match(line)
        if body is None:
            if found and found[3].lower() not in _DOCUMENT_TAGS:
                indent, marks, tag = found[1], found[2], found[3].lower()
                body = [found[4]] if found[4].lstrip().startswith("<") else []
        elif found and not (found[3] or found[4].strip()) and found[2].startswith(marks):
            yield _Fenced(tag, _joined(body))
            body = None
        else:
            body.append(line.removeprefix(indent))
    if body is not None:
        yield _Fenced(tag, _joined(body).removesuffix(marks))


def _joined(lines: list[str]) -> str:
    return "\n".join(lines).strip("\n").rstrip()


def _own_part(fence: _Fenced, language: Language) -> str:
    """The code in ``fence``; of an HTML page with the SVG that was asked for, only that."""
    if language is SVG and fence.tag in HTML.tags:
        return _unfenced(fence.body, SVG) or fence.body
    return fence.body


def _unfenced(answer: str, language: Language) -> str | None:
    found = _PAGE.search(answer) if language is HTML else None
    found = found or language.start.search(answer)
    if found is None:
        return None
    code = answer[found.start() :]
    if language.end:
        end = code.rfind(language.end)
        return code[: end + len(language.end)] if end >= 0 else code.rstrip()
    talk = _TALK.search(code)
    return (code[: talk.start()] if talk else code).strip("\n").rstrip()
