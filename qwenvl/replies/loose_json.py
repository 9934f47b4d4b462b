"""JSON extraction and repair: the arrays and objects in a reply, intact, broken or cut off.

Brackets are matched in one pass that knows about strings. Of a bracket that is never closed, be it
a stray one in prose or the end of a reply that was cut off, the complete values inside it count
and incomplete ones are left out, so that a number cut in the middle (``84`` of ``845``) never
becomes a value.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice, pairwise
from typing import Any

from ..unicode import well_formed

_TOKEN = re.compile(r"[\"'\[\]{}]")
_BRACKET = re.compile(r"[\[{]")
_CLOSES = {"]": "[", "}": "{"}
_BEFORE_STRING = frozenset("{[(,:")
_AFTER_STRING = frozenset(",:}])/#\n")
# What can follow a comma in an object: another member, a bracket, a comment, the end.
_NEXT_MEMBER = re.compile(
    r"\s*(?:[\"'][^\"'\n]{0,200}(?:[\"']\s*:|\Z)|[\w-]{1,80}\s*:|[{}\[\]#,]|//|/\*|\Z)"
)
_NOT_IN_NAMES = re.compile(r"[\"'{}\[\],:\n]")

# A backslash in a string and what it escapes. Models write LaTeX and Windows paths in JSON without
# doubling the backslash, so that "\frac" would be a form feed and "\(" an error.
_ESCAPE = re.compile(r"\\(\\|u[0-9a-fA-F]{4}|[A-Za-z]+|.|\Z)", re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")
_PATH = re.compile(
    r"(?:(?<![A-Za-z])|(?<=\\[nrt]))[A-Za-z]:\\(?!\\)[^\s\"'<>|:]*"
    r"(?: [\w.()~-]{1,40}\\[^\s\"'<>|:]*)*"
)
# Evidence that backslashes after a colon are a path's: one that is not a JSON escape, or two names
# of which one does not begin like a line feed.
_PATH_EVIDENCE = re.compile(
    r"\\(?:[A-Zac-eg-mo-qsv-z_0-9]|[bfr][A-Za-z]|u(?![0-9a-fA-F]{4}))"
    r"|^[A-Z]:\\(?:temp|tmp|test|tools|new|notes)\b"
    r"|^[A-Z]:(?=(?:\\[\w.()~-]{3,}){2,}$)(?=.*\\[^n])"
)
# LaTeX commands that begin like JSON's escapes of tab and line feed, and are not taken for such an
# escape before a word.
_COMMAND_NAMES = """
tableofcontents tabular tag tanh tbinom thanks tiny title today text textbf textcolor textit
textrm textsc textsf textstyle textsuperscript texttt textup tfrac theta therefore thetasym
thickapprox thicksim tilde times toprule triangle triangledown triangleleft triangleq
triangleright twoheadrightarrow nabla natural newcommand newpage nicefrac normalsize ncong
nearrow neg neq newline nexists ngeq ngtr nleftarrow nleq nless nmid noindent nolimits
nonumber notag notin nparallel nprec nrightarrow nsim nsubseteq nsucc nsupseteq ntriangleleft
ntriangleright nwarrow nVdash nvdash
"""
_COMMANDS = frozenset(_COMMAND_NAMES.split())
# These are ambiguous ("\ne": a line feed and "e"), so they count only amid mathematics.
_SHORT_COMMANDS = frozenset(("tan", "tau", "to", "top", "ne", "ni", "not", "nu"))
_IN_FORMULA = re.compile(r"\s?[=<>^_({+]")
_MATHEMATICS = re.compile(
    r"\$|(?<!\\)\\(?:[(\[]|frac|dfrac|sqrt|sum|int|prod|lim|infty|alpha|beta|gamma|delta|epsilon"
    r"|lambda|mu|pi|sigma|phi|omega|cdot|leq?|geq?|in\b|mathrm|mathbf|mathbb|left|right)"
)

# json-repair may take quadratic time on hostile text (minutes for 100 kB), so its work is bounded
# by the sum of squared lengths plus a constant for each call. This suffices for one object of 6,000
# characters, or 640 of 50.
_REPAIR_BUDGET = 4 * 10**7
_REPAIR_CALL = 6 * 10**4
# Most brackets and quotes that are read. The longest replies, lists of a thousand boxes, have a
# third of it.
_MAX_TOKENS = 30_000
# Levels of nesting that are parsed again in parts where the whole does not parse; bounds the work.
_MAX_LEVELS = 5


@dataclass(frozen=True, slots=True)
class Value:
    """One JSON value. ``start``, ``end``: its position in the text. ``key``: None, unless it was a
    member of an object that was never closed or cannot be repaired; then that member's key (""
    if it had none). ``within``: the same for an item of a list that was such a member."""

    value: Any
    start: int
    end: int = 0
    key: str | None = None
    within: str = ""


@dataclass(slots=True)
class _Node:
    start: int
    opener: str
    end: int = 0
    mismatched: bool = False
    key: str | None = None
    within: str = ""
    children: list[_Node] = field(default_factory=list)


def values(text: str) -> list[Value]:
    """All outermost JSON arrays and objects in ``text``, in order.

    Accepts what models really write: trailing commas, comments, Python literals, unquoted or
    badly quoted strings, single backslashes, doubled braces, prose and code fences around it,
    several values in a row, ends cut off. All strings are valid Unicode and all numbers finite
    (others are None). Never raises; text without JSON gives an empty list.
    """
    only = _only_value(text)
    if only is not None:
        return [only]
    budget = _Budget(len(text))
    return [value for node in _outermost(text) for value in _read(text, node, budget, 0)]


def _only_value(text: str) -> Value | None:
    """The only value in ``text``, if it is valid and no bracket stands outside it."""
    first = _BRACKET.search(text)
    last = max(text.rfind("]"), text.rfind("}")) + 1
    if first is None or first.start() >= last or _BRACKET.search(text, last):
        return None
    value = _strict(text[first.start() : last])
    return None if value is None else Value(value, first.start(), last)


def members(text: str) -> dict[str, Any]:
    """The members of the object that ``text`` begins with; empty if it cannot be read.

    If it was cut off inside a string, the beginning of that string counts: for running text only,
    never for coordinates.
    """
    first = next(iter(values(text)), None)
    if first is not None and isinstance(first.value, dict) and first.key is None:
        return first.value
    text = re.sub(r"\\(?:u[0-9a-fA-F]{0,3})?\Z", "", text)
    ended = next((whole for end in ('"}', "}") if (whole := _strict(text + end))), None)
    return ended if isinstance(ended, dict) else {}


def is_inside(text: str, position: int) -> bool:
    """Whether ``position`` is inside an array or object of ``text``, closed or not."""
    depth = 0
    for at, char in _tokens(text):
        if at >= position:
            break
        if char not in "\"'":
            depth = max(0, depth + (1 if char in "[{" else -1))
    return depth > 0


def object_spans(text: str) -> list[tuple[int, int, int]]:
    """All objects of ``text`` by where they begin: start, end, and which of them is around it (-1:
    none). One that is never closed ends with the text."""
    found: list[tuple[int, int, int]] = []
    open_ones: list[int] = []
    for position, char in _tokens(text):
        if char == "{":
            found.append((position, len(text), open_ones[-1] if open_ones else -1))
            open_ones.append(len(found) - 1)
        elif char == "}" and open_ones:
            index = open_ones.pop()
            found[index] = (found[index][0], position + 1, found[index][2])
    return found


class _Budget:
    """Budget for broken JSON: characters that may still be repaired, or scanned for quotes."""

    def __init__(self, length: int) -> None:
        self._repair = _REPAIR_BUDGET
        self._scan = 2 * length

    def may_repair(self, length: int) -> bool:
        self._repair -= length**2 + _REPAIR_CALL
        return self._repair >= 0

    def may_scan(self, length: int) -> bool:
        self._scan -= length
        return self._scan >= 0


def _outermost(text: str) -> list[_Node]:
    stack: list[_Node] = [_Node(0, "")]
    is_open = {"[": 0, "{": 0}
    for position, char in _tokens(text):
        if char in is_open:
            is_open[char] += 1
            stack.append(_Node(position, char))
        elif char in _CLOSES and is_open[_CLOSES[char]]:
            index = len(stack) - 1
            while stack[index].opener != _CLOSES[char]:
                is_open[stack[index].opener] -= 1
                index -= 1
            node = stack[index]
            is_open[node.opener] -= 1
            node.end = position + 1
            node.mismatched = index < len(stack) - 1
            node.children += _orphans(text, stack[index:])
            del stack[index:]
            stack[-1].children.append(node)
    return stack[0].children + _orphans(text, stack)


def _orphans(text: str, nodes: Sequence[_Node]) -> list[_Node]:
    """The children of unclosed nodes, each of which is nested in the one before it."""
    orphans: list[_Node] = []
    within = ""
    for outer, inner in pairwise(nodes):
        if outer.opener == "{":
            within = _member_key(text, outer.start + 1, inner.start)
        orphans += _name_children(text, inner, within)
    return orphans


def _name_children(text: str, node: _Node, within: str) -> list[_Node]:
    """The children of an unreadable node, with the key of the member that each was or was in."""
    for child in node.children:
        if node.opener == "{":
            child.key = _member_key(text, node.start + 1, child.start)
        else:
            child.within = child.within or within
    return node.children


def _member_key(text: str, start: int, end: int) -> str:
    """The key before the colon that ends ``text[start:end]``; "" if there is none."""
    before = text[max(start, end - 100) : end].rstrip()
    if not before.endswith(":"):
        return ""
    return _NOT_IN_NAMES.split(before[:-1].rstrip().rstrip("\"'"))[-1].strip()


def _tokens(text: str) -> Iterator[tuple[int, str]]:
    """Brackets outside strings, and unescaped quotes inside them, with their positions.

    A quote opens a string only where one may begin, and closes it only where one may end: models
    write ``"a 12" ruler"``.
    """
    openers: list[str] = []
    quote = ""
    for match in islice(_TOKEN.finditer(text), _MAX_TOKENS):
        position, char = match.start(), match[0]
        if char in "\"'":
            if not quote:
                if openers and _previous_character(text, position) in _BEFORE_STRING:
                    quote = char
            elif char == quote and not _is_escaped(text, position):
                if _may_close(text, position, openers[-1] == "{"):
                    quote = ""
                else:
                    yield position, char
        elif not quote:
            if char in "[{":
                openers.append(char)
            elif openers:
                openers.pop()
            yield position, char


def _previous_character(text: str, position: int) -> str:
    position -= 1
    while position >= 0 and text[position].isspace():
        position -= 1
    return text[position] if position >= 0 else ""


def _may_close(text: str, position: int, in_object: bool) -> bool:
    after = position + 1
    while after < len(text) and text[after] in " \t\r":
        after += 1
    if after == len(text):
        return True
    if text[after] == "," and in_object:
        return _NEXT_MEMBER.match(text, after + 1) is not None
    return text[after] in _AFTER_STRING


def _is_escaped(text: str, position: int) -> bool:
    before = position - 1
    while before >= 0 and text[before] == "\\":
        before -= 1
    return (position - before) % 2 == 0


def _read(text: str, node: _Node, budget: _Budget, level: int) -> Iterator[Value]:
    source = text[node.start : node.end]
    strict = _strict(source)
    if strict is not None:
        yield Value(strict, node.start, node.end, node.key, node.within)
        return
    # The objects of a list are repaired one by one, so that damage to one leaves the others alone.
    in_parts = (
        not node.mismatched and node.opener == "[" and any(c.opener == "{" for c in node.children)
    )
    repaired = None if in_parts else _repaired(source, budget)
    if repaired is not None:
        yield Value(repaired, node.start, node.end, node.key, node.within)
    elif level < _MAX_LEVELS:
        for child in _name_children(text, node, node.key or node.within):
            yield from _read(text, child, budget, level + 1)


def _strict(source: str) -> Any:
    try:
        value = _decoder().decode(_escaped(source))
    except (ValueError, RecursionError):
        return None
    return _sanitised(value) if _SURROGATE.search(source) else value


@lru_cache(maxsize=1)
def _decoder() -> json.JSONDecoder:
    # NaN and Infinity are neither JSON nor coordinates.
    return json.JSONDecoder(
        strict=False,
        parse_float=_finite,
        parse_constant=lambda _: None,
        object_pairs_hook=_object,
    )


def _finite(number: str) -> float | None:
    value = float(number)
    return value if math.isfinite(value) else None


def _escaped(source: str) -> str:
    """``source`` with each backslash doubled that was meant literally."""
    if "\\" not in source:
        return source
    if "\\\\" not in source:  # a reply that doubles backslashes does so in paths too
        source = _PATH.sub(_path, source)
    is_mathematics = _MATHEMATICS.search(source) is not None

    def corrected(found: re.Match[str]) -> str:
        what = found[1]
        if what in ("'", "/"):
            return what
        is_escape = what in ("\\", '"') or (what[:1] == "u" and len(what) == 5)
        if what[:1] in ("b", "f"):
            is_escape = False
        elif what[:1] == "r":
            is_escape = len(what) == 1
        elif what[:1] in ("n", "t"):
            is_short = what in _SHORT_COMMANDS and (
                is_mathematics or _IN_FORMULA.match(source, found.end()) is not None
            )
            is_escape = what not in _COMMANDS and not is_short
        return found[0] if is_escape else f"\\{found[0]}"

    return _ESCAPE.sub(corrected, source)


def _path(found: re.Match[str]) -> str:
    """A Windows path with its backslashes doubled; what only looks like one ("A:" at the end of a
    line) unchanged."""
    return _ESCAPE.sub(_in_path, found[0]) if _PATH_EVIDENCE.search(found[0]) else found[0]


def _in_path(found: re.Match[str]) -> str:
    """A doubled backslash, except for a line feed before a capital, which ends the path."""
    what = found[1]
    is_over = what[:1] == "n" and what[1:2].isupper()
    is_character = what[:1] == "u" and len(what) == 5
    return found[0] if is_over or is_character or what in ("\\", '"') else f"\\{found[0]}"


def _object(pairs: list[tuple[str, Any]]) -> Any:
    """A dict; if a key is repeated, a list of dicts: models forget ``}, {`` between items."""
    objects: list[dict[str, Any]] = [{}]
    for key, value in pairs:
        if key in objects[-1]:
            objects.append({})
        objects[-1][key] = value
    return objects[0] if len(objects) == 1 else objects


def _repaired(source: str, budget: _Budget) -> Any:
    if not budget.may_scan(len(source)):
        return None
    kept = _fix_quotes_and_commas(source)
    if kept != source and (repaired := _strict(kept)) is not None:
        return repaired
    if not budget.may_repair(len(source)):
        return None
    from json_repair import repair_json

    try:
        value = repair_json(_escaped(source), return_objects=True, skip_json_loads=True)
    except Exception:  # On hostile text the library may fail in ways that it does not document.
        return None
    return _sanitised(value) if isinstance(value, dict | list) and value else None


def _fix_quotes_and_commas(source: str) -> str:
    """``source`` with quotes inside strings escaped and trailing commas removed."""
    parts, end = [], 0
    for position, char in _tokens(source):
        if char == '"':
            parts += [source[end:position], "\\"]
            end = position
        elif char in _CLOSES:
            kept = source[end:position].rstrip()
            if kept.endswith(","):
                parts.append(kept[:-1])
                end = position
    return "".join(parts) + source[end:]


def _sanitised(value: Any) -> Any:
    """``value`` with valid Unicode in all strings, surrogate pairs joined, and None for numbers
    that are not finite."""
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_sanitised(member) for member in value]
    if isinstance(value, dict):
        return {_sanitised(key): _sanitised(member) for key, member in value.items()}
    return value
