"""JSON schema bounds: lists and strings that a schema leaves open, bounded by a token budget.

Weak models repeat items of a list for as long as they may. A list that can hold no more than fits
ends by itself, and what stands behind it is still written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

CHARACTERS_PER_TOKEN = 2
"""Of text as models write it, Chinese included, about the least. English has twice as many, so that
a sentence of a usual length never meets its bound."""

_PARTS = ("items", "additionalProperties", "contains")  # that are schemas
_LISTS = ("prefixItems", "anyOf", "oneOf", "allOf")  # of schemas
_MAPS = ("properties", "patternProperties", "$defs", "definitions")  # of schemas
_OWN_BOUND = ("maxLength", "pattern", "format", "enum", "const", "$ref")


def bounded(schema: Any, tokens: int) -> Any:
    """``schema`` with ``maxLength`` for strings and ``maxItems`` for lists that have none, so that
    neither can alone take more than ``tokens``. What is valid by it is valid by ``schema``."""
    room = CHARACTERS_PER_TOKEN * tokens
    if not isinstance(schema, Mapping):
        return schema
    held = _mapped(schema, lambda part: bounded(part, tokens))
    types = schema.get("type")
    named = types if isinstance(types, list) else [types]
    if any(key in schema for key in ("enum", "const")):
        return held
    if "string" in named and not any(key in schema for key in _OWN_BOUND):
        held["maxLength"] = max(room, _count(schema, "minLength"))
    if "array" in named and "maxItems" not in schema:
        each = _least_characters(schema.get("items", True)) + len(", ")
        least = max(_count(schema, "minItems"), len(schema.get("prefixItems", ())))
        held["maxItems"] = max(room // each, least, 1)
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


def _least_characters(schema: Any) -> int:
    """Characters of the shortest JSON that is valid by ``schema``, or fewer."""
    if not isinstance(schema, Mapping):
        return 1
    if "enum" in schema and isinstance(schema["enum"], list):
        return min((len(json.dumps(value)) for value in schema["enum"]), default=1)
    types = schema.get("type")
    named = types if isinstance(types, list) else [types]
    return min(_least_of_type(kind, schema) for kind in named) if named else 1


def _least_of_type(kind: Any, schema: Mapping[str, Any]) -> int:
    if kind == "string":
        return len('""') + _count(schema, "minLength")
    if kind == "array":
        each = _least_characters(schema.get("items", True)) + len(", ")
        return max(len("[]"), _count(schema, "minItems") * each)
    if kind == "object":
        properties = schema.get("properties", {})
        required = schema.get("required", ())
        members = [
            len(json.dumps(name)) + len(": , ") + _least_characters(properties.get(name, True))
            for name in required
        ]
        return max(len("{}"), sum(members))
    return 1


def _count(schema: Mapping[str, Any], key: str) -> int:
    value = schema.get(key, 0)
    return value if isinstance(value, int) else 0
