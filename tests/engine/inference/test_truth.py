"""Equal to transformers: the tokens of its ``generate``, whatever the scheduler does to be fast.

The reference is a model of its own straight from transformers with the official processor, one
request after the other. In float32, for every family and for the bundled model.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from asking import KINDS, recorded_ids
from fake_cuda_graphs import FakeCudaGraphs
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.nano import scenes
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.inference import batch, prefix_cache
from qwen_vl_suite.qwenvl.inference.batch import StepPolicy
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.inference.scheduler import ActiveRequest
from qwen_vl_suite.qwenvl.inference.speculative.adaptive import AdaptiveSpeculation
from qwen_vl_suite.qwenvl.inference.speculative.verify import MAX_DRAFT_TOKENS
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Sampling
from reference import Reference

NANO = Path(__file__).parents[3] / "nano" / "checkpoint"
MODELS = [*tiny.CONFIGS, "nano"]
of_each_kind = pytest.mark.parametrize("subject", KINDS, indirect=True)


def noise(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def scene(seed: int) -> torch.Tensor:
    drawn = np.array(scenes.draw(f"truth {seed}", size=(224, 192)).picture.convert("RGB"))
    return torch.from_numpy(drawn).movedim(-1, 0).contiguous()


def questions(name: str) -> list[Request]:
    """Different in images, prompts and length; three are about the first image."""
    show: Callable[[int], torch.Tensor] = scene
    if name != "nano":
        show = {0: noise(150, 200), 1: noise(64, 64), 2: noise(90, 130)}.__getitem__
    locate = "Locate every circle, star, square. Report bbox coordinates in JSON format."
    return [
        Request.ask((show(0),), "Describe this image.", sampling=Sampling(40)),
        Request.ask((show(0),), "Read all the text in the image.", sampling=Sampling(12)),
        Request.ask((show(0),), locate, sampling=Sampling(60)),
        Request.ask((show(1),), "Describe this image in detail.", sampling=Sampling(30)),
        Request.ask(
            (show(1), show(2)), "Describe both.", system="Be brief.", sampling=Sampling(20)
        ),
        Request.ask((), "Only words.", sampling=Sampling(8)),
        Request.ask((show(2),), locate, sampling=Sampling(24)),
    ]


class Subject:
    """A model, requests to it, and the reference's tokens."""

    def __init__(self, name: str, folder: Path):
        self.name = name
        self.backend: LocalBackend = load(LocalSpec(str(folder), device="cpu"))
        reference = Reference(folder, self.backend.chat_template)
        self.requests = questions(name)
        self.expected = [reference(request) for request in self.requests]

    def fresh(self) -> Subject:
        self.backend.prefix_cache.clear()
        self.backend.batch_limits, self.backend.adaptive_lookup = (
            BatchLimits(),
            AdaptiveSpeculation(),
        )
        return self

    def tokens(self, asked: list[Request], watch: Observer | None = None) -> list[list[int]]:
        with recorded_ids() as found:
            self.backend.generate(asked, watch)
        return [found[index] for index in range(len(asked))]


@pytest.fixture(scope="module")
def subjects(checkpoint: Callable[..., Path]) -> Callable[[str], Subject]:
    return cache(lambda name: Subject(name, NANO if name == "nano" else checkpoint(name)))


@pytest.fixture(params=MODELS)
def subject(request: pytest.FixtureRequest, subjects: Callable[[str], Subject]) -> Subject:
    return subjects(request.param).fresh()


def test_the_requests_have_different_answers(subject: Subject) -> None:
    assert len({tuple(tokens) for tokens in subject.expected}) > 4
    assert sum(map(len, subject.expected)) > 40


@pytest.mark.parametrize(
    ("rows", "order"),
    [(1, [3, 0, 5, 2, 6, 1, 4]), (2, [3, 0, 5, 2, 6, 1, 4]), (32, [0, 1, 2, 3, 4, 5, 6])],
)
def test_in_any_order_and_batch(subject: Subject, order: list[int], rows: int) -> None:
    """With few slots, those of finished rows are taken by waiting requests."""
    subject.backend.batch_limits = BatchLimits(rows=rows)
    tokens = subject.tokens([subject.requests[place] for place in order])
    assert tokens == [subject.expected[place] for place in order]


def test_with_a_filled_prefix_cache(subject: Subject) -> None:
    for _ in range(2):
        assert [subject.tokens([asked])[0] for asked in subject.requests] == subject.expected
    assert subject.backend.prefix_cache.hits >= 6


@of_each_kind
@pytest.mark.parametrize("max_bytes", [0, 20_000, 200_000])
def test_with_a_small_prefix_cache(
    subject: Subject, max_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefix_cache, "MAX_BYTES", max_bytes)
    for _ in range(2):
        assert subject.tokens(subject.requests) == subject.expected
        assert subject.backend.prefix_cache.nbytes <= max_bytes


def test_with_offloads_and_releases_in_between(subject: Subject) -> None:
    backend, asked, expected = subject.backend, subject.requests[:4], subject.expected[:4]
    for move_out in (backend.offload, backend.release, backend.prefix_cache.offload):
        assert subject.tokens(asked) == expected
        move_out()
    assert subject.tokens(asked) == expected


@of_each_kind
def test_with_interrupts_in_between(subject: Subject) -> None:
    for checks in (2, 9, 20, 31):
        with pytest.raises(Interrupt):
            subject.tokens(subject.requests, InterruptAt(checks))
        assert subject.tokens(subject.requests[:4]) == subject.expected[:4]


def test_when_two_models_take_turns(subjects: Callable[[str], Subject]) -> None:
    both = [subjects(name).fresh() for name in ("nano", "qwen3_vl")]
    for place in range(7):
        for subject in both:
            assert subject.tokens([subject.requests[place]])[0] == subject.expected[place]


@of_each_kind
@pytest.mark.parametrize("rows", [1, 3])
def test_with_drafts_that_are_half_right(
    subject: Subject, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_right(self: Any) -> list[int]:
        done = len(self.row.output_ids)
        right = subject.expected[self.row.index][done : done + MAX_DRAFT_TOKENS - done % 4]
        return [*right, 105, 106][: min(MAX_DRAFT_TOKENS, self.row.max_output - done - 1)]

    monkeypatch.setattr(ActiveRequest, "draft", half_right)
    monkeypatch.setattr(AdaptiveSpeculation, "pays", True)
    subject.backend.batch_limits = BatchLimits(rows=rows)
    assert subject.tokens(subject.requests) == subject.expected


@pytest.mark.parametrize(
    ("subject", "rows"),
    [*((name, 3) for name in MODELS), *((name, rows) for name in KINDS for rows in (1, 32))],
    indirect=["subject"],
)
def test_with_steps_as_on_cuda(
    subject: Subject, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = FakeCudaGraphs()
    step_policy = StepPolicy(lag=1, static=True, max_free=0.5, graphs=made)
    monkeypatch.setattr(batch, "step_policy", lambda _: step_policy)
    subject.backend.batch_limits = BatchLimits(rows=rows)
    assert subject.tokens(subject.requests) == subject.expected
    assert made.replays or not tiny.can_be_captured(subject.name)


@of_each_kind
def test_a_seed_gives_its_text_in_any_batch(subject: Subject) -> None:
    sampled = [
        Request.ask(asked.images, asked.prompt, sampling=Sampling(20, temperature=1.0, seed=place))
        for place, asked in enumerate(subject.requests)
    ]
    alone = [subject.tokens([request])[0] for request in sampled]
    assert alone != subject.expected
    for rows in (2, 32):
        subject.fresh().backend.batch_limits = BatchLimits(rows=rows)
        assert subject.tokens([*subject.requests, *sampled[::-1]])[len(sampled) :][::-1] == alone
