"""Rounds as they go on CUDA, without one: the host a round behind, steps captured and replayed."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tiny
import torch
from asking import ask, picture
from fake_cuda_graphs import FakeCudaGraphs, Model
from qwen_vl_suite.qwenvl.errors import NumericalError
from qwen_vl_suite.qwenvl.inference import batch, cuda_graphs
from qwen_vl_suite.qwenvl.inference.batch import Batch, NewRow, StepPolicy
from qwen_vl_suite.qwenvl.inference.cuda_graphs import CudaGraphs
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.inference.model_runner import ModelRunner
from qwen_vl_suite.qwenvl.inference.sampler import Sampler
from qwen_vl_suite.qwenvl.inference.scheduler import ActiveRequest
from qwen_vl_suite.qwenvl.inference.sequence import Row
from qwen_vl_suite.qwenvl.inference.speculative.adaptive import AdaptiveSpeculation
from qwen_vl_suite.qwenvl.types import Sampling
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FAMILY_NAMES = list(tiny.CONFIGS)
# Mixtures ask a real card for its abilities.
DENSE = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")


@pytest.fixture
def as_on_cuda(monkeypatch: pytest.MonkeyPatch) -> list[FakeCudaGraphs]:
    """From here on rounds go as on CUDA. Gives what captured them."""
    made: list[FakeCudaGraphs] = []

    def step_policy(_decoder: Any) -> StepPolicy:
        made.append(FakeCudaGraphs())
        return StepPolicy(lag=1, fixed=True, idle=0.5, captured=made[-1])

    monkeypatch.setattr(batch, "step_policy", step_policy)
    return made


@pytest.fixture
def fresh(backend: Any) -> Any:
    def make(model_type: str) -> Any:
        subject = backend(model_type)
        subject.prefix_cache.clear()
        subject.batch_limits = BatchLimits()
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
    graphs: list[FakeCudaGraphs] = request.getfixturevalue("as_on_cuda")
    for rows in (1, 3, 9):
        subject.batch_limits = BatchLimits(rows=rows)
        assert subject.generate(REQUESTS) == alone, f"{rows} at once"
    assert sum(one.captures for one in graphs) > 0
    assert sum(one.replays for one in graphs) > 10
    assert all(one.possible for one in graphs), "a step of this family cannot be captured"


def test_a_step_that_cannot_be_captured_runs_launch_by_launch(
    fresh: Any, as_on_cuda: list[FakeCudaGraphs]
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
    assert as_on_cuda[0].possible and as_on_cuda[0].replays
    assert not as_on_cuda[1].possible and not as_on_cuda[1].replays


def test_a_graph_that_memory_does_not_suffice_for_is_done_without() -> None:
    class Full(FakeCudaGraphs):
        def _record(self, step: Callable[[], None]) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    subject, steps = Full(), []
    for _ in range(5):
        subject.run("key", lambda: steps.append(1))
    assert len(steps) == 5 and not subject.possible


class Made(TorchDispatchMode):
    """Knows which tensors were made while it was on, and which of them are left."""

    def __init__(self) -> None:
        super().__init__()
        self._made: list[weakref.ref[torch.Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {id(leaf) for leaf in tree_leaves((args, kwargs))}
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self._made += [weakref.ref(tensor) for tensor in made if id(tensor) not in given]
        return out

    def left(self) -> list[torch.Size]:
        alive = [made() for made in self._made]
        return [tensor.shape for tensor in alive if tensor is not None]


class Tidy(CudaGraphs):
    """Runs steps as they are, and notes what they leave."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"), Model())
        self.left: dict[Any, list[torch.Size]] = {}

    def run(self, key: Any, step: Callable[[], None]) -> bool:
        with Made() as made:
            step()
        self.left[key] = made.left()
        return True


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
@pytest.mark.parametrize("guessed", [True, False])
def test_a_step_leaves_no_tensor_that_it_made(
    backend: Any, model_type: str, guessed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lives on in memory that belongs to a graph is freed by another, or by none."""
    subject = backend(model_type, heads=model_type.startswith("qwen3_5"))
    tidy, worth = Tidy(), type("Settled", (AdaptiveSpeculation,), {"pays": guessed})
    monkeypatch.setattr(batch, "step_policy", lambda _: StepPolicy(1, True, 0.5, tidy))
    monkeypatch.setattr(subject, "adaptive_lookup", worth())
    monkeypatch.setattr(subject, "adaptive_mtp", worth())
    monkeypatch.setattr(ActiveRequest, "draft", lambda self: [7] * (len(self.row.ids) % 3))
    monkeypatch.setattr(subject.chat_template, "eos_ids", frozenset())
    subject.prefix_cache.clear()
    subject.generate([ask("one", picture(50, 80), tokens=30)])
    subject.generate([ask("two", tokens=20), ask("three", tokens=12, temperature=0.7, top_p=0.5)])
    assert {key[0] == "check" for key in tidy.left} >= {guessed}
    assert not any(tidy.left.values()), tidy.left


class FakeCuda:
    """What a capture calls, noted in order; nothing runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: str = ""):
        self.calls: list[str] = []
        self.mode = "default"
        note, calls = self._noting, self.calls

        class Graph:
            def capture_begin(self, *_: Any, **__: Any) -> None:
                calls.append("begin")

            def capture_end(self) -> None:
                calls.append("end")
                if error:
                    raise RuntimeError(error)

            def replay(self) -> None:
                calls.append("replay")

        def set_mode(mode: str) -> None:
            self.mode = mode

        class Stream:
            def wait_stream(self, _: Any) -> None:
                calls.append("wait")

        monkeypatch.setattr(cuda_graphs, "_stream", lambda device: Stream())
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", lambda *_: calls.append("unwind"))
        for name, made in {
            "CUDAGraph": Graph,
            "graph_pool_handle": lambda: "pool",
            "synchronize": lambda: None,
            "current_device": lambda: 0,
            "current_stream": lambda device: Stream(),
            "device": note("device"),
            "stream": note("stream"),
            "get_sync_debug_mode": lambda: self.mode,
            "set_sync_debug_mode": set_mode,
        }.items():
            monkeypatch.setattr(torch.cuda, name, made)

    def _noting(self, name: str) -> Any:
        @contextmanager
        def entered(_: Any) -> Iterator[None]:
            self.calls.append(f"{name} in")
            try:
                yield
            finally:
                self.calls.append(f"{name} out")

        return entered


def test_a_capture_is_one_and_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, modes, alone = FakeCuda(monkeypatch), [], []
    subject = CudaGraphs(torch.device("cuda:1"), Model())

    def step() -> None:
        cuda.calls.append("step")
        modes.append(cuda.mode)
        alone.append(cuda_graphs._CAPTURING.locked())

    typical = [subject.run("key", step) for _ in range(4)]
    assert " ".join(cuda.calls) == (
        "step wait stream in step stream out wait "
        "device in stream in begin step end stream out device out "
        "device in replay device out device in replay device out"
    )
    assert modes == ["default", "warn", "default"], "the second run is watched"
    assert alone == [False, True, True], "nobody else launches on the stream of captures"
    assert typical == [False, False, False, True]
    subject.forget()
    assert not subject.run("key", step) and cuda.calls[-1] == "step"


def test_a_capture_that_fails_leaves_its_stream_and_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, model = FakeCuda(monkeypatch, "operation failed due to a previous error"), Model()
    for _ in range(2):
        subject = CudaGraphs(torch.device("cuda:0"), model)
        for _ in range(4):
            subject.run("key", lambda: cuda.calls.append("step"))
    assert cuda.calls.count("begin") == 1
    assert cuda.calls.count("stream in") == cuda.calls.count("stream out") == 2
    assert cuda.calls.count("step") == 9, "one of them was recorded and not run"
    assert cuda.calls.count("unwind") == 1


def test_a_capture_that_cannot_even_begin_is_unwound(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda(monkeypatch)

    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_begin", refused)
    subject = CudaGraphs(torch.device("cuda:0"), Model())
    for _ in range(4):
        subject.run("key", lambda: cuda.calls.append("step"))
    assert cuda.calls.count("unwind") == 1 and cuda.calls.count("step") == 4
    assert not subject.possible


def test_a_step_that_waits_for_the_device_is_never_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = FakeCuda(monkeypatch)
    subject = CudaGraphs(torch.device("cuda:0"), Model())

    def step() -> None:
        if cuda.mode == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        cuda.calls.append("step")

    for _ in range(5):
        subject.run("key", step)
    assert cuda.calls.count("step") == 5 and cuda.mode == "default"
    assert "begin" not in cuda.calls


def test_bad_numbers_in_one_round_are_told_a_round_later(
    fresh: Any, as_on_cuda: list[FakeCudaGraphs]
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
    monkeypatch.setattr(batch, "step_policy", lambda _: StepPolicy(fixed=True))
    monkeypatch.setattr(batch, "_Fetched", Unfetched)
    with FakeTensorMode(), torch.no_grad():
        with torch.device("cuda"):
            model = AutoModelForImageTextToText.from_config(config).eval()
        decoder = ModelRunner(model, config.image_token_id, 2)
        starts = []
        for _ in range(2):
            read, position = decoder.read([101, 102, 103], [])
            warm = Sampling(16, temperature=0.7, top_k=20, presence_penalty=1.5)
            row = Row(0, warm, [101, 102], frozenset({3}), (7, 8), thinking=True)
            choices = Sampler([row], decoder.device, len(read.logits))
            choices.prepare()
            choices.choose(read.logits[None])
            starts.append(NewRow(read, choices, 5, position, 60))
        subject = Batch(decoder)
        subject.add(starts)
        for _ in range(3):
            subject.launch()
            given: Any = subject.collect()
            assert given.device == torch.device("cuda:0") and given.shape == (2,)
        subject.keep([1])
        subject.launch()
        left: Any = subject.collect()
        assert left.shape == (1,)
