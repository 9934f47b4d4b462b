"""Bounds of open lists and strings. No model needed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from qwen_vl_suite.qwenvl.schema_bounds import CHARACTERS_PER_TOKEN, bounded

ROOM = CHARACTERS_PER_TOKEN * 100
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "bound"),
    [
        (TEXT, ROOM),
        ({"type": ["string", "null"]}, ROOM),
        ({"type": "string", "minLength": 9000}, 9000),
        ({"type": "string", "maxLength": 3}, None),
        ({"type": "string", "pattern": "a*"}, None),
        ({"type": "string", "enum": ["a", "b"]}, None),
        ({"enum": [["a"], "b"]}, None),
        ({"type": "array", "maxItems": 2}, None),
        ({"type": "integer"}, None),
        ({}, None),
        (True, None),
    ],
)
def test_strings_without_a_bound_get_one(schema: Any, bound: int | None) -> None:
    expected = schema if bound is None else {**schema, "maxLength": bound}
    assert bounded(schema, 100) == expected


def item(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties)}


BOX = {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4}


@pytest.mark.parametrize(
    ("items", "text"),
    [
        (item(bbox_2d=BOX, label=TEXT), '{"bbox_2d": [1, 2, 3, 4], "label": "cat"}, '),
        (item(名称=TEXT, 价格={"type": "number"}), '{"名称": "", "价格": 1}, '),
        ({"enum": ["a rather long text of many words"]}, '"a rather long text of many words", '),
        (TEXT, '"", '),
        ({"type": "integer"}, "1, "),
    ],
)
def test_no_list_is_cut_that_could_be_written(items: Any, text: str) -> None:
    """The makers' tokenizer cuts words, marks, each with the blank before, and single digits."""
    most = bounded({"type": "array", "items": items}, 1000)["maxItems"]
    tokens = re.findall(r" ?[^\W\d_]+|\d| ?[^\w\s]+|_|\s", text)
    assert 1000 // len(tokens) <= most <= 500


def test_bounds_reach_every_part() -> None:
    for schema in (
        {"properties": {"a": TEXT}},
        {"$defs": {"a": TEXT}, "$ref": "#/$defs/a"},
        {"anyOf": [TEXT, {"type": "null"}]},
        {"additionalProperties": TEXT},
        {"type": "array", "prefixItems": [TEXT, TEXT]},
    ):
        assert json.dumps(bounded(schema, 100)).count(f'"maxLength": {ROOM}') == (
            json.dumps(schema).count('"string"')
        )


def test_a_list_may_always_be_as_long_as_it_must() -> None:
    held = bounded({"type": "array", "items": TEXT, "minItems": 999}, 1)
    assert held["maxItems"] == 999


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "prefixItems": 5},
        {"type": "array", "items": {"type": "object", "required": True}},
        {"type": "array", "items": {"type": "object", "required": [["a"]], "properties": ["a"]}},
        {"type": "array", "items": {"enum": 3}, "minItems": "many"},
        {"type": {"a": 1}, "properties": 4, "anyOf": {}},
        {"type": [["string"]], "minLength": None},
    ],
)
def test_what_is_no_schema_is_left_to_the_compiler(schema: Any) -> None:
    held = bounded(schema, 100)
    assert {key: held[key] for key in schema} == schema
