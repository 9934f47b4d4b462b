"""Extraction: what a picture shows as JSON of a given form."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from .. import constraints
from ..errors import BadOption, Unavailable, UnreadableReply
from ..replies import cut_json, extract_answer, strip_fence
from ..replies.form_check import mismatch
from ..types import Constraint, ReplyContext, Result, Task

PROMPT = (
    "Extract what this image shows as JSON that is valid by this JSON schema. Output only the JSON."
)
KEYS_PROMPT = (
    "Extract these from this image as a JSON object: {keys}. Each value is a string, or null where "
    "the image does not show it. Output only the JSON."
)

FORMS: dict[str, Callable[[str], Constraint]] = {
    "keys": lambda text: constraints.from_keys(constraints.split_keys(text)),
    "example": constraints.from_example,
    "schema": constraints.from_schema,
}
"""Ways to say what to extract, each read from a text."""

_EMPTY = {
    "keys": "Name at least one key, such as: title, price, date.",
    "example": 'Give JSON like what is wanted, such as {"title": "Tea", "price": 4.5}.',
    "schema": 'Give a JSON schema, such as {"type": "object", "properties": {...}}.',
}


def form(kind: str, text: str) -> Constraint:
    """The constraint that ``text``, of one of the kinds ``FORMS``, describes. Raises ``BadOption``
    for an unknown kind and for text that is not of it (see ``constraints``)."""
    if kind not in FORMS:
        raise BadOption(f"There is no form {kind!r}. Choose one of {', '.join(FORMS)}.")
    if not text.strip():
        raise BadOption(f"Nothing to extract was named. {_EMPTY[kind]}")
    return FORMS[kind](text)


def extract(constraint: Constraint, prompt: str = "", system: str = "") -> Task:
    """The task to write JSON about a picture that is valid by ``constraint``, a JSON schema (see
    ``constraints``). ``prompt``: what to extract, in own words; the schema stands behind it. The
    result's ``data`` is the JSON value, ``text`` the same as text."""
    asked = f"{prompt.strip() or PROMPT}\n{constraint.source}"
    if not prompt.strip() and (keys := _plain_keys(json.loads(constraint.source))):
        asked = KEYS_PROMPT.format(keys=", ".join(keys))
    read = partial(_read, constraint=constraint)
    return Task("extract", asked, read, system=system, greedy=True, constraint=constraint)


def _plain_keys(schema: Any) -> list[str]:
    """The keys of a schema that ``constraints.from_keys`` made; none of another one."""
    if not isinstance(schema, dict) or schema.get("type") != "object":
        return []
    properties = schema.get("properties", {})
    plain = {"type": ["string", "null"]}
    return list(properties) if all(value == plain for value in properties.values()) else []


def _read(text: str, context: ReplyContext, constraint: Constraint) -> Result:
    value, notes = read_json(text, context, constraint)
    return Result(text=json.dumps(value, ensure_ascii=False), data=value, notes=notes)


def read_json(
    text: str, context: ReplyContext, constraint: Constraint
) -> tuple[Any, tuple[str, ...]]:
    """The JSON value of a reply that was to be valid by ``constraint``, and notes on it; of a reply
    that was cut, what is whole. Raises ``UnreadableReply``, also where a reply that was not held to
    its form has another one."""
    read = cut_json.whole_part if context.cut else cut_json.whole
    try:
        value = read(text)  # held to its form, it is JSON as it stands, whatever its strings hold
    except (ValueError, RecursionError):
        answer = strip_fence(extract_answer(text))
        try:
            value = read(answer)
        except (ValueError, RecursionError) as error:
            raise UnreadableReply(f"It is not JSON ({error}).", answer) from error
    return value, () if context.held or context.cut else _checked(value, constraint)


def _checked(value: Any, constraint: Constraint) -> tuple[str, ...]:
    """Notes on a reply that was not held to its form. Raises ``UnreadableReply`` where it is not of
    that form."""
    try:
        problem = mismatch(value, constraint)
    except Unavailable as error:
        return (f"The reply was not held to its form, nor checked. {error}",)
    if problem:
        raise UnreadableReply(problem, json.dumps(value, ensure_ascii=False))
    return ()
