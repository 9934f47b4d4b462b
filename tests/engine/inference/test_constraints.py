"""Constrained decoding: answers keep to their form, whatever the model would write."""

from __future__ import annotations

import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
from asking import ask, picture
from qwen_vl_suite.qwenvl import constraints
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.errors import BadOption, Unavailable
from qwen_vl_suite.qwenvl.inference import constraints as grammars
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.types import Constraint, LocalSpec, Request

pytest.importorskip("llguidance")

SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": ["cat", "dog"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 99},
        "name": {"type": "string", "maxLength": 6},
    },
    "required": ["kind", "count", "name"],
    "additionalProperties": False,
}
YES_NO = constraints.from_choices(["yes", "no"])


def held(constraint: Constraint, tokens: int = 120, **sampling: Any) -> Request:
    request = ask("What is it?", picture(64, 64), tokens=tokens, **sampling)
    return Request(request.messages, request.sampling, constraint=constraint)


@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "qwen3_5"])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_json_is_valid_by_its_schema(
    family: str, temperature: float, backend: Callable[..., LocalBackend]
) -> None:
    schema = constraints.from_schema(SCHEMA)
    asked = [held(schema, temperature=temperature, seed=seed) for seed in range(4)]
    for response in backend(family).generate(asked):
        value = json.loads(response.text)
        assert list(value) == ["kind", "count", "name"]
        assert value["kind"] in ("cat", "dog") and 0 <= value["count"] <= 99
        assert len(value["name"]) <= 6 and response.finish_reason == "stop"


def test_each_row_of_a_batch_has_its_own_form_or_none(
    backend: Callable[..., LocalBackend],
) -> None:
    subject = backend("qwen3_vl")
    asked = [
        held(YES_NO),
        ask("What is it?", picture(64, 64), tokens=12),
        held(constraints.from_regex("[0-9]{3}-[0-9]{2}")),
        held(constraints.from_lark('start: "a" "b"+ "c"'), temperature=1.0, seed=3),
        held(constraints.from_schema(SCHEMA), repetition_penalty=1.3),
    ]
    alone = [subject.generate([request])[0] for request in asked]
    assert alone[0].text in ("yes", "no")
    assert re.fullmatch("[0-9]{3}-[0-9]{2}", alone[2].text)
    assert re.fullmatch("ab+c", alone[3].text)
    assert json.loads(alone[4].text)["kind"] in ("cat", "dog")
    for rows in (2, 5):
        subject.batch_limits = BatchLimits(rows=rows)
        assert subject.generate(asked) == alone
    subject.batch_limits = BatchLimits()


def test_steps_on_cuda_keep_to_the_form_too(
    backend: Callable[..., LocalBackend], cuda_policy: Any
) -> None:
    asked = [held(constraints.from_schema(SCHEMA)), held(YES_NO)]
    whole, choice = backend("qwen3_vl").generate(asked)
    assert json.loads(whole.text)["kind"] in ("cat", "dog") and choice.text in ("yes", "no")


def test_the_plain_executor_keeps_to_the_form_too(checkpoint: Callable[..., Path]) -> None:
    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu", optimize="off"))
    (response,) = subject.generate([held(constraints.from_schema(SCHEMA))])
    assert json.loads(response.text)["kind"] in ("cat", "dog")


def test_a_thought_is_free_and_the_answer_is_not(backend: Callable[..., LocalBackend]) -> None:
    request = held(YES_NO, max_thinking_tokens=12)
    (response,) = backend("qwen3_vl", "always").generate([request])
    assert response.thinking and response.text in ("yes", "no")


def test_without_llguidance_the_error_names_its_pip_line(
    backend: Callable[..., LocalBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammars, "_GRAMMARS", WeakKeyDictionary())
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(Unavailable, match="pip install llguidance"):
        backend("qwen3_vl").generate([held(YES_NO)])


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (Constraint("json_schema", '{"type": "array", "uniqueItems": true}'), "uniqueItems"),
        (Constraint("json_schema", '{"not": {"type": "string"}}'), "not"),
        (Constraint("regex", "[0-9"), "regular expression: unclosed character class"),
        (Constraint("lark", "begin: /a/"), "grammar"),
        (Constraint("json_schema", "false"), "no answer is valid"),
    ],
)
def test_what_cannot_be_enforced_is_refused_before_the_model_runs(
    constraint: Constraint, words: str, backend: Callable[..., LocalBackend]
) -> None:
    with pytest.raises(BadOption, match=words):
        backend("qwen3_vl").generate([held(constraint)])


def random_schema(some: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema of what people ask for, with nothing in it that could go on without end."""
    kinds = ["string", "enum", "integer", "number", "boolean", "nullable", "date"]
    kind = some.choice([*kinds, *(["array", "object", "anyOf"] * 2 if depth else [])])
    if kind == "array":
        least = some.randint(0, 2)
        items = random_schema(some, depth - 1)
        return {"type": "array", "items": items, "minItems": least, "maxItems": least + 2}
    if kind == "anyOf":
        return {"anyOf": [random_schema(some, depth - 1) for _ in range(2)]}
    if kind == "object":
        names = some.sample(["a", "b c", "名", 'q"', "e", "$f"], some.randint(1, 3))
        return {
            "type": "object",
            "properties": {name: random_schema(some, depth - 1) for name in names},
            "required": some.sample(names, some.randint(0, len(names))),
            "additionalProperties": False,
        }
    return {
        "string": {"type": "string", "minLength": some.randint(0, 2), "maxLength": 6},
        "enum": {"enum": some.sample(["x", 'y "z"', 3, None, True, "猫\n"], 3)},
        "integer": {"type": "integer", "minimum": -5, "maximum": some.randint(0, 999)},
        "number": {"type": "number", "minimum": 0, "maximum": 1},
        "boolean": {"type": "boolean"},
        "nullable": {"type": ["string", "null"], "maxLength": 4},
        "date": {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}$"},
    }[kind]


def test_whole_answers_are_valid_by_any_schema(backend: Callable[..., LocalBackend]) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    some = random.Random(11)
    schemas = [random_schema(some) for _ in range(300)]
    asked = [
        held(constraints.from_schema(schema), tokens=100, temperature=1.0, seed=index)
        for index, schema in enumerate(schemas)
    ]
    responses = backend("qwen3_vl").generate(asked)
    whole = [index for index, response in enumerate(responses) if response.finish_reason == "stop"]
    assert len(whole) > 250
    for index in whole:
        jsonschema.validate(json.loads(responses[index].text), schemas[index])
