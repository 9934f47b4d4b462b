"""Constrained decoding: answers keep to their form, whatever the model would write."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from asking import ask, picture
from qwen_vl_suite.qwenvl import constraints
from qwen_vl_suite.qwenvl.backends.local import LocalBackend
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.types import Constraint, Request

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


def test_a_thought_is_free_and_the_answer_is_not(backend: Callable[..., LocalBackend]) -> None:
    request = held(YES_NO, max_thinking_tokens=12)
    (response,) = backend("qwen3_vl", "always").generate([request])
    assert response.thinking and response.text in ("yes", "no")


@pytest.mark.parametrize(
    ("constraint", "words"),
    [
        (Constraint("json_schema", '{"type": "array", "uniqueItems": true}'), "uniqueItems"),
        (Constraint("regex", "[0-9"), "regular expression"),
        (Constraint("lark", "begin: /a/"), "grammar"),
        (Constraint("json_schema", "false"), "no answer is valid"),
    ],
)
def test_what_cannot_be_enforced_is_refused_before_the_model_runs(
    constraint: Constraint, words: str, backend: Callable[..., LocalBackend]
) -> None:
    with pytest.raises(BadOption, match=words):
        backend("qwen3_vl").generate([held(constraint)])
