"""Constrained decoding: answers keep to their form, whatever the model would write."""

from __future__ import annotations

import copy
import dataclasses
import json
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import pytest
import tiny
import torch
from asking import Always, Never, ask, counted, picture
from hypothesis import given, settings
from hypothesis import strategies as st
from interrupting import Interrupt
from qwen_vl_suite.qwenvl import constraints, run
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.errors import BadOption, Unavailable
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.inference import constraints as grammars
from qwen_vl_suite.qwenvl.inference.active_request import ActiveRequest
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.inference.model_runner import ModelRunner
from qwen_vl_suite.qwenvl.inference.speculative.verify import MAX_DRAFT_TOKENS
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.schema_bounds import bounded
from qwen_vl_suite.qwenvl.tasks import act, choose
from qwen_vl_suite.qwenvl.tasks.screen_tools import TOOLS
from qwen_vl_suite.qwenvl.tasks.tool_prompts import call_constraint
from qwen_vl_suite.qwenvl.types import Constraint, LocalSpec, ReplyContext, Request, Response

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


@pytest.mark.parametrize("lagging", [False, True])
def test_an_interrupt_of_a_held_answer_leaves_nothing_behind(
    request: pytest.FixtureRequest, backend: Callable[..., LocalBackend], lagging: bool
) -> None:
    """Forms are kept from call to call: the next answer begins at the beginning of its own."""
    if lagging:
        request.getfixturevalue("cuda_policy")
    subject, schema = backend("qwen3_vl"), constraints.from_schema(SCHEMA)
    asked = [held(schema), ask("What is it?", picture(64, 64)), held(YES_NO)]
    expected = subject.generate(asked)

    class InMidst(Observer):
        """Stops at the ``left``-th token of the held answer."""

        def __init__(self, left: int):
            self.left = left

        def token(self, index: int, text: str) -> None:
            self.left -= index == 0
            if not self.left:
                raise Interrupt

    for tokens in (1, 4):
        with pytest.raises(Interrupt):
            subject.generate(asked, InMidst(tokens))
        assert subject.generate(asked) == expected


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


def test_steps_on_cuda_are_run_for_somebody(
    backend: Callable[..., LocalBackend], cuda_policy: Any
) -> None:
    """The last token of an answer that is held to a form is known before the next step."""
    with counted() as counts:
        (response,) = backend("qwen3_vl").generate([held(YES_NO)])
    assert response.finish_reason == "stop"
    # The first token comes with the prompt, and the end token is no part of the answer.
    assert counts["launches"] + counts["tokens"] == len(response.tokens)


def test_the_plain_executor_keeps_to_the_form_too(checkpoint: Callable[..., Path]) -> None:
    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu", optimize="off"))
    (response,) = subject.generate([held(constraints.from_schema(SCHEMA))])
    assert json.loads(response.text)["kind"] in ("cat", "dog")


LIST = constraints.from_schema(
    {"type": "array", "minItems": 2, "maxItems": 2, "items": json.loads(json.dumps(SCHEMA))}
)
DRAFTED = [held(LIST), held(YES_NO), held(constraints.from_regex("(ab){20}c?"))]


@pytest.mark.usefixtures("step_policy")
@pytest.mark.parametrize("step_policy", ["as on the CPU", "as on CUDA"], indirect=True)
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "qwen3_5"])
def test_drafts_never_change_an_answer_that_is_held(
    family: str, backend: Callable[..., LocalBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drafts of forced tokens, by prompt lookup, and of anything; one row and several."""
    subject = backend(family)
    sources = ("adaptive_forced", "adaptive_lookup")
    for source in sources:
        monkeypatch.setattr(subject, source, Never())
    alone = [subject.generate([request])[0] for request in DRAFTED]
    assert json.loads(alone[0].text) and alone[2].text.startswith("ab" * 20)
    draw = random.Random(3)

    def anything(_active: ActiveRequest) -> list[int]:
        return [draw.randrange(200) for _ in range(draw.randrange(MAX_DRAFT_TOKENS + 1))]

    for tried in ("forced", "lookup", "anything"):
        for source in sources:
            named = source.endswith("forced" if tried == "forced" else "lookup")
            monkeypatch.setattr(subject, source, Always() if named else Never())
        if tried == "anything":
            monkeypatch.setattr(ActiveRequest, "draft", anything)
        for rows in (1, 3):
            monkeypatch.setattr(subject, "batch_limits", BatchLimits(rows=rows))
            assert subject.generate(DRAFTED) == alone, (tried, rows)


@pytest.mark.parametrize("family", tiny.CONFIGS)
def test_a_reply_that_fits_anyway_stays_the_same(
    family: str, backend: Callable[..., LocalBackend]
) -> None:
    """Of replies of random weights, as far as these happen to be text."""
    subject = backend(family)
    free = [ask(f"What is it, {number}?", picture(64, 64), tokens=4) for number in range(30)]
    anything = constraints.from_regex(r"(.|\n)*")
    asked = [dataclasses.replace(request, constraint=anything) for request in free]
    decode = subject.chat_template.tokenizer.decode  # special tokens too, as text

    def text_of(response: Response) -> tuple[int, ...]:
        words = map(decode, ([token] for token in response.ids))
        fits = [word.isascii() and 0 < len(word) < 4 for word in words]
        return response.ids[: [*fits, False].index(False)]

    texts = [text_of(response) for response in subject.generate(free)]
    if not any(texts):
        pytest.skip("these random weights write no text")
    for text, response in zip(texts, subject.generate(asked), strict=True):
        assert response.ids[: len(text)] == text


def test_what_a_grammar_forces_is_not_decoded_token_by_token(
    backend: Callable[..., LocalBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, passes = backend("qwen3_vl"), []
    step = ModelRunner.step

    def counted(self: ModelRunner, *given: Any) -> Any:
        passes[-1] += 1
        return step(self, *given)

    monkeypatch.setattr(ModelRunner, "step", counted)
    monkeypatch.setattr(subject, "adaptive_lookup", Never())
    for source in (Never(), Always()):
        passes.append(0)
        monkeypatch.setattr(subject, "adaptive_forced", source)
        (response,) = subject.generate([held(constraints.from_regex("The answer is (yes|no)!"))])
        assert response.text in ("The answer is yes!", "The answer is no!")
    assert passes[1] < passes[0] / 2


BOXES = constraints.from_items({"bbox_2d": (4,)}, "auto")
BOX = '{"bbox_2d": [1, 20, 300, 999], "label": "a cat"}'


@pytest.mark.parametrize(
    "reply",
    [
        f"```json\n[\n\t{BOX},\n\t{BOX}\n]\n```",
        f"```json\n[{BOX}, {BOX}]\n```",
        f"[\n  {BOX}\n]",
        f"Here they are: [{BOX}]",
        f"```json\n{BOX}\n```",
        '[{"label": "a \\"b\\"", "bbox_2d": [0.5, 0.25, 1, 1], "score": 0.5, "seen": true}]',
        '[\n    {\n        "bbox_2d": [1, 2, 3, 4],\n        "label": "x"\n    }\n]',
        "```json\n[]\n```",
        f"{BOX}\n{BOX}",
        f"[ {BOX}, {BOX} ]",
        f"```json\n[{BOX}]\n```\nAnd:\n```json\n[{BOX}]\n```",
        f"[{BOX}] and no more",
        "There is none [in this picture], I think.",
        'no { brackets [ that open "anything"',
        '```json\n{"nothing": "found"}\n```',
        '[{"bbox_2d": [], "label": "none"}]',
        '```json\n{"objects": [{"bbox": [1, 2, 3, 4]}]}\n```',
        "```python\nprint([1])\n```",
    ],
)
def test_a_reply_in_its_usual_form_stays_as_it_is(
    reply: str, backend: Callable[..., LocalBackend]
) -> None:
    template = backend("qwen3_vl").chat_template
    ids = template.tokenizer.encode(reply, add_special_tokens=False)
    matcher, words = grammars.matcher(BOXES, template, 200), torch.empty(100, dtype=torch.int32)
    for count, token in enumerate([*ids, min(template.eos_ids)]):
        matcher.follow(ids[:count])
        matcher.fill(words)
        assert words[token // 32] >> (token % 32) & 1, template.decode(ids[: count + 1])


@given(
    items=st.lists(
        st.fixed_dictionaries(
            {"bbox_2d": st.lists(st.integers(0, 1000) | st.floats(0, 1, width=16), min_size=4)},
            optional={"label": st.text(max_size=9), "": st.none() | st.booleans() | st.text()},
        ).map(lambda item: {**item, "bbox_2d": [round(x, 4) for x in item["bbox_2d"][:4]]}),
        max_size=3,
    ),
    indent=st.sampled_from([None, 2, "\t"]),
    ascii_only=st.booleans(),
    strict=st.sampled_from(["auto", "on"]),
)
@settings(max_examples=60)
def test_any_list_of_boxes_fits(
    items: Any, indent: Any, ascii_only: bool, strict: str, backend: Callable[..., LocalBackend]
) -> None:
    template = backend("qwen3_vl").chat_template
    text = json.dumps(items, indent=indent, ensure_ascii=ascii_only)
    form = constraints.from_items({"bbox_2d": (4,)}, strict)
    matcher = grammars.matcher(dataclasses.replace(form, opening=()), template, 200)
    ids = template.tokenizer.encode(text, add_special_tokens=False)
    assert matcher.possible(ids) == ids


TIMED = (
    '{"start_time": "00:01.50", "end_time": "00:02.00", "description": "a cat"}',
    '{\n    "00:23.00 - 00:48.00": "trim the \\"fat\\"",\n    "01:40 - 02:02": "stir"\n}',
    '{"events": [{"start": 0.5, "end": 2, "label": null}]}',
    '[[0, 5.2, "a cat"]]',
    "[00:12] A cat [or a dog] leaves.",
)


@pytest.mark.parametrize(
    ("strict", "reply"),
    [
        *(("auto", reply) for reply in TIMED),
        ("auto", f"Events:\n```json\n[\n\t{TIMED[0]}\n]\n```\nThat is all."),
        ("on", f"```json\n[\n  {TIMED[0]}, {TIMED[0]}\n]\n```"),
        ("on", "[]"),
    ],
)
def test_events_in_their_usual_form_stay_as_they_are(
    strict: str, reply: str, backend: Callable[..., LocalBackend]
) -> None:
    template = backend("qwen3_vl").chat_template
    ids = template.tokenizer.encode(reply, add_special_tokens=False)
    form = constraints.from_events(strict)
    matcher, words = grammars.matcher(form, template, 400), torch.empty(100, dtype=torch.int32)
    for count, token in enumerate([*ids, min(template.eos_ids)]):
        matcher.follow(ids[:count])
        matcher.fill(words)
        assert words[token // 32] >> (token % 32) & 1, template.decode(ids[: count + 1])


@pytest.mark.parametrize(
    ("begun", "refused"),
    [
        ("```json\n[", "x"),
        (f"[{BOX}", "x"),
        (f"[{BOX}", "and"),
        ('[{"label": "x", "bbox_2d": [1, 2', "]"),
        ('Boxes:\n```json\n[\n\t{"bbox_2d": ', "x"),
    ],
)
def test_a_reply_is_held_from_where_it_opens_its_json(
    begun: str, refused: str, backend: Callable[..., LocalBackend]
) -> None:
    template = backend("qwen3_vl").chat_template
    encode = template.tokenizer.encode
    matcher, words = grammars.matcher(BOXES, template, 200), torch.empty(100, dtype=torch.int32)
    ids = encode(begun, add_special_tokens=False)
    for count in range(len(ids) + 1):
        matcher.follow(ids[:count])
    matcher.fill(words)
    first = encode(refused, add_special_tokens=False)[0]
    assert not words[first // 32] >> (first % 32) & 1


def test_without_llguidance_a_reply_that_may_be_free_is_free(
    backend: Callable[..., LocalBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammars, "_GRAMMARS", WeakKeyDictionary())
    monkeypatch.setitem(sys.modules, "llguidance", None)
    free = ask("What is it?", picture(64, 64), tokens=12)
    asked = dataclasses.replace(free, constraint=BOXES)
    assert backend("qwen3_vl").generate([asked]) == backend("qwen3_vl").generate([free])


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


def test_a_list_without_a_bound_ends_within_the_token_budget(
    backend: Callable[..., LocalBackend],
) -> None:
    schema = {"type": "array", "items": {"enum": ["a rather long text"]}, "minItems": 1}
    most = bounded(schema, 40)["maxItems"]
    template = backend("qwen3_vl").chat_template
    matcher = grammars.matcher(constraints.from_schema(schema), template, 40)
    for count in (most, most + 1):
        text = json.dumps(["a rather long text"] * count)
        ids = template.tokenizer.encode(text, add_special_tokens=False)
        assert (matcher.possible(ids) == ids) == (count == most)


@pytest.mark.parametrize("kind", ["properties", "prefixItems", "required"])
def test_what_is_no_schema_is_refused(kind: str, backend: Callable[..., LocalBackend]) -> None:
    asked = held(constraints.from_schema({"type": "array", "items": {"type": "object", kind: 5}}))
    with pytest.raises(BadOption, match="schema"):
        backend("qwen3_vl").generate([asked])


def test_old_grammars_are_let_go(
    backend: Callable[..., LocalBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grammars, "_MOST_COMPILED", 3)
    compiled = grammars.Grammars(backend("qwen3_vl").chat_template)
    for tokens in range(5):
        compiled.matcher(constraints.from_schema({"type": "integer"}), tokens)
        compiled.matcher(YES_NO, tokens)
    assert len(compiled._compiled) == 3


CALL = '{"name": "computer_use", "arguments": {"action": "left_click", "coordinate": [500, 250]}}'
CALLS = {
    f"<tool_call>\n{CALL}\n</tool_call>": True,
    f"<tool_call>\n{CALL.replace('left_click', 'key')}": False,  # which needs keys
    f"<tool_call>\n{CALL.replace(', 250', '')}": False,
    f"<tool_call>\n{CALL.replace('left_click', 'tap')}": False,
    f"<tool_call>\n{CALL.replace('computer', 'mobile')}": False,
    "<tool_call>\n<function=": False,
}


@pytest.mark.parametrize("are_tokens", [True, False])
@pytest.mark.parametrize("text", CALLS)
def test_a_call_is_held_to_its_tool(
    backend: Callable[..., LocalBackend], text: str, are_tokens: bool
) -> None:
    """Whether or not the tokenizer has tokens of their own for the tags."""
    template = copy.copy(backend("qwen3_vl").chat_template)
    template.tokenizer = tiny.tokenizer()
    if are_tokens:
        template.tokenizer.add_tokens(["<tool_call>", "</tool_call>"])
    held = call_constraint(TOOLS["computer"], "on", FAMILIES["qwen3_vl"])
    assert held is not None
    for words in ("", "Thought: a gear.\nAction: click it.\n"):
        ids = template.tokenizer.encode(words + text)
        matcher = grammars.Grammars(template).matcher(held, 100)
        possible = matcher.possible(ids)
        assert (possible == ids) is CALLS[text]
        assert len(possible) >= len(template.tokenizer.encode(f"{words}<tool_call>"))


@pytest.mark.parametrize("screen", TOOLS)
def test_whatever_the_grammar_of_a_call_allows_can_be_read(
    backend: Callable[..., LocalBackend], screen: str
) -> None:
    template, chance = backend("qwen3_vl").chat_template, random.Random(screen)
    held = call_constraint(TOOLS[screen], "on", FAMILIES["qwen3_vl"])
    context = ReplyContext(FAMILIES["qwen3_vl"], (600, 800), (64, 64))
    assert held is not None
    endings = template.tokenize('"<')  # of a text, of the words before the call
    seen = set()
    for _ in range(6):
        matcher, ids = grammars.matcher(held, template, 100), list[int]()
        assert matcher is not None
        while not template.eos_ids.intersection(ids[-1:]):
            words = torch.zeros(-(-tiny.VOCABULARY // 32), dtype=torch.int32)
            matcher.fill(words)
            bits = (words[:, None] >> torch.arange(32)) & 1
            allowed = bits.flatten()[: tiny.VOCABULARY].nonzero().flatten().tolist()
            ending = [token for token in endings if token in allowed]
            ids.append(chance.choice(ending if ending and chance.random() < 0.2 else allowed))
            matcher.follow(ids)
        seen.add(act.read(template.decode(ids[:-1]), context, screen).data["action"])
    assert len(seen) > 2 and seen <= set(TOOLS[screen].actions)


def test_calls_are_held_where_a_family_writes_json() -> None:
    def held(model_type: str, **more: str) -> Constraint | None:
        task = act.act("open the settings", **more)
        assert task.constraint_of is not None
        return task.constraint_of(FAMILIES[model_type])

    constraint = held("qwen2_5_vl")
    assert constraint and constraint.opening == ("<tool_call>",)
    assert held("qwen3_vl", strict="off") is held("qwen3_5") is None
    with pytest.raises(BadOption, match="strict 'maybe'"):
        act.act("open the settings", strict="maybe")


def test_one_of_several_answers(backend: Callable[..., LocalBackend]) -> None:
    task = choose.choose("a red circle, a blue square, red")
    asked = [picture(64, 64, seed) for seed in range(4)]
    results = run.answer(backend("qwen3_vl"), task, asked)
    assert {result.text for result in results} <= {"a red circle", "a blue square", "red"}
    assert "Answer with one of: a red circle, a blue square, red." in task.prompt


def test_an_answer_behind_a_thought_that_was_closed_is_held(
    backend: Callable[..., LocalBackend], cuda_policy: Any
) -> None:
    """By steps that were captured while the row was still thinking."""
    subject = backend("qwen3_5", "switch")
    schema = constraints.from_schema(SCHEMA)
    asked = dataclasses.replace(held(schema, max_thinking_tokens=12), thinking=True)
    (response,) = subject.generate([asked])
    assert response.thought_ids and json.loads(response.text)["kind"] in ("cat", "dog")
