"""Conversations that go on: a next turn costs its own tokens, and answers are those of a fresh
model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tiny
import torch
from asking import KINDS, Always, Never, picture
from qwen_vl_suite.qwenvl.backends.local import LocalBackend
from qwen_vl_suite.qwenvl.inference.batch import Batch
from qwen_vl_suite.qwenvl.types import Generated, Image, Message, Request, Response, Sampling
from trickling import Answers, Trickle

SHORT = Sampling(10)


def user(*parts: Any) -> Message:
    return Message("user", parts)


def answered(response: Response) -> Message:
    return Message("assistant", (Generated(response.ids),))


@contextmanager
def passes(subject: LocalBackend) -> Iterator[dict[str, list[int]]]:
    """Tokens of each prefill, and images that the vision tower encoded."""
    found: dict[str, list[int]] = {"tokens": [], "images": []}

    def before(_module: Any, _args: Any, inputs: Any) -> None:
        if inputs["input_ids"].shape[1] > 8:
            found["tokens"].append(inputs["input_ids"].shape[1])

    hook = subject.model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield found
    finally:
        hook.remove()


@pytest.mark.parametrize(
    ("model_type", "lagging"),
    [*((name, False) for name in tiny.CONFIGS), *((name, True) for name in KINDS)],
)
def test_a_next_turn_costs_its_own_tokens(
    request: pytest.FixtureRequest,
    backend: Any,
    model_type: str,
    lagging: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if lagging:
        request.getfixturevalue("cuda_policy")
    subject: LocalBackend = backend(model_type)
    # The token that ends a message in the template, too.
    end = subject.chat_template.tokenizer.convert_tokens_to_ids("<|im_end|>")
    monkeypatch.setattr(subject.chat_template, "eos_ids", frozenset({end}))
    subject.prefix_cache.clear()
    subject.adaptive_lookup = Always() if lagging else Never()
    messages = [Message("system", ("Be brief.",)), user(Image(picture(64, 96)), "What is it?")]
    talk = []
    for number, more in enumerate(("And now? " * 8, Image(picture(96, 64, seed=3)), "Why?")):
        asked = Request(tuple(messages), sampling=SHORT, continues=True)
        cached = len(subject.prompt(asked).ids)
        with passes(subject) as found:
            (response,) = subject.generate([asked])
        if number:
            # The states behind an answer's last token may not have been computed.
            assert sum(found["tokens"]) <= cached - talk[-1] + 1
        talk.append(cached + len(response.ids))
        messages += [answered(response), user(more, "go on")]
        held = subject.prefix_cache
        subject.prefix_cache = type(held)()
        assert subject.generate([asked])[0] == response, "as a model that has seen nothing"
        subject.prefix_cache = held


@pytest.mark.parametrize("model_type", ["qwen3_vl", "qwen3_5"])
def test_a_thought_drops_out_and_the_users_turn_stays_cached(
    checkpoint: Any, model_type: str
) -> None:
    from qwen_vl_suite.qwenvl.backends.local import load
    from qwen_vl_suite.qwenvl.types import LocalSpec

    subject = load(LocalSpec(str(checkpoint(model_type, thinking="switch")), device="cpu"))
    first = (user("Tell me a long story about a red house. " * 5),)
    limits = Sampling(6, max_thinking_tokens=6)
    asked = Request(first, sampling=limits, thinking=True, continues=True)
    (response,) = subject.generate([asked])
    assert response.thinking or response.usage.new_tokens > 6
    following = Request((*first, answered(response), user("And?")), sampling=limits, thinking=True)
    start = subject.prompt(asked).last_message_end
    assert start and subject.prompt(following).ids[:start] == subject.prompt(asked).ids[:start]
    hits = subject.prefix_cache.hits
    (found,) = subject.generate([following])
    assert subject.prefix_cache.hits > hits
    subject.prefix_cache.clear()
    assert subject.generate([following]) == [found]


def test_a_single_question_keeps_no_more_than_its_picture(backend: Any) -> None:
    subject: LocalBackend = backend("qwen3_vl")
    subject.prefix_cache.clear()
    asked = Request.ask((picture(64, 96),), "What?", sampling=SHORT)
    subject.generate([asked])
    alone = subject.prefix_cache.nbytes
    subject.generate([Request.ask((picture(64, 96),), "What?", sampling=SHORT, continues=True)])
    assert subject.prefix_cache.nbytes > alone > 0


def test_an_answer_cut_by_its_limit_goes_on_where_it_ended(backend: Any) -> None:
    subject: LocalBackend = backend("qwen3_vl")
    subject.prefix_cache.clear()
    first = user("count")
    cut = Request((first,), sampling=Sampling(5), continues=True)
    (response,) = subject.generate([cut])
    assert response.finish_reason == "length"
    prompt = subject.prompt(Request((first, answered(response), user("go on"))))
    found = subject.prefix_cache.longest(prompt.ids, [], [])
    # The last token's states are not there: nothing was computed behind it.
    assert found is not None and len(found.ids) == len(subject.prompt(cut).ids) + 4
    assert torch.tensor(found.ids).equal(torch.tensor(prompt.ids[: len(found.ids)]))


@pytest.mark.parametrize("at_once", [1, 2])
def test_an_answer_that_there_is_no_memory_to_keep_is_given_all_the_same(
    backend: Any, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    subject = backend("qwen3_vl")
    asked = [Request((user(f"What is {n}?"),), sampling=SHORT, continues=True) for n in range(2)]
    expected = subject.generate(asked[:at_once])

    def failing(*_: object) -> None:
        raise torch.OutOfMemoryError("pretended: tried to allocate 3.00 GiB")

    monkeypatch.setattr(Batch, "snapshot", failing)
    told = Answers()
    subject.generate_from(Trickle([asked[:at_once]]), told)
    assert told.in_order == expected and not told.restarted
