"""Scoring and embedding by a local model, against plain forward passes."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from asking import picture
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.qwenvl.backends.base import Embedder, Scorer
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.errors import BadOption, NumericalError, OutOfMemory
from qwen_vl_suite.qwenvl.inference.generic import model_inputs
from qwen_vl_suite.qwenvl.types import LocalSpec, Request

FAMILIES = ["qwen2_vl", "qwen3_vl", "qwen2_5_omni", "qwen3_5"]
CANDIDATES = ["yes", "no", "perhaps not"]
ASKED = [
    Request.ask((picture(64, 96),), "Is it red?"),
    Request.ask((), "Is it night?", system="Judge."),
    Request.ask((picture(64, 96), picture(96, 64, 1)), "Are both red?"),
]


def plain_logits(subject: LocalBackend, request: Request, ids: list[int]) -> torch.Tensor:
    prompt = subject.prompt(request)
    prompt.ids = [*prompt.ids, *ids]
    with torch.no_grad():
        logits: torch.Tensor = subject.model(**model_inputs(subject.model, prompt)).logits[0]
    return logits[-len(ids) - 1 :].log_softmax(-1)


@pytest.mark.parametrize("model_type", FAMILIES)
def test_scores_are_the_probabilities_that_an_answer_begins_so(
    backend: Any, model_type: str
) -> None:
    subject: LocalBackend = backend(model_type)
    subject.prefix_cache.clear()
    assert isinstance(subject, Scorer)
    found = subject.score(ASKED, CANDIDATES)
    for request, scores in zip(ASKED, found, strict=True):
        logprobs = []
        for text in CANDIDATES:
            ids = subject.chat_template.tokenize(text)
            logits = plain_logits(subject, request, ids)
            logprobs.append(sum(float(logits[at, token]) for at, token in enumerate(ids)))
        expected = torch.tensor(logprobs).softmax(0).tolist()
        assert scores == pytest.approx(expected, rel=1e-3)
        assert sum(scores) == pytest.approx(1)
    assert subject.score(ASKED[:1], CANDIDATES)[0] == pytest.approx(found[0], rel=1e-4), "cached"


@pytest.mark.parametrize("model_type", FAMILIES)
def test_embeddings_are_last_hidden_states_of_length_one(backend: Any, model_type: str) -> None:
    subject: LocalBackend = backend(model_type)
    assert isinstance(subject, Embedder)
    found = subject.embed(ASKED)
    for request, vector in zip(ASKED, found, strict=True):
        inputs = model_inputs(subject.model, subject.prompt(request))
        with torch.no_grad():
            states = subject.model(**inputs, output_hidden_states=True).hidden_states[-1]
        expected = torch.nn.functional.normalize(states[0, -1], dim=0)
        assert torch.allclose(torch.tensor(vector), expected, atol=1e-4)
        assert sum(value**2 for value in vector) == pytest.approx(1, abs=1e-4)


def test_a_thought_is_left_out(checkpoint: Any) -> None:
    subject = load(LocalSpec(str(checkpoint("qwen3_5", thinking="switch")), device="cpu"))
    wishes: tuple[bool | None, ...] = (True, False, None)
    asked = [Request.ask((), "Is it night?", thinking=wish) for wish in wishes]
    one, *others = subject.score(asked, CANDIDATES)
    assert all(other == pytest.approx(one, rel=1e-3) for other in others)
    # A model that always thinks answers behind an empty thought, as one that can leave it.
    always = load(LocalSpec(str(checkpoint("qwen3_5", thinking="always")), device="cpu"))
    (found,) = always.score([Request.ask((), "Is it night?")], CANDIDATES)
    assert found == pytest.approx(one, rel=1e-3)


def test_what_cannot_be_scored_is_refused_in_words(backend: Any) -> None:
    subject: LocalBackend = backend("qwen3_vl")
    for candidates in ([], [""], ["a", "a"]):
        with pytest.raises(BadOption):
            subject.score(ASKED, candidates)
    with pytest.raises(Interrupt):
        subject.score(ASKED, CANDIDATES, InterruptAt(6))


@pytest.mark.parametrize("model_type", ["qwen3_vl", "qwen4_exp"])
def test_a_model_that_runs_as_it_comes_gives_the_same(
    backend: Any, checkpoint: Any, model_type: str
) -> None:
    if not tiny.available(model_type):
        pytest.skip(f"this release has no {model_type}")
    plain = load(LocalSpec(str(checkpoint(model_type)), device="cpu", optimize="off"))
    for request, scores in zip(ASKED, plain.score(ASKED, CANDIDATES), strict=True):
        logprobs = []
        for text in CANDIDATES:
            ids = plain.chat_template.tokenize(text)
            logits = plain_logits(plain, request, ids)
            logprobs.append(sum(float(logits[at, token]) for at, token in enumerate(ids)))
        assert scores == pytest.approx(torch.tensor(logprobs).softmax(0).tolist(), rel=1e-3)
    if plain.family.scheduler_verified:
        fast: LocalBackend = backend(model_type)
        for one, other in zip(plain.embed(ASKED), fast.embed(ASKED), strict=True):
            assert one == pytest.approx(other, abs=1e-4)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_two_single_tokens_are_compared_without_the_rounding_of_logits(
    checkpoint: Any, dtype: str
) -> None:
    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu", precision=dtype))
    pair = ["a", "b"]
    ids = [subject.chat_template.tokenize(text) for text in pair]
    assert [len(found) for found in ids] == [1, 1]
    head = subject.model.lm_head.weight.float()
    for request, scores in zip(ASKED, subject.score(ASKED, pair), strict=True):
        inputs = model_inputs(subject.model, subject.prompt(request))
        with torch.no_grad():
            state = subject.model.model(**inputs).last_hidden_state[0, -1].float()
        expected = torch.sigmoid(state @ (head[ids[0][0]] - head[ids[1][0]]))
        # A prefix that was run by itself rounds a hidden state in another way.
        assert scores[0] == pytest.approx(float(expected), rel=1e-4 if dtype == "fp32" else 0.2)


def test_memory_that_runs_out_costs_only_its_own_request(backend: Any) -> None:
    subject: LocalBackend = backend("qwen3_vl")
    subject.prefix_cache.clear()
    big = Request.ask((picture(256, 256),), "Is it red?")

    def run_out(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        if given["input_ids"].shape[1] > 60:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = subject.model.register_forward_pre_hook(run_out, with_kwargs=True)
    try:
        first, failed, last = subject.embed([ASKED[0], big, ASKED[1]])
    finally:
        hook.remove()
    assert isinstance(failed, OutOfMemory) and "single request" in str(failed)
    assert [first, last] == [pytest.approx(v, abs=1e-4) for v in subject.embed(ASKED[:2])]


def test_nan_costs_only_its_own_request(backend: Any) -> None:
    subject: LocalBackend = backend("qwen3_vl")
    subject.prefix_cache.clear()
    decoder = subject.model.get_decoder()
    asked = [Request.ask((), words) for words in ("a", "b", "c")]
    calls = []

    def spoil(_module: Any, _args: Any, out: torch.Tensor) -> torch.Tensor:
        calls.append(out)
        return out * torch.nan if len(calls) == 2 else out

    hook = decoder.norm.register_forward_hook(spoil, prepend=True)
    try:
        first, failed, last = subject.score(asked, ["a", "b"])
    finally:
        hook.remove()
    assert isinstance(failed, NumericalError)
    assert not isinstance(first, Exception) and not isinstance(last, Exception)
