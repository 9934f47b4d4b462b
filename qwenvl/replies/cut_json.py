"""JSON as a model writes it: a whole value, or what is whole of one whose text was cut."""

from __future__ import annotations

import json
import math
import re
from typing import Any


def _constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _float(digits: str) -> float:
    if math.isinf(value := float(digits)):
        raise ValueError(f"{digits} is too large a number")
    return value


# Python's own takes NaN and Infinity, and would write a number too large as Infinity.
_DECODER = json.JSONDecoder(parse_constant=_constant, parse_float=_float)
_NUMBER_TO_END = re.compile(r"-?\d[\d.eE+-]*\Z")
_BLANKS = re.compile(r"[ \t\n\r]*")


def whole(text: str) -> Any:
    """The JSON value that ``text`` is. Raises ``ValueError`` for other text, NaN and Infinity too,
    and ``RecursionError`` for what nests too deeply."""
    return _DECODER.decode(text)


def whole_part(text: str) -> Any:
    """The value that ``text``, valid JSON up to its end, begins with: of lists the items that are
    whole, of objects the members that are. A list or an object that is the last member of an object
    is kept with what is whole of it; one that is the last item of a list is no whole item. None
    where nothing is whole. Raises ``ValueError`` for text that is not JSON up to its end, and
    ``RecursionError`` for what nests too deeply."""
    start = _skip(text, 0)
    value, end = _value(text, start)
    if end is not None and _skip(text, end) == len(text):
        return value
    if end is not None:
        raise ValueError(f"there is more behind the JSON value at {end}")
    return value if text[start : start + 1] in ("[", "{") else None


def _value(text: str, start: int) -> tuple[Any, int | None]:
    """The value at ``start`` and where it ends, None where ``text`` ends before."""
    opening = text[start : start + 1]
    if opening == "[":
        return _list(text, _skip(text, start + 1))
    if opening == "{":
        return _object(text, _skip(text, start + 1))
    try:
        value, end = _DECODER.raw_decode(text, start)
    except json.JSONDecodeError:
        if _may_go_on(text[start:]):
            return None, None
        raise
    is_cut = _NUMBER_TO_END.match(text, start)  # more digits could come
    return (None, None) if is_cut else (value, end)


def _may_go_on(rest: str) -> bool:
    """Whether ``rest`` can be the beginning of a string, a number or a word of JSON."""
    words = ("true", "false", "null", "-")
    return rest[:1] == '"' or any(word.startswith(rest) for word in words) or rest[:1].isdigit()


def _list(text: str, at: int) -> tuple[list[Any], int | None]:
    items: list[Any] = []
    while at < len(text) and text[at] != "]":
        value, end = _value(text, at)
        if end is None:
            return items, None
        items.append(value)
        at = _next(text, end, "]")
    return items, at + 1 if at < len(text) else None


def _object(text: str, at: int) -> tuple[dict[str, Any], int | None]:
    members: dict[str, Any] = {}
    while at < len(text) and text[at] != "}":
        key, end = _value(text, at)
        if end is None:
            return members, None
        colon = _skip(text, end)
        if not isinstance(key, str) or text[colon : colon + 1] not in (":", ""):
            raise ValueError(f"no member of an object at {at}")
        start = _skip(text, colon + 1)
        value, end = _value(text, start)
        if end is None:
            if isinstance(value, (list, dict)):
                members[key] = value
            return members, None
        members[key] = value
        at = _next(text, end, "}")
    return members, at + 1 if at < len(text) else None


def _next(text: str, end: int, closing: str) -> int:
    """Where the next item or the ``closing`` bracket is, behind a value that ends at ``end``."""
    at = _skip(text, end)
    if text[at : at + 1] not in (",", closing, ""):
        raise ValueError(f"no comma and no {closing} at {at}")
    return _skip(text, at + 1) if text[at : at + 1] == "," else at


def _skip(text: str, at: int) -> int:
    """Behind white space."""
    found = _BLANKS.match(text, at)
    return found.end() if found else at
