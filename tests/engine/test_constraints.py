"""Constraints from what users write. No model needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from qwen_vl_suite.qwenvl import constraints
from qwen_vl_suite.qwenvl.errors import BadOption


def schema_of(constraint: Any) -> Any:
    assert constraint.kind == "json_schema"
    return json.loads(constraint.source)


def nested(key: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for _ in range(200_000):
        found = {key: found}
    return found


def test_keys_become_an_object_of_strings_or_null() -> None:
    schema = schema_of(constraints.from_keys([" title", "价格", ""]))
    assert list(schema["properties"]) == schema["required"] == ["title", "价格"]
    assert schema["additionalProperties"] is False
    assert schema["properties"]["价格"] == {"type": ["string", "null"]}


def test_an_example_gives_types_and_the_order_of_keys() -> None:
    example = {"b": 1, "a": [{"x": 0.5, "ok": True}], "c": None, "d": [], "e": "text"}
    schema = schema_of(constraints.from_example(json.dumps(example)))
    kinds = schema["properties"]
    assert schema["required"] == list("bacde")
    assert kinds["b"] == {"type": "integer"} and kinds["e"] == {"type": "string"}
    item = kinds["a"]["items"]["properties"]
    assert item == {"x": {"type": "number"}, "ok": {"type": "boolean"}}
    assert kinds["d"] == {"type": "array"} and "null" in kinds["c"]["type"]


def test_choices_are_taken_word_for_word() -> None:
    constraint = constraints.from_choices(['say "no"', "a|b", 'say "no"'])
    assert constraint.source == 'start: "say \\"no\\"" | "a|b"'


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: constraints.from_schema("{'a': 1}"), "not valid JSON"),
        (lambda: constraints.from_schema("[" * 100_000), "not valid JSON"),
        (lambda: constraints.from_schema("3"), "is an object"),
        (lambda: constraints.from_schema(nested("items")), "nests too deeply"),
        (lambda: constraints.from_example([nested("a")]), "nests too deeply"),
        (lambda: constraints.from_schema({"const": "x" * 1_000_000}), "too long"),
        (lambda: constraints.from_keys([" ", ""]), "at least one key"),
        (lambda: constraints.from_keys(["a", "b", "a"]), "a comes more often"),
        (lambda: constraints.from_keys(constraints.split_keys("猫，犬、\n, 猫")), "猫 comes"),
        (lambda: constraints.from_example("{"), "not valid JSON"),
        (lambda: constraints.from_choices([]), "at least one choice"),
        (lambda: constraints.from_regex(""), "empty"),
        (lambda: constraints.from_lark(" \n"), "empty"),
    ],
)
def test_what_makes_no_constraint_is_refused_in_words(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(BadOption, match=words):
        make()


def list_of_itself(**more: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"$ref": "#"}, **more}


def object_of_itself(**more: Any) -> dict[str, Any]:
    properties = {"x": {"type": "integer"}, "kid": {"$ref": "#/$defs/a~1b"}}
    node = {"type": "object", "properties": properties, "required": ["x", "kid"], **more}
    return {"$defs": {"a/b": node}, "$ref": "#/$defs/a~1b"}


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        list_of_itself(minItems=1),
        object_of_itself(),
        {"allOf": [{"type": "object"}, {"$ref": "#"}]},
        {"anyOf": [list_of_itself(minItems=2), {"$ref": "#"}]},
    ],
)
def test_a_schema_by_which_no_answer_ends_is_refused(schema: dict[str, Any]) -> None:
    with pytest.raises(BadOption, match="refers to itself without end"):
        constraints.from_schema(schema)


@pytest.mark.parametrize(
    "schema",
    [
        list_of_itself(),
        object_of_itself(required=["x"]),
        object_of_itself(type=["object", "null"]),
        {"anyOf": [list_of_itself(minItems=2), {"type": "null"}]},
        {"type": "object", "properties": {"$ref": {"type": "string"}}, "required": [["odd"]]},
    ],
)
def test_a_schema_may_refer_to_itself(schema: dict[str, Any]) -> None:
    assert schema_of(constraints.from_schema(schema)) == schema
