"""Batch with the step policy of CUDA, on the CPU: the host a step behind, steps replayed."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from asking import REQUESTS, Never, ask, picture
from fake_cuda_graphs import FakeCudaGraphs, Model
from qwen_vl_suite.qwenvl.errors import NumericalError
from qwen_vl_suite.qwenvl.inference import batch, kv_cache
from qwen_vl_suite.qwenvl.inference.batch import Batch, NewRow, StepPolicy
from qwen_vl_suite.qwenvl.inference.cuda_graphs import CudaGraphs
from qwen_vl_suite.qwenvl.inference.kv_cache import SlotCache
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.inference.model_runner import ModelRunner
from qwen_vl_suite.qwenvl.inference.mrope import PositionRule
from qwen_vl_suite.qwenvl.inference.sampler import Sampled, Sampler
from qwen_vl_suite.qwenvl.inference.scheduler import ActiveRequest
from qwen_vl_suite.qwenvl.inference.sequence import Row, SampledToken
from qwen_vl_suite.qwenvl.inference.speculative.adaptive import AdaptiveSpeculation
from qwen_vl_suite.qwenvl.types import Sampling
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FAMILY_NAMES = list(tiny.CONFIGS)
# Mixtures ask a real card for its abilities.
DENSE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")


@pytest.fixture
def fresh(backend: Any) -> Any:
    def make(model_type: str) -> Any:
        subject = backend(model_type)
        subject.prefix_cache.clear()
        subject.batch_limits = BatchLimits()
        return subject

    return make


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_replayed_steps_give_the_same_tokens(
    fresh: Any, model_type: str, request: pytest.FixtureRequest
) -> None:
    subject = fresh(model_type)
    alone = [subject.generate([question])[0] for question in REQUESTS]
    graphs: list[FakeCudaGraphs] = request.getfixturevalue("cuda_policy")
    for rows in (2, 9):
        subject.batch_limits = BatchLimits(rows=rows)
        assert subject.generate(REQUESTS) == alone, f"{rows} at once"
    if not tiny.can_be_captured(model_type):
        return
    assert sum(one.captures for one in graphs) > 0
    assert sum(one.replays for one in graphs) > 10
    assert all(one.enabled for one in graphs), "a step of this family cannot be captured"


def test_a_graph_is_not_replayed_once_its_tensors_have_moved(
    fresh: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """A row outgrows its room, so that all slots move, and ends; one that takes its slot attends
    over a width of which there is a graph from before."""
    monkeypatch.setattr(kv_cache, "BLOCK_TOKENS", 16)
    monkeypatch.setattr(kv_cache, "HEADROOM_TOKENS", 16)
    subject = fresh("qwen3_vl")
    monkeypatch.setattr(subject.chat_template, "eos_ids", frozenset())
    monkeypatch.setattr(subject, "adaptive_lookup", Never())
    asked = [ask("a " * 40, tokens=40), ask("b", tokens=90), ask("c " * 24, tokens=12)]
    alone = [subject.generate([question])[0] for question in asked]
    moves: list[bool] = []
    grow = SlotCache._grow

    def counted(self: SlotCache) -> bool:
        moves.append(grow(self))
        return moves[-1]

    monkeypatch.setattr(SlotCache, "_grow", counted)
    graphs: list[FakeCudaGraphs] = request.getfixturevalue("cuda_policy")
    subject.batch_limits = BatchLimits(rows=2)
    assert subject.generate(asked) == alone
    assert any(moves) and sum(one.replays for one in graphs) > 20


def test_a_step_that_cannot_be_captured_runs_eagerly(
    fresh: Any, cuda_policy: list[FakeCudaGraphs]
) -> None:
    subject = fresh("qwen3_vl")
    expected = subject.generate(REQUESTS)

    def reads_back(_module: Any, _args: Any, out: torch.Tensor) -> None:
        assert out.sum().item() < torch.inf

    hook = subject.model.get_input_embeddings().register_forward_hook(reads_back)
    try:
        assert subject.generate(REQUESTS) == expected
    finally:
        hook.remove()
    assert cuda_policy[0].enabled and cuda_policy[0].replays
    assert not cuda_policy[1].enabled and not cuda_policy[1].replays


class CreatedTensors(TorchDispatchMode):
    """Records the tensors that are created inside it, and tells which of them are alive."""

    def __init__(self) -> None:
        super().__init__()
        self._created: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {id(leaf) for leaf in tree_leaves((args, kwargs))}
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self._created += [weakref.ref(tensor) for tensor in made if id(tensor) not in given]
        return out

    def alive(self) -> list[torch.Size]:
        created = [reference() for reference in self._created]
        return [tensor.shape for tensor in created if tensor is not None]


class LeakCheck(CudaGraphs):
    """Runs steps eagerly, and records the tensors that they leave."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), Model())
        self.leaked: dict[Any, list[torch.Size]] = {}

    def run(self, key: Any, step: Callable[[], None]) -> bool:
        with CreatedTensors() as created:
            step()
        self.leaked[key] = created.alive()
        return True


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
@pytest.mark.parametrize("speculate", [True, False])
def test_a_step_leaves_no_tensor_that_it_created(
    backend: Any, model_type: str, speculate: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tensor that outlives a capture lies in memory of the graph."""
    subject = backend(model_type, mtp=model_type.startswith("qwen3_5"))
    graphs, speculation = LeakCheck(), type("Settled", (AdaptiveSpeculation,), {"pays": speculate})
    monkeypatch.setattr(batch, "step_policy", lambda _: StepPolicy(1, True, 0.5, graphs))
    monkeypatch.setattr(subject, "adaptive_lookup", speculation())
    monkeypatch.setattr(subject, "adaptive_mtp", speculation())
    monkeypatch.setattr(ActiveRequest, "draft", lambda self: [7] * (len(self.row.output_ids) % 3))
    monkeypatch.setattr(subject.chat_template, "eos_ids", frozenset())
    subject.prefix_cache.clear()
    subject.generate([ask("one", picture(50, 80), tokens=30)])
    subject.generate([ask("two", tokens=20), ask("three", tokens=12, temperature=0.7, top_p=0.5)])
    assert {key[0] == "verify" for key in graphs.leaked} >= {speculate}
    assert not any(graphs.leaked.values()), graphs.leaked


@pytest.mark.parametrize("lagging", [True, False])
@pytest.mark.parametrize("first_rows", [0, 3], ids=["of prefill", "of a step"])
def test_nan_logits_cost_only_the_answer_of_their_own_row(
    request: pytest.FixtureRequest, fresh: Any, lagging: bool, first_rows: int
) -> None:
    """``first_rows``: how many rows a pass with NaN has at least; the second one's are NaN."""
    if lagging:
        request.getfixturevalue("cuda_policy")
    subject = fresh("qwen3_vl")
    asked = [ask(words, picture(50, 80), tokens=12) for words in ("what is it?", "how?", "why?")]
    expected = subject.generate(asked)
    calls = 0

    def fill_with_nan(_module: Any, _args: Any, out: Any) -> None:
        nonlocal calls
        if first_rows:
            if len(out.logits) == first_rows:
                out.logits[1].fill_(torch.nan)
        else:
            calls += 1
            if calls == 2:
                out.logits.fill_(torch.nan)

    hook = subject.model.register_forward_hook(fill_with_nan)
    try:
        found = subject.generate(asked)
    finally:
        hook.remove()
    assert [answer.text for answer in found[::2]] == [answer.text for answer in expected[::2]]
    assert isinstance(found[1].error, NumericalError) and "bf16" in str(found[1].error)
    assert (found[1].text, found[1].finish_reason) == ("", "error")
    assert subject.generate(asked)[1].text == expected[1].text


class OnDevice:
    """Tokens that stay on a fake device."""

    def __init__(self, sampled: Sampled):
        self.tokens = lambda: sampled.tokens


@pytest.mark.parametrize("model_type", [n for n in FAMILY_NAMES if n in DENSE])
def test_steps_keep_to_a_cuda_device(
    checkpoint: Any, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On fake CUDA tensors, which have shapes and no contents: mixing devices and reading values
    raise."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(checkpoint(model_type))
    config._attn_implementation = "sdpa"
    monkeypatch.setattr(batch, "step_policy", lambda _: StepPolicy(static=True))
    monkeypatch.setattr(batch, "_HostCopy", OnDevice)
    with FakeTensorMode(), torch.no_grad():
        with torch.device("cuda"):
            model = AutoModelForImageTextToText.from_config(config).eval()
        runner = ModelRunner(model, PositionRule({"image": config.image_token_id}, 2))
        rows = []
        for _ in range(2):
            prefilled, position = runner.prefill([101, 102, 103], [])
            warm = Sampling(16, temperature=0.7, top_k=20, presence_penalty=1.5)
            row = Row(0, warm, [101, 102], frozenset({3}), (7, 8), thinking=True)
            sampler = Sampler([row], runner.device, len(prefilled.logits))
            sampler.prepare()
            sampler.sample(prefilled.logits[None])
            rows.append(NewRow(prefilled, sampler, SampledToken(5), position, 60))
        subject = Batch(runner)
        subject.add(rows)
        for _ in range(3):
            subject.launch()
            tokens: Any = subject.collect()
            assert tokens.device == torch.device("cuda:0") and tokens.shape == (2,)
        subject.keep([1])
        subject.launch()
        tokens = subject.collect()
        assert tokens.shape == (1,)
