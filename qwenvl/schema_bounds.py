"""JSON schema bounds: lists and strings that a schema leaves open, bounded by a token budget.

Weak models repeat items of a list for as long as they may. A list that can hold no more than fits
ends by itself, and what stands behind it is still written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

T = TypeVar("T")

CHARACTERS_PER_TOKEN = 8
"""More than text has on average in any language."""

# The fewest tokens of JSON as tokenizers of this kind cut it: digits stand alone, marks join what
# is beside them.
_OF_TYPE = {"string": 2, "integer": 2, "number": 2, "boolean": 1, "null": 1}
_MEMBER, _BRACKETS = 3, 1

_PARTS = ("items", "additionalProperties", "contains")  # that are schemas
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")  # of schemas
_MAPS = ("properties", "patternProperties", "$defs", "definitions")  # of schemas
_OWN_BOUND = ("maxLength", "pattern", "format", "$ref")


def bounded(schema: Any, tokens: int) -> Any:
    """``schema`` with ``maxLength`` for strings and ``maxItems`` for lists that have none, where
    more could not be written with ``tokens``. What is valid by it is valid by ``schema``. Parts
    that are no schema stay as they are, for the grammar's compiler to refuse."""
    if not isinstance(schema, Mapping):
        return schema
    held = _mapped(schema, lambda part: bounded(part, tokens))
    if "enum" in schema or "const" in schema:
        return held
    types = _types(schema)
    if "string" in types and not any(key in schema for key in _OWN_BOUND):
        held["maxLength"] = max(CHARACTERS_PER_TOKEN * tokens, _count(schema, "minLength"))
    if "array" in types and "maxItems" not in schema:
        fits = tokens // max(1, _least_tokens(schema.get("items")))
        first: list[Any] = _of_kind(schema, "prefixItems", [])
        least = max(_count(schema, "minItems"), len(first))
        held["maxItems"] = max(fits, least, 1)
    return held


def _mapped(schema: Mapping[str, Any], change: Callable[[Any], Any]) -> dict[str, Any]:
    """``schema`` with each schema in it changed."""
    held = dict(schema)
    for key, part in schema.items():
        if key in _PARTS:
            held[key] = change(part)
        elif key in _LISTS and isinstance(part, list):
            held[key] = [change(member) for member in part]
        elif key in _MAPS and isinstance(part, Mapping):
            held[key] = {name: change(member) for name, member in part.items()}
    return held


def _least_tokens(schema: Any) -> int:
    """Tokens of the shortest JSON that is valid by ``schema``, or fewer."""
    if not isinstance(schema, Mapping):
        return 1
    values: list[Any] = _of_kind(schema, "enum", [])
    if values:
        return (
            min(len(json.dumps(value, ensure_ascii=False)) for value in values)
            // (CHARACTERS_PER_TOKEN)
            + 1
        )
    return min((_least_of_type(kind, schema) for kind in _types(schema)), default=1)


def _least_of_type(kind: str, schema: Mapping[str, Any]) -> int:
    if kind == "array":
        return _BRACKETS + _count(schema, "minItems") * _least_tokens(schema.get("items"))
    if kind == "object":
        properties: dict[str, Any] = _of_kind(schema, "properties", {})
        names: list[Any] = _of_kind(schema, "required", [])
        required = (properties.get(str(name)) for name in names)
        return _BRACKETS + sum(_MEMBER + _least_tokens(part) for part in required)
    return _OF_TYPE.get(kind, 1)


def _types(schema: Mapping[str, Any]) -> list[str]:
    types = schema.get("type")
    return [str(kind) for kind in types] if isinstance(types, list) else [str(types)]


def _count(schema: Mapping[str, Any], key: str) -> int:
    return _of_kind(schema, key, 0)


def _of_kind(schema: Mapping[str, Any], key: str, default: T) -> T:
    """A value of the kind of ``default``, which takes the place of any other."""
    value = schema.get(key)
    return value if isinstance(value, type(default)) else default
