"""Scoring and embedding by a local model, against plain forward passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from asking import picture
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.qwenvl.backends.base import Embedder, Scorer
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.errors import BadOption, OutOfMemory, Unavailable
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


def test_what_cannot_be_scored_is_refused_in_words(backend: Any, checkpoint: Any) -> None:
    subject: LocalBackend = backend("qwen3_vl")
    for candidates in ([], [""], ["a", "a"]):
        with pytest.raises(BadOption):
            subject.score(ASKED, candidates)
    plain = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu", optimize="off"))
    with pytest.raises(Unavailable, match=r"optimize is off\. Choose"):
        plain.score(ASKED, CANDIDATES)
    with pytest.raises(Interrupt):
        subject.score(ASKED, CANDIDATES, InterruptAt(6))


def test_memory_that_runs_out_is_told_of_the_request(backend: Any) -> None:
    subject: LocalBackend = backend("qwen3_vl")
    subject.prefix_cache.clear()

    def run_out(*_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = subject.model.register_forward_pre_hook(run_out)
    try:
        with pytest.raises(OutOfMemory, match="single request"):
            subject.embed(ASKED)
    finally:
        hook.remove()
