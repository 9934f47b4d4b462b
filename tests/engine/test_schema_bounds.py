"""Bounds of open lists and strings. No model needed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from qwen_vl_suite.qwenvl.schema_bounds import CHARACTERS_PER_TOKEN, bounded

ROOM = CHARACTERS_PER_TOKEN * 100
TEXT = {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        (TEXT, {"type": "string", "maxLength": ROOM}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"], "maxLength": ROOM}),
        ({"type": "string", "minLength": 900}, {"type": "string", "minLength": 900}),
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
def test_what_has_no_bound_gets_one(schema: Any, expected: Any) -> None:
    held = bounded(schema, 100)
    if expected is None:
        assert held == schema
    else:
        assert {**held, **expected} == held
        assert held["maxLength"] >= max(ROOM, held.get("minLength", 0))


def test_items_are_counted_by_their_least_length() -> None:
    box = {"type": "array", "items": {"type": "integer"}, "minItems": 4, "maxItems": 4}
    item = {"type": "object", "properties": {"bbox_2d": box, "label": TEXT}}
    item["required"] = ["bbox_2d", "label"]
    held = bounded({"type": "array", "items": item}, 100)
    shortest = json.dumps({"bbox_2d": [1, 1, 1, 1], "label": ""}) + ", "
    assert held["maxItems"] == ROOM // len(shortest)
    assert held["items"]["properties"]["label"]["maxLength"] == ROOM
    assert held["items"]["properties"]["bbox_2d"] == box


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
