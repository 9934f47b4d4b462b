"""Tool calls in a reply: ``<tool_call>`` with JSON or with XML parameters, or bare JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import loose_json

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)
_FUNCTION = re.compile(r"<function=([\w.-]{1,80})>(.*?)(</function>|(?=<function=)|\Z)", re.DOTALL)
# The end tag may be left out before the next one.
_PARAMETER = re.compile(
    r"<parameter=([\w.-]{1,80})>(.*?)(</parameter>|(?=<parameter=)|\Z)", re.DOTALL
)
_ARGUMENTS = ("arguments", "parameters", "args", "params", "input")


@dataclass(frozen=True)
class ToolCall:
    """A call of the tool ``name`` ("" where the reply does not say), that begins at ``start`` of
    the text. ``arguments`` by name, as the model wrote them; those of XML are texts.
    ``others``: what a JSON object holds beside name and arguments."""

    name: str
    arguments: Mapping[str, Any]
    start: int
    others: Mapping[str, Any]


def find_calls(answer: str) -> list[ToolCall]:
    """All tool calls in ``answer``, in order; never raises. One whose arguments were cut off in the
    middle is none."""
    tagged = [
        call
        for found in _TAGGED.finditer(answer)
        for call in _calls(found[1], found.start(), is_tagged=True)
    ]
    return tagged or list(_calls(answer, 0))


def _calls(text: str, start: int, is_tagged: bool = False) -> Iterator[ToolCall]:
    """The calls in ``text``, which begins at ``start``. One in tags begins where its tag does."""
    functions = list(_FUNCTION.finditer(text))
    for found in functions:
        arguments = {
            parameter[1]: parameter[2].strip("\n")
            for parameter in _PARAMETER.finditer(found[2])
            if parameter[3] or parameter.end() < len(found[2]) or found[3]  # else it was cut off
        }
        if arguments:
            yield ToolCall(found[1], arguments, start + (0 if is_tagged else found.start()), {})
    if functions:
        return
    for value in loose_json.values(text):
        for item in value.value if isinstance(value.value, list) else [value.value]:
            place = start + (0 if is_tagged else value.start)
            if isinstance(item, dict) and (call := _from_json(item, place)):
                yield call


def _from_json(item: Mapping[str, Any], start: int) -> ToolCall | None:
    """The call that a JSON object is: with name and arguments, as a server's message has it
    (``{"function": {…}}``), or the arguments alone."""
    inner = item.get("function")
    if isinstance(inner, dict):
        return _from_json(inner, start)
    name = str(item.get("name") or inner or "")
    key = next((key for key in _ARGUMENTS if key in item), "")
    arguments = item.get(key)
    if isinstance(arguments, str):
        arguments = _object(arguments)
    if isinstance(arguments, dict):
        others = {member: value for member, value in item.items() if member not in ("name", key)}
        return ToolCall(name, arguments, start, others)
    if isinstance(item.get("action"), str):
        return ToolCall(name, item, start, item)
    return None


def _object(text: str) -> dict[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
