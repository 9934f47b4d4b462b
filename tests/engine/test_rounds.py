"""Rounds as they go on CUDA, without one: the host a round behind, steps captured and replayed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tape
import tiny
import torch
from qwen_vl_suite.qwenvl import rounds
from qwen_vl_suite.qwenvl.captured import Captured
from qwen_vl_suite.qwenvl.choices import Choices
from qwen_vl_suite.qwenvl.decoder import Decoder
from qwen_vl_suite.qwenvl.errors import NumericalError
from qwen_vl_suite.qwenvl.generation import Budget, Row
from qwen_vl_suite.qwenvl.rounds import Pace, Rounds, Start
from qwen_vl_suite.qwenvl.types import Request, Sampling
from torch._subclasses.fake_tensor import FakeTensorMode

FAMILY_NAMES = list(tiny.CONFIGS)
# Mixtures ask a real card for its abilities.
DENSE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width + seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def ask(words: str, *pictures: torch.Tensor, tokens: int = 16, **sampling: Any) -> Request:
    return Request(pictures, words, sampling=Sampling(tokens, **sampling))


class Taped(Captured):
    """``Captured`` with tapes for graphs."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self.captures = self.replays = 0

    def _record(self, step: Callable[[], None]) -> Any:
        self.captures += 1
        return tape.Tape().record(step)

    def _replay(self, graph: Any) -> None:
        self.replays += 1
        graph.replay()


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> list[Taped]:
    """From here on rounds go as on CUDA. Gives what captured them."""
    made: list[Taped] = []

    def pace(_decoder: Any) -> Pace:
        made.append(Taped())
        return Pace(lag=1, fixed=True, idle=0.5, captured=made[-1])

    monkeypatch.setattr(rounds, "pace_of", pace)
    return made


@pytest.fixture
def fresh(backend: Any) -> Any:
    def make(model_type: str) -> Any:
        subject = backend(model_type)
        subject.weights.seen.clear()
        subject.budget = Budget()
        return subject

    return make


REQUESTS = [
    ask("what is it?", picture(50, 80)),
    ask("one word", picture(64, 64), tokens=1),
    ask("only words"),
    ask("both", picture(100, 100), picture(200, 64)),
    ask("short", picture(33, 90), tokens=4),
    ask("warm", picture(50, 80), temperature=1.0, top_k=30, seed=5),
    ask("long", picture(64, 64), tokens=40),
    ask("again", picture(90, 60), repetition_penalty=1.3),
    ask("hot", picture(90, 60), temperature=1.5, top_p=0.9, presence_penalty=1.0, seed=8),
]


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_captured_rounds_give_the_same_tokens(
    fresh: Any, model_type: str, request: pytest.FixtureRequest
) -> None:
    subject = fresh(model_type)
    alone = [subject.generate([question])[0] for question in REQUESTS]
    captured: list[Taped] = request.getfixturevalue("as_on_cuda")
    for rows in (1, 3, 9):
        subject.budget = Budget(rows=rows)
        assert subject.generate(REQUESTS) == alone, f"{rows} at once"
    assert sum(one.captures for one in captured) > 0
    assert sum(one.replays for one in captured) > 10
    assert all(one._possible for one in captured), "a step of this family cannot be captured"


def test_a_step_that_cannot_be_captured_runs_launch_by_launch(
    fresh: Any, as_on_cuda: list[Taped]
) -> None:
    subject = fresh("qwen3_vl")
    calm = subject.generate(REQUESTS)

    def looks(_module: Any, _args: Any, out: torch.Tensor) -> None:
        assert out.sum().item() < torch.inf

    hook = subject.model.get_input_embeddings().register_forward_hook(looks)
    try:
        assert subject.generate(REQUESTS) == calm
    finally:
        hook.remove()
    assert as_on_cuda[0]._possible and as_on_cuda[0].replays
    assert not as_on_cuda[1]._possible and not as_on_cuda[1].replays


def test_memory_that_runs_out_while_capturing_is_told(as_on_cuda: list[Taped]) -> None:
    class Full(Taped):
        def _record(self, step: Callable[[], None]) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    subject, steps = Full(), []
    for _ in range(2):
        subject.run("key", lambda: steps.append(1))
    with pytest.raises(torch.OutOfMemoryError):
        subject.run("key", lambda: steps.append(1))
    assert len(steps) == 2


def test_bad_numbers_in_one_round_are_told_a_round_later(
    fresh: Any, as_on_cuda: list[Taped]
) -> None:
    subject = fresh("qwen3_vl")
    calls = 0

    def spoil(_module: Any, _args: Any, out: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            out.logits.fill_(torch.nan)

    hook = subject.model.register_forward_hook(spoil)
    try:
        with pytest.raises(NumericalError):
            subject.generate([ask("what is it?", picture(50, 80))])
    finally:
        hook.remove()
    subject.generate([ask("what is it?", picture(50, 80))])


class Unfetched:
    """Tokens that stay on a device which is none."""

    def __init__(self, tokens: torch.Tensor):
        self.tokens = lambda: tokens


@pytest.mark.parametrize("model_type", [n for n in FAMILY_NAMES if n in DENSE])
def test_rounds_keep_to_a_cuda_device(
    checkpoint: Any, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tensors of a CUDA device that have shapes and no contents: what mixes devices, or asks
    for a number, raises."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(checkpoint(model_type))
    config._attn_implementation = "sdpa"
    monkeypatch.setattr(rounds, "pace_of", lambda _: Pace(fixed=True))
    monkeypatch.setattr(rounds, "_Fetched", Unfetched)
    with FakeTensorMode(), torch.no_grad():
        with torch.device("cuda"):
            model = AutoModelForImageTextToText.from_config(config).eval()
        decoder = Decoder(model, config.image_token_id, 2)
        starts = []
        for _ in range(2):
            read, position = decoder.read([101, 102, 103], [])
            warm = Sampling(16, temperature=0.7, top_k=20, presence_penalty=1.5)
            row = Row(0, warm, [101, 102], frozenset({3}), (7, 8), thinking=True)
            choices = Choices([row], decoder.device, len(read.logits))
            choices.prepare()
            choices.choose(read.logits[None])
            starts.append(Start(read, choices, 5, position, 60))
        subject = Rounds(decoder)
        subject.add(starts)
        for _ in range(3):
            subject.launch()
            given: Any = subject.collect()
            assert given.device == torch.device("cuda:0") and given.shape == (2,)
        subject.keep([1])
        subject.launch()
        left: Any = subject.collect()
        assert left.shape == (1,)
