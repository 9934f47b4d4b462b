"""Extract with a scripted model, and with the bundled one for what only a real one shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from qwen_vl_suite.nodes.model import ModelHandle
from qwen_vl_suite.qwenvl.checkpoints.library import BUNDLED
from qwen_vl_suite.qwenvl.errors import BadOption, OutOfMemory, UnreadableReply
from qwen_vl_suite.qwenvl.types import LocalSpec, Response

Run = Callable[..., tuple[Any, ...]]
GIVEN = {"title": "Tea", "price": None}


def test_each_picture_gets_one_json_text_in_order(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    values = [{"title": title, "price": None} for title in ("a", "猫", "c")]
    model, backend = scripted(*map(json.dumps, values))
    texts, complete = run_node("QVL_Extract", model=model, images=pictures, fields="title, price")
    assert [json.loads(text) for text in texts] == values and "猫" in texts[1]
    assert complete == [True, True, True]
    assert backend.batches == [3]


def test_each_widget_changes_what_is_asked(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted('{"title": "Tea"}')

    def asked(**widgets: Any) -> Any:
        run_node("QVL_Extract", model=model, images=pictures[:1], **widgets)
        return backend.requests[-1]

    keys = asked(form="keys", fields="title")
    example = asked(form="example", fields='{"title": "x"}')
    schema = asked(form="schema", fields='{"type": "object"}')
    kinds = [json.loads(request.constraint.source) for request in (keys, example, schema)]
    assert kinds[0]["properties"]["title"] == {"type": ["string", "null"]}
    assert kinds[1]["properties"]["title"] == {"type": "string"}
    assert kinds[2] == {"type": "object"}
    own = asked(fields="title", prompt="What is sold?", max_new_tokens=9)
    assert own.prompt.startswith("What is sold?\n") and own.sampling.max_new_tokens == 9
    assert own.sampling.temperature == 0


def test_lists_of_forms_go_with_lists_of_pictures(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted('{"a": "1"}', '{"b": "2"}')
    lists = {"images": [pictures[:1], pictures[1:2]], "fields": ["a", "b"]}
    texts, _ = run_node("QVL_Extract", model=model, lists=lists)
    assert texts == ['{"a": "1"}', '{"b": "2"}']
    assert backend.batches == [2]


def test_what_was_cut_is_marked_and_keeps_what_is_whole(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    cut = Response('{"items": [{"n": 1}, {"n": 2}, {"n":', finish_reason="length")
    model, _ = scripted('{"items": []}', cut)
    fields = '{"items": [{"n": 1}]}'
    texts, complete = run_node(
        "QVL_Extract", model=model, images=pictures[:2], form="example", fields=fields
    )
    assert texts == ['{"items": []}', '{"items": [{"n": 1}, {"n": 2}]}']
    assert complete == [True, False]


def test_to_keep_going_leaves_json_for_every_picture(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    replies = (json.dumps(GIVEN), "I see tea.", OutOfMemory("too large"))
    model, _ = scripted(*replies)
    given = {"model": model, "images": pictures, "fields": "title, price"}
    texts, complete = run_node("QVL_Extract", when_unreadable="keep going", **given)
    first, second, third = map(json.loads, texts)
    assert (first, second) == (GIVEN, {"unreadable": "I see tea."})
    assert third["error"] and complete == [True, False, False]
    model, _ = scripted(json.dumps(GIVEN), "I see tea.", json.dumps(GIVEN))
    with pytest.raises(UnreadableReply, match="picture 2 of 3"):
        run_node("QVL_Extract", **{**given, "model": model})


RECURSIVE = {"type": "array", "items": {"$ref": "#"}, "minItems": 1}
BAD_FORMS = {
    "broken JSON": ("schema", '{"type": "object"', "not valid JSON"),
    "no schema": ("schema", "[1]", "is an object"),
    "an unknown type": ("schema", '{"type": "strong"}', "strong"),
    "a contradiction": ("schema", '{"type": "integer", "minimum": 5, "maximum": 2}', "greater"),
    "two types at once": ("schema", '{"allOf": [{"type": "null"}, {"type": "array"}]}', "types"),
    "no choice": ("schema", '{"enum": []}', "empty"),
    "false": ("schema", "false", "no answer is valid"),
    "what cannot be enforced": ("schema", '{"uniqueItems": true, "type": "array"}', "uniqueItems"),
    "a reference to nowhere": ("schema", '{"$ref": "#/$defs/none"}', "none"),
    "a reference abroad": ("schema", '{"$ref": "https://example.com/a.json"}', "example.com"),
    "a circle": ("schema", '{"$ref": "#"}', "without end"),
    "recursion without end": ("schema", json.dumps(RECURSIVE), "without end"),
    "a megabyte": ("schema", json.dumps({"enum": ["word " * 200_000]}), "too long"),
    "a pattern": ("schema", '{"type": "string", "pattern": "("}', "unclosed group"),
    "no keys": ("keys", " ,, \n", "at least one key"),
    "a key twice": ("keys", "a, b, a", "a comes more often"),
    "nothing": ("keys", "", "Nothing to extract"),
    "a broken example": ("example", "{'a': 1}", "not valid JSON"),
    "another form": ("xml", "<a/>", "Choose one of: keys, example, schema"),
}


@pytest.mark.parametrize(("kind", "fields", "words"), BAD_FORMS.values(), ids=BAD_FORMS)
def test_a_bad_form_is_an_error_in_words(
    run_node: Run, nano: ModelHandle, pictures: torch.Tensor, kind: str, fields: str, words: str
) -> None:
    with pytest.raises(BadOption, match=words) as caught:
        run_node("QVL_Extract", model=nano, images=pictures[:1], form=kind, fields=fields)
    assert len(str(caught.value)) < 400


TREE = {
    "$defs": {
        "node": {
            "type": "object",
            "properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            "required": ["kids"],
            "additionalProperties": False,
        }
    },
    "$ref": "#/$defs/node",
}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("keys", "标题，价格、颜色"),
        ("schema", json.dumps(TREE)),
        ("example", '{"a": [], "b": null}'),
    ],
)
def test_a_picture_of_nothing_gets_a_valid_answer(
    run_node: Run, nano: ModelHandle, kind: str, fields: str
) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from qwen_vl_suite.qwenvl.tasks.extract import form

    blank = torch.ones(1, 64, 64, 3)
    (text,), (complete,) = run_node(
        "QVL_Extract", model=nano, images=blank, form=kind, fields=fields, max_new_tokens=24
    )
    value = json.loads(text)
    if complete:
        jsonschema.validate(value, json.loads(form(kind, fields).source))
    else:
        assert isinstance(value, (dict, list)) or value is None


@pytest.fixture(scope="module")
def nano() -> ModelHandle:
    """The bundled model: what a grammar can be made of is told by its tokenizer."""
    return ModelHandle(LocalSpec(str(BUNDLED), device="cpu"))
