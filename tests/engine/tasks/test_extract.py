"""Extract: what is asked, and replies that no grammar held to their form. No model needed."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl import constraints, run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption, UnreadableReply
from qwen_vl_suite.qwenvl.tasks.extract import FORMS, extract, form
from qwen_vl_suite.qwenvl.types import Constraint, Response, Result

PICTURE = torch.zeros(3, 56, 56, dtype=torch.uint8)
THING = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "n": {"type": "integer", "maximum": 9}},
    "required": ["name", "n"],
    "additionalProperties": False,
}
NESTED = {"$defs": {"thing": THING}, "type": "array", "items": {"$ref": "#/$defs/thing"}}

OTHER = {**THING, "properties": {"name": {"type": "string"}, "m": {"type": "integer"}}}
OTHER["required"] = ["m", "name"]
EITHER = {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/thing"}, OTHER]}}
EITHER["$defs"] = {"thing": THING}


def answered(reply: Any, constraint: Constraint) -> Result:
    (result,) = run.answer(ScriptedBackend(reply), extract(constraint), [PICTURE])
    return result


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("keys", "name, n"),
        ("keys", "name\nn\n"),
        ("example", '{"name": "a", "n": "b"}'),
        ("schema", json.dumps(THING)),
    ],
)
def test_a_form_is_given_in_one_of_several_ways(kind: str, text: str) -> None:
    schema = json.loads(form(kind, text).source)
    assert list(schema["properties"]) == schema["required"] == ["name", "n"]


@pytest.mark.parametrize("kind", FORMS)
@pytest.mark.parametrize("text", ["", " \n"])
def test_an_empty_form_says_how_one_looks(kind: str, text: str) -> None:
    with pytest.raises(BadOption, match=r"Nothing to extract was named.*such as"):
        form(kind, text)


def test_keys_are_asked_for_by_name_and_other_forms_whole() -> None:
    keys = extract(form("keys", "标题, price"))
    assert "标题, price" in keys.prompt and "properties" not in keys.prompt
    own = extract(form("keys", "price"), "How much is it?")
    assert own.prompt.startswith("How much is it?\n") and '"price"' in own.prompt


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (THING, {"name": "猫 \n \u0001", "n": 3}),
        (THING, {"n": 3, "name": "keys in any order"}),
        (NESTED, [{"n": 1, "name": "a"}, {"name": "b", "n": 2}]),
        ({"anyOf": [THING, {"type": "null"}]}, {"n": 1, "name": "a"}),
        (EITHER, [{"n": 1, "name": "a"}, {"m": 2, "name": "b"}]),
        (True, {"any": ["thing"]}),
    ],
)
def test_a_reply_that_nothing_held_is_taken_where_it_is_valid(schema: Any, value: Any) -> None:
    result = answered(json.dumps(value), constraints.from_schema(schema))
    assert (result.data, result.notes, result.is_complete) == (value, (), True)


@pytest.mark.parametrize(
    ("value", "before", "after"),
    [
        ({"name": "a"}, '{"name": "a"', "}"),
        ({"name": "a", "n": 10}, '{"name": "a", "n": 1', "0}"),
        ({"name": "a", "n": 1, "more": 2}, '{"name": "a", "n": 1', ', "more": 2}'),
        ([1], "", "[1]"),
    ],
)
def test_a_reply_of_another_form_is_unreadable_and_says_where(
    value: Any, before: str, after: str
) -> None:
    with pytest.raises(UnreadableReply) as caught:
        answered(json.dumps(value), constraints.from_schema(THING))
    assert f": {before} ► {after}" in str(caught.value)


def test_a_reply_that_was_held_is_not_judged_again() -> None:
    reply = Response('{"name": 1}', held=True)
    assert answered(reply, constraints.from_schema(THING)).data == {"name": 1}


@pytest.mark.parametrize(
    ("schema", "lacking", "words"),
    [
        (THING, True, "llguidance is not installed"),
        ({"type": "array", "uniqueItems": True}, False, "uniqueItems"),
        ({"anyOf": [{"$ref": "#"}, {"type": "array"}]}, False, "in a circle"),
    ],
)
def test_what_cannot_be_judged_is_said_in_the_answer(
    schema: Any, lacking: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking:
        monkeypatch.setitem(sys.modules, "llguidance", None)
    result = answered("[1]", constraints.from_schema(schema))
    (note,) = result.notes
    assert result.data == [1] and "not held to its form" in note and words in note


def test_an_answer_that_was_cut_keeps_what_is_whole_and_is_not_complete() -> None:
    reply = Response('[{"name": "a", "n": 1}, {"name": "b", ', finish_reason="length")
    result = answered(reply, constraints.from_schema(NESTED))
    assert json.loads(result.text) == [{"name": "a", "n": 1}] and not result.is_complete
