"""Constraints: what an answer is held to, made from what users write.

A JSON schema, a list of keys, an example, a list of choices, a regular expression or a Lark
grammar; each becomes a ``Constraint``, and bad ones are refused before any model runs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from .errors import BadOption
from .types import Constraint

MAX_SOURCE = 200_000
"""Characters of a constraint; one that is longer is taken for a mistake."""

ONE_LINE: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""How JSON is written, in llguidance's words: as ``json.dumps`` does. With free white space, weak
models write blanks without end."""

_KEY_SEPARATOR = re.compile(r"[,，、\n]")


def from_schema(schema: str | Mapping[str, Any] | bool) -> Constraint:
    """JSON that is valid by a JSON schema, given as JSON text or as an object. Raises ``BadOption``
    for text that is no JSON or no schema, and for a schema by which no answer could end."""
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise BadOption(f"The schema is not valid JSON: {error}.") from error
    if not isinstance(schema, (Mapping, bool)):
        raise BadOption(
            'A JSON schema is an object, such as {"type": "object", "properties": {...}}, and not '
            f"{type(schema).__name__}."
        )
    try:
        source = json.dumps(schema, ensure_ascii=False)
        endless = not _can_end(schema, _endless_references(schema))
    except RecursionError as error:
        raise BadOption("The schema nests too deeply.") from error
    if endless:
        raise BadOption(
            "The schema refers to itself without end, so that no answer by it is ever whole. Make "
            "a key on the way optional, or let its value be null or an empty list."
        )
    return Constraint("json_schema", _source(source))


def from_keys(keys: Sequence[str]) -> Constraint:
    """A JSON object with exactly these keys, in this order; each value is a string, or null where
    there is none. Raises ``BadOption`` without keys, and for one that comes twice."""
    named = [key.strip() for key in keys if key.strip()]
    if not named:
        raise BadOption("Name at least one key, such as: title, price, date.")
    if twice := sorted({key for key in named if named.count(key) > 1}):
        raise BadOption(f"Each key can come once only: {', '.join(twice)} comes more often.")
    return from_schema(_object({key: {"type": ["string", "null"]} for key in named}))


def split_keys(text: str) -> list[str]:
    """The keys in ``text``: with commas between them, those of Chinese and Japanese too, or a key a
    line."""
    return _KEY_SEPARATOR.split(text)


def from_example(example: str | Any) -> Constraint:
    """JSON of the form of an example, given as JSON text or as a value: the same keys in the same
    order, and values of the same types. Items of a list are like the first one; null stands for
    anything that is no list or object. Raises ``BadOption`` for text that is no JSON."""
    if isinstance(example, str):
        try:
            example = json.loads(example)
        except (ValueError, RecursionError) as error:
            raise BadOption(f"The example is not valid JSON: {error}.") from error
    try:
        schema = _like(example)
    except RecursionError as error:
        raise BadOption("The example nests too deeply.") from error
    return from_schema(schema)


def from_choices(choices: Sequence[str]) -> Constraint:
    """One of several answers, word for word. Raises ``BadOption`` without choices."""
    named = list(dict.fromkeys(choice for choice in choices if choice))
    if not named:
        raise BadOption("Name at least one choice, such as: yes, no.")
    options = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in named)
    return Constraint("lark", _source(f"start: {options}"))


def split_choices(text: str) -> list[str]:
    """The choices in ``text``, each once: one a line, or, on a single line, with commas between
    them, those of Chinese and Japanese too."""
    lines = text.strip().splitlines()
    parts = lines if len(lines) > 1 else split_keys(text)
    return list(dict.fromkeys(part.strip() for part in parts if part.strip()))


def from_regex(pattern: str) -> Constraint:
    """Text that a regular expression matches as a whole. Raises ``BadOption`` for an empty one."""
    if not pattern:
        raise BadOption("The regular expression is empty: any answer would be none.")
    return Constraint("regex", _source(pattern))


def from_lark(grammar: str) -> Constraint:
    """Text of a Lark grammar, whose first rule is ``start``. Raises ``BadOption`` for an empty
    one."""
    if not grammar.strip():
        raise BadOption("The grammar is empty. It begins with a rule, such as start: /[0-9]+/.")
    return Constraint("lark", _source(grammar))


def from_items(keys: Mapping[str, Sequence[int]], strict: str) -> Constraint | None:
    """JSON as the models write boxes and points, bare or in a fence. ``keys``: those of
    coordinates, each with how many numbers it can have.

    ``strict`` is one of ``STRICT``. ``on``: from the answer's first token on it is a list of
    objects, each with one of ``keys``. ``auto``: from where the answer opens its JSON up to where
    it closes it, it is JSON of any form in which ``keys`` have that many numbers, or none; an
    answer in words ("there is none") stays as it is, for a model that has found nothing shall not
    have to invent it. ``off``: None."""
    if strict not in STRICT:
        raise BadOption(f"There is no strict {strict!r}. Choose one of {', '.join(STRICT)}.")
    if strict == "off":
        return None
    numbers = [
        rf'"\"{key}\":" " "? "[" S NUMBER ("," S NUMBER){{{count - 1}}} S "]"'
        for key, counts in keys.items()
        for count in counts
    ]
    source = (_ANY_FORM if strict == "auto" else _ITEMS) + _COMMON
    if strict == "auto":
        numbers += [rf'"\"{key}\":" " "? ("[" S "]" | "null")' for key in keys]
    opening = _JSON_OPENINGS if strict == "auto" else ()
    return Constraint("lark", source.replace("NUMBERS", " | ".join(numbers)), opening)


def from_events(strict: str) -> Constraint | None:
    """JSON as the models write what happens in a video, bare or in a fence. ``strict`` as of
    ``from_items``: ``auto`` is JSON of any form, ``on`` a list of objects of exactly ``start_time``
    and ``end_time`` as ``mm:ss.ff``, and ``description``."""
    if strict not in STRICT:
        raise BadOption(f"There is no strict {strict!r}. Choose one of {', '.join(STRICT)}.")
    if strict == "off":
        return None
    if strict == "on":
        return Constraint("lark", _EVENTS)
    source = (_ANY_FORM + _COMMON).replace("numbers | ", "").replace("numbers: NUMBERS", "")
    return Constraint("lark", source, (*_JSON_OPENINGS, "{\n", '["', "[["))


STRICT = ("auto", "on", "off")
"""Whether answers are held to the form that their reader expects, see ``from_items``."""

_JSON_OPENINGS = ("```json", "[{", "[ {", "[\n", "[\t", '{"')

_ITEMS = r"""
start: "```json" S list S "```" | list
list: "[" S (item ("," S item)* S)? "]"
item: "{" S (member "," S)* numbers ("," S member)* S "}"
member: KEY ":" " "? scalar
"""
_EVENTS = r"""
start: "```json" S list S "```" | list
list: "[" S (event ("," S event)* S)? "]"
event: "{" S "\"start_time\":" " "? TIME "," S "\"end_time\":" " "? TIME "," S description S "}"
description: "\"description\":" " "? WORDS
TIME: /"[0-9]{2,3}:[0-5][0-9](\.[0-9]{1,2})?"/
WORDS: /"([^"\\\x00-\x1f]|\\["\\\/bfnrt]){1,400}"/
S: /(\n[ \t]{0,16}| )?/
"""
_ANY_FORM = r"""
start: ("```json" S (list | object) S "```" | list | object) REST
REST: /(.|\n)*/
list: "[" S (value ("," S value)* S)? "]"
object: "{" S (member ("," S member)* S)? "}"
member: numbers | KEY ":" " "? value
value: list | object | scalar
"""
# White space is bounded: weak models write blanks without end.
_COMMON = r"""
numbers: NUMBERS
scalar: STRING | NUMBER | "true" | "false" | "null"
S: /(\n[ \t]{0,16}| )?/
KEY: STRING & ~/"(bbox|point)_2d"/
NUMBER: /-?[0-9]{1,6}(\.[0-9]{1,8})?/
STRING: /"([^"\\\x00-\x1f]|\\["\\\/bfnrt]|\\u[0-9a-fA-F]{4})*"/
"""


def _source(text: str) -> str:
    if len(text) > MAX_SOURCE:
        raise BadOption(
            f"This is too long to hold an answer to: {len(text)} characters, and at most "
            f"{MAX_SOURCE} can be."
        )
    return text


def _endless_references(schema: Any) -> set[str]:
    """The ``$ref`` within the schema by which no value is finite."""
    targets = {reference: target(schema, reference) for reference in _references(schema)}
    endless = set(targets)
    while finite := {name for name in endless if _can_end(targets[name], endless)}:
        endless -= finite
    return endless


def _references(part: Any) -> set[str]:
    if isinstance(part, list):
        return set().union(*map(_references, part))
    if not isinstance(part, Mapping):
        return set()
    own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
    return own.union(*map(_references, part.values()))


def target(schema: Any, reference: str) -> Any:
    """What a reference such as ``#/$defs/name`` means (RFC 6901); None for one that leads outside
    or nowhere, which the grammar's compiler refuses."""
    root, *path = reference.split("/")
    found = schema if root == "#" else None
    for step in path:
        step = unquote(step).replace("~1", "/").replace("~0", "~")
        found = found.get(step) if isinstance(found, Mapping) else None
    return found


def _can_end(part: Any, endless: set[str]) -> bool:
    """Whether a finite value is valid by this part of a schema, where those by the references
    ``endless`` are not finite."""
    if not isinstance(part, Mapping) or "enum" in part or "const" in part:
        return True
    if str(part.get("$ref")) in endless:
        return False
    every = _listed(part, "allOf")
    properties = part.get("properties")
    if part.get("type") == "object" and isinstance(properties, Mapping):
        every = every + [properties.get(str(name)) for name in _listed(part, "required")]
    if part.get("type") == "array" and part.get("minItems"):
        every = [*every, *_listed(part, "prefixItems"), part.get("items")]
    some = [choices for name in ("anyOf", "oneOf") if (choices := _listed(part, name))]
    return all(_can_end(one, endless) for one in every) and all(
        any(_can_end(one, endless) for one in choices) for choices in some
    )


def _listed(part: Mapping[str, Any], name: str) -> list[Any]:
    return found if isinstance(found := part.get(name), list) else []


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }


def _like(value: Any) -> dict[str, Any]:
    """The schema of JSON values that have the form of ``value``."""
    if isinstance(value, Mapping):
        return _object({key: _like(member) for key, member in value.items()})
    if isinstance(value, (list, tuple)):
        return {"type": "array", **({"items": _like(value[0])} if value else {})}
    for kind, name in ((bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")):
        if isinstance(value, kind):
            return {"type": name}
    return {"type": ["string", "number", "boolean", "null"]}
