"""Schema validation of replies that no grammar held to their form: those of a backend that cannot.

The grammar that would have held a reply judges it, so no further library is needed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..constraints import ONE_LINE, target
from ..errors import Unavailable
from ..types import Constraint


def mismatch(value: Any, constraint: Constraint) -> str:
    """Why the JSON ``value`` is not of the form of ``constraint``, a JSON schema, in a sentence;
    empty where it is. Keys of objects may come in any order. Raises ``Unavailable`` where that
    cannot be told: without llguidance, and for a schema that no grammar can be made of."""
    schema = json.loads(constraint.source)
    matcher = _matcher({} if schema is True else schema)
    try:
        text = json.dumps(_in_order(value, schema, schema), ensure_ascii=False)
    except RecursionError as error:
        raise Unavailable("Its form refers to itself in a circle.") from error
    written = text.encode()
    count = matcher.validate_tokens(list(written))
    if count == len(written) and matcher.consume_tokens(list(written)) and matcher.is_accepting():
        return ""
    before = written[:count].decode(errors="ignore")
    after = text[len(before) :]
    return f"It is not of the form asked for, from the mark on: {before[-40:]} ► {after[:40]}"


def _matcher(schema: Any) -> Any:
    try:
        from llguidance import LLMatcher, LLTokenizer
    except ImportError as error:
        raise Unavailable("The package llguidance is not installed.") from error
    try:
        grammar = LLMatcher.grammar_from_json_schema(schema, overrides=ONE_LINE)
        matcher = LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
    except ValueError as error:
        raise Unavailable(str(error)) from error
    if matcher.is_error():
        raise Unavailable(matcher.get_error().splitlines()[0])
    return matcher


def _in_order(value: Any, schema: Any, whole: Any) -> Any:
    """``value`` with the keys of its objects in the order of the schema's properties, in which a
    grammar expects them. ``whole``: the schema that references are looked up in."""
    if not isinstance(schema, Mapping):
        return value
    if isinstance(reference := schema.get("$ref"), str):
        return _in_order(value, target(whole, reference), whole)
    for name in ("allOf", "anyOf", "oneOf"):
        # The one that knows most of its keys last: its order stays.
        for part in sorted(schema.get(name) or (), key=lambda part: _known(value, part, whole)):
            value = _in_order(value, part, whole)
    if isinstance(value, list):
        return [_in_order(item, schema.get("items"), whole) for item in value]
    properties = schema.get("properties")
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return value
    names = [*(name for name in properties if name in value), *value]
    return {name: _in_order(value[name], properties.get(name), whole) for name in names}


def _known(value: Any, schema: Any, whole: Any) -> int:
    """How many keys of an object a part of a schema has a property for."""
    if isinstance(schema, Mapping) and isinstance(reference := schema.get("$ref"), str):
        schema = target(whole, reference)
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(value, dict) or not isinstance(properties, Mapping):
        return 0
    return sum(name in properties for name in value)
