"""Memory: residency of weights, memory estimates, and recovery when memory runs out.

There is no second device here: moves show in a model's parameters, and running out of memory is
simulated by a model that raises beyond a small number of tokens.
"""

from __future__ import annotations

import dataclasses
import gc
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load, open_checkpoint
from qwen_vl_suite.qwenvl.errors import BadOption, OutOfMemory, QwenVLError
from qwen_vl_suite.qwenvl.inference.memory_model import (
    MemoryModel,
    TokenNeed,
    out_of_memory_error,
    token_need,
)
from qwen_vl_suite.qwenvl.inference.speculative.verify import MAX_DRAFT_TOKENS
from qwen_vl_suite.qwenvl.models import ram
from qwen_vl_suite.qwenvl.models import weights as weights_module
from qwen_vl_suite.qwenvl.models.memory import Memory, is_out_of_memory
from qwen_vl_suite.qwenvl.models.weights import Weights
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Response, Sampling
from qwen_vl_suite.qwenvl.yarn import context_length

CPU = torch.device("cpu")
GREEDY = Sampling(max_new_tokens=12)


class Model(torch.nn.Linear):
    """Ten weights, a bias, and one buffer tied to the weights."""

    def __init__(self) -> None:
        super().__init__(10, 1)
        self.register_buffer("tied", self.weight.data)


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The devices that models were moved to."""
    log: list[str] = []
    monkeypatch.setattr(weights_module, "move", lambda model, device: log.append(device.type))
    return log


def weights(shares: dict[torch.device, int] | None = None) -> tuple[Weights, list[Any]]:
    log: list[Any] = []

    def read(progress: Any) -> Model:
        log.append("read")
        if progress:
            progress(1, 1)
        return Model()

    return Weights(read, shares or {CPU: 1}), log


def test_weights_are_read_once_then_offloaded_and_loaded_again(moves: list[str]) -> None:
    subject, log = weights()
    assert (subject.place, subject.nbytes, subject.model) == ("disk", 0, None)
    model = subject.load()
    assert subject.load() is model
    assert (subject.place, subject.nbytes) == ("device", 44)
    subject.offload()
    subject.offload()
    assert (subject.place, subject.nbytes) == ("ram", 44)
    assert subject.load() is model and subject.place == "device"
    assert (log, moves) == (["read"], ["cpu", "cpu"])
    subject.release()
    assert (subject.place, subject.nbytes, subject.size) == ("disk", 0, 44)
    assert subject.load() is not model
    assert log == ["read", "read"]


def test_released_weights_leave_memory() -> None:
    subject, _ = weights()
    gone = weakref.ref(subject.load())
    subject.release()
    gc.collect()
    assert gone() is None


def test_weights_on_two_devices_are_released_instead_of_offloaded(moves: list[str]) -> None:
    subject, _ = weights({torch.device("cuda", 0): 5, torch.device("cuda", 1): 5})
    subject.load()
    subject.shares = {torch.device("cuda", 0): 22, torch.device("cuda", 1): 22}
    subject.offload()
    assert subject.place == "disk"
    assert moves == []


def test_weights_stay_on_disk_where_reading_raises() -> None:
    def progress(done: int, total: int) -> None:
        raise Interrupt

    subject, _ = weights()
    with pytest.raises(Interrupt):
        subject.load(progress)
    assert subject.place == "disk"
    assert isinstance(subject.load(), Model)


def picture(side: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)


def requests(count: int, side: int = 64, **fields: Any) -> list[Request]:
    return [
        Request.ask((picture(side, seed),), "what is it?", sampling=GREEDY, **fields)
        for seed in range(count)
    ]


def test_answers_are_the_same_after_offload_and_release(backend: Any) -> None:
    subject: LocalBackend = backend("qwen3_vl")
    asked = requests(3)
    first = subject.generate(asked)
    subject.offload()
    assert subject.nbytes and subject.generate(asked) == first
    subject.release()
    assert subject.nbytes == 0 and subject.model is None
    assert subject.generate(asked) == first


def test_opening_reads_no_weights_and_the_first_question_does(checkpoint: Any) -> None:
    class Seen(Observer):
        loaded = (0, 0)

        def loading(self, done: int, total: int) -> None:
            self.loaded = done, total

    subject = open_checkpoint(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"))
    assert subject.nbytes == 0
    assert subject.max_pixels and not subject.thinks()
    observer = Seen()
    subject.generate(requests(1), observer)
    assert subject.nbytes == subject.weights.size > 0
    done, total = observer.loaded
    assert done == total > 0
    subject.close()
    assert subject.nbytes == 0
    with pytest.raises(QwenVLError, match="unloaded"):
        subject.generate(requests(1))


class Small(Memory):
    """A memory manager with ``room`` bytes that records the workspace it is asked for."""

    def __init__(self, room: int = 10**12):
        self.room = room
        self.asked: list[int] = []
        self.evictions = 0

    def bring(self, weights: Weights, work: int, progress: Any = None) -> None:
        self.asked.append(work)
        super().bring(weights, work, progress)

    def free(self, device: torch.device) -> int:
        return self.room

    def evict_others(self, weights: Weights) -> None:
        self.evictions += 1


def given_cache(given: dict[str, Any]) -> Any:
    """The KV cache among the arguments of the language model, under its new name or its old one."""
    return given["cache"] if "cache" in given else given.get("past_key_values")


@contextmanager
def limited_to(subject: LocalBackend, tokens: int) -> Iterator[list[tuple[int, int]]]:
    """The model runs out of memory in any forward pass over more than ``tokens`` tokens in all.
    Yields the (rows, length) of the passes that were begun."""
    passes: list[tuple[int, int]] = []
    inner = subject.model.model.language_model

    def before(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        rows, new = given["inputs_embeds"].shape[:2]
        cache = given_cache(given)
        length = new + (cache.get_seq_length() if cache is not None else 0)
        passes.append((rows, length))
        if rows * length > tokens:
            raise torch.OutOfMemoryError("pretended: tried to allocate 3.00 GiB")

    hook = inner.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield passes
    finally:
        hook.remove()


class Recording(Observer):
    def __init__(self) -> None:
        self.restarted: list[int] = []
        self.finished: list[int] = []

    def restart(self, index: int) -> None:
        self.restarted.append(index)

    def done(self, index: int, response: Response) -> None:
        self.finished.append(index)


@pytest.fixture
def subject(checkpoint: Any) -> LocalBackend:
    return load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"), Small())


def test_a_batch_that_does_not_fit_is_halved_until_it_does(subject: LocalBackend) -> None:
    asked = requests(8)
    calm = subject.generate(asked)
    longest = max(r.usage.prompt_tokens + r.usage.new_tokens for r in calm)
    with limited_to(subject, 2 * (longest + MAX_DRAFT_TOKENS)) as passes:
        observer = Recording()
        assert subject.generate(asked, observer) == calm
    tried = [rows for rows, _ in passes if rows > 1]
    assert tried == sorted(tried, reverse=True) and {8, 4, 2} <= set(tried)
    assert sorted(observer.finished) == list(range(8)), "each is told of once"
    assert subject.memory.evictions == 2


def test_what_was_answered_before_memory_ran_out_is_kept(subject: LocalBackend) -> None:
    asked = requests(4)
    short = Sampling(max_new_tokens=2)
    asked[1] = Request.ask(asked[1].images, asked[1].prompt, sampling=short)
    calm = subject.generate(asked)
    prompt = max(response.usage.prompt_tokens for response in calm)
    with limited_to(subject, 4 * (prompt + 1)):  # the third token is too much
        observer = Recording()
        assert subject.generate(asked, observer) == calm
    assert 1 not in observer.restarted
    assert observer.finished[0] == 1
    assert set(observer.restarted) == {0, 2, 3}


def test_the_budget_keeps_batches_small_before_memory_runs_out(
    subject: LocalBackend,
) -> None:
    asked = requests(8)
    calm = subject.generate(asked)
    need = token_need(subject.prompt(asked[0]))
    costs = MemoryModel.from_model(subject.model)
    subject.memory.room = int(costs.peak_bytes([need] * 3) / 0.85)
    subject.memory.asked.clear()
    with limited_to(subject, 10**9) as passes:
        assert subject.generate(asked) == calm
    assert subject.memory.asked == [0, costs.peak_bytes([need] * 8)], "asked for the best, once"
    assert max(rows for rows, _ in passes) == 3, "but no more at once than there is room for"


def test_pixels_are_halved_only_where_that_is_allowed(subject: LocalBackend) -> None:
    wide = {"side": 512, "max_pixels": 512 * 512}
    (asked,) = requests(1, **wide)
    tokens = subject.generate([asked])[0].usage.image_tokens
    with limited_to(subject, tokens // 2 + 40):
        (refused,) = subject.generate([asked])
        (shrunk,) = subject.generate(requests(1, may_shrink=True, **wide))
    assert refused.finish_reason == "error" and refused.text == ""
    assert isinstance(refused.error, OutOfMemory)
    assert shrunk.error is None
    assert shrunk.usage.image_tokens <= tokens // 2
    height, width = shrunk.input_sizes[0]
    assert height * width <= 512 * 512 // 2


def test_one_that_never_fits_does_not_lose_the_others(subject: LocalBackend) -> None:
    small, large, task = picture(64), picture(512), describe("short")
    how: dict[str, Any] = {"sampling": GREEDY, "max_pixels": 512 * 512}
    calm = run.answer(subject, task, [small], **how)
    with limited_to(subject, 200):
        observer = Recording()
        with pytest.raises(OutOfMemory, match=r"^Picture 2 of 3: Memory ran out"):
            run.answer(subject, task, [small, large, small], observer=observer, **how)
        assert sorted(observer.finished) == [0, 1, 2]
        kept = run.answer(subject, task, [small, large], keep_unreadable=True, **how)
    assert kept[0] == calm[0]
    assert "Memory ran out" in kept[1].error and kept[1].finish_reason == "error"


class OnlyOne(Memory):
    """A host with room for one model: loading it evicts the others, whatever they do. ``meeting``:
    a barrier for threads of both models, so that each holds what the other wants, if possible."""

    def __init__(self) -> None:
        self.models: list[Weights] = []
        self.meeting = threading.Barrier(2)

    def bring(self, weights: Weights, work: int, progress: Any = None) -> None:
        if work:
            with suppress(threading.BrokenBarrierError):
                self.meeting.wait(0.5)
        self._evict(weights)
        super().bring(weights, work, progress)

    def evict_others(self, weights: Weights) -> None:
        self._evict(weights)

    def _evict(self, weights: Weights) -> None:
        for other in self.models:
            if other is not weights:
                other.offload()


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """The results of ``calls``, each on a thread of its own; fails where one does not return."""
    given: list[Any] = [None] * len(calls)

    def work(place: int) -> None:
        given[place] = calls[place]()

    threads = [
        threading.Thread(target=work, args=(place,), daemon=True) for place in range(len(calls))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "they wait for one another"
    return given


@pytest.fixture
def rivals(checkpoint: Any) -> list[LocalBackend]:
    """Two models with room for one."""
    host = OnlyOne()
    found = [
        load(LocalSpec(str(checkpoint(name)), device="cpu"), host)
        for name in ("qwen2_5_vl", "qwen3_vl")
    ]
    host.models = [backend.weights for backend in found]
    return found


def test_models_that_evict_one_another_do_not_wait_for_one_another(
    rivals: list[LocalBackend],
) -> None:
    asked = requests(2)
    calm = [backend.generate(asked) for backend in rivals]

    def often(backend: LocalBackend) -> list[list[Response]]:
        return [backend.generate(asked) for _ in range(3)]

    calls = [partial(often, backend) for backend in rivals for _ in range(2)]
    assert in_threads(*calls) == [[answers] * 3 for answers in calm for _ in range(2)]


def test_recovery_from_out_of_memory_does_not_deadlock_with_an_eviction(
    rivals: list[LocalBackend],
) -> None:
    """One runs out of memory in mid-answer, while another thread waits to evict it."""
    asked = requests(4)
    one, other = rivals
    calm = other.generate(asked)
    begun, wanted = threading.Event(), threading.Event()
    offload = other.weights.offload

    def asked_to_leave() -> None:
        wanted.set()
        offload()

    class Slow(Observer):
        def token(self, index: int, text: str) -> None:
            begun.set()
            assert wanted.wait(60)

    def second() -> list[Response]:
        assert begun.wait(60)
        return one.generate(asked)

    longest = max(r.usage.prompt_tokens + r.usage.new_tokens for r in calm)
    other.weights.offload = asked_to_leave  # type: ignore[method-assign]
    with limited_to(other, 2 * (longest + MAX_DRAFT_TOKENS)):
        found, _ = in_threads(lambda: other.generate(asked, Slow()), second)
    assert found == calm


def test_waiting_for_a_model_can_be_interrupted(subject: LocalBackend) -> None:
    begun, stopped = threading.Event(), threading.Event()

    class Slow(Observer):
        def token(self, index: int, text: str) -> None:
            begun.set()
            assert stopped.wait(60)

    def second() -> None:
        assert begun.wait(60)
        with pytest.raises(Interrupt):
            subject.generate(requests(1), InterruptAt(3))
        stopped.set()

    in_threads(lambda: subject.generate(requests(1), Slow()), second)
    assert stopped.is_set()


def test_weights_that_do_not_fit_are_told_apart_from_pictures(checkpoint: Any) -> None:
    class Full(Small):
        def bring(self, weights: Weights, work: int, progress: Any = None) -> None:
            raise torch.OutOfMemoryError("pretended")

    with pytest.raises(OutOfMemory, match=r"weights need .* 2.0 MB is free"):
        load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"), Full(2_000_000))


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")], ids=repr
)
def test_out_of_memory_while_loading_is_not_blamed_on_the_checkpoint(
    checkpoint: Any, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    import transformers

    def from_pretrained(*_: Any, **__: Any) -> None:
        raise error

    folder = checkpoint("qwen3_vl")
    monkeypatch.setattr(
        transformers.AutoModelForImageTextToText, "from_pretrained", from_pretrained
    )
    with pytest.raises(OutOfMemory, match="weights need"):
        load(LocalSpec(str(folder), device="cpu"))


def test_an_interrupted_batch_leaves_no_tensors_behind(subject: LocalBackend) -> None:
    caches: list[Any] = []

    class Stopping(Observer):
        def token(self, index: int, text: str) -> None:
            raise Interrupt

    def before(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        caches.append(weakref.ref(given_cache(given)))

    hook = subject.model.model.language_model.register_forward_pre_hook(before, with_kwargs=True)
    with pytest.raises(Interrupt) as caught:
        subject.generate(requests(2), Stopping())
    hook.remove()
    subject.prefix_cache.clear()
    gc.collect()
    assert caught.value.__traceback__ is not None, "the error is still at hand, with its frames"
    assert caches and all(cache() is None for cache in caches)


def test_the_cache_is_free_as_soon_as_the_answers_are_there(
    subject: LocalBackend,
) -> None:
    """Without a garbage collection, which may be a long time off."""
    caches: list[Any] = []

    def before(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        caches.append(weakref.ref(given_cache(given).layers[0]))

    hook = subject.model.model.language_model.register_forward_pre_hook(before, with_kwargs=True)
    gc.disable()
    try:
        subject.generate(requests(2))
        subject.prefix_cache.clear()
        assert caches and all(cache() is None for cache in caches)
    finally:
        gc.enable()
        hook.remove()


def test_a_stop_while_pictures_are_looked_at_does_not_wait_for_the_pass(
    subject: LocalBackend,
) -> None:
    reached: list[int] = []
    hook = subject.model.lm_head.register_forward_hook(lambda *_: reached.append(1))
    with pytest.raises(Interrupt):
        subject.generate(requests(2), InterruptAt(5))
    hook.remove()
    assert not reached


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9.9 GB)"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
    ids=str,
)
def test_out_of_memory_is_recognised_in_every_wording(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


COSTS = MemoryModel(
    kv=1000,
    linear_state=0,
    prefill=5000,
    mask=3,
    scores=3,
    vision=40_000,
    features=0,
    logits=100_000,
)


@pytest.mark.parametrize(
    ("need", "free", "advice"),
    [
        (TokenNeed(4200, 500, 4096), 50_000_000, "With max_pixels"),
        (TokenNeed(100, 90_000, 50), 50_000_000, "With max_new_tokens"),
        (TokenNeed(100, 100, 50), 1000, "smaller model"),
    ],
    ids=["a large picture", "a long answer", "nothing helps"],
)
def test_the_error_says_what_would_fit(need: TokenNeed, free: int, advice: str) -> None:
    words = str(out_of_memory_error(need, COSTS, free, 32))
    assert advice in words
    if "max_pixels" in advice:
        tokens = int(words.split("max_pixels ")[1].split()[0]) // 32**2
        fits = TokenNeed(need.prompt - need.image + tokens, need.answer, tokens)
        above = TokenNeed(fits.prompt + 1, need.answer, tokens + 1)
        assert COSTS.peak_bytes([fits]) <= free < COSTS.peak_bytes([above])


@pytest.mark.parametrize(("rows", "states"), [(1, 2), (2, 4), (8, 10)])
def test_states_that_are_copied_for_checks_count(rows: int, states: int) -> None:
    """A row that is alone has its states twice, and so has an empty slot beside it."""
    state = 1_000_000
    costs = MemoryModel(
        kv=0, linear_state=state, prefill=0, mask=0, scores=0, vision=0, features=0, logits=0
    )
    assert costs.peak_bytes([TokenNeed(10, 10)] * rows) == pytest.approx(1.2 * states * state)


def measured(subject: LocalBackend, asked: Sequence[Request], new: bool = True) -> int:
    """Peak bytes of the tensors created while answering. ``new``: nothing is cached of what they
    show."""
    from torch.profiler import ProfilerActivity, profile

    if new:
        subject.prefix_cache.clear()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        subject.generate(asked)
    events = profiler.profiler.kineto_results.events()
    changes = [(e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]"]
    used = most = 0
    for _, nbytes in sorted(changes):
        used += nbytes
        most = max(most, used)
    return most


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"])
@pytest.mark.parametrize(("count", "side"), [(1, 512), (6, 256)])
def test_the_costs_are_neither_short_nor_wasteful(
    backend: Any, model_type: str, count: int, side: int
) -> None:
    subject: LocalBackend = backend(model_type)
    asked = requests(count, side)
    responses = subject.generate(asked)  # what is made once is not counted
    needs = [TokenNeed(r.usage.prompt_tokens, 12, r.usage.image_tokens) for r in responses]
    expected = MemoryModel.from_model(subject.model).peak_bytes(needs)
    most = measured(subject, asked)
    assert most <= expected
    assert expected <= 4 * most


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5"])
@pytest.mark.parametrize("pictures", [0, 1], ids=["words alone", "words behind a known picture"])
def test_the_costs_of_long_prompts_are_neither_short_nor_wasteful(
    backend: Any, model_type: str, pictures: int
) -> None:
    subject: LocalBackend = backend(model_type)
    asked = Request.ask(
        (picture(64),) * pictures, "no " * 1000, sampling=Sampling(max_new_tokens=1)
    )
    subject.generate([asked])
    need = token_need(subject.prompt(asked))
    assert need.prompt > 3000
    expected = MemoryModel.from_model(subject.model).peak_bytes([need])
    most = measured(subject, [asked], new=not pictures)
    assert most <= expected
    assert expected <= 4 * most


LONG = 4096
"""What the tiny models' configs have as their context."""


@pytest.mark.parametrize("words", [LONG, 3 * LONG])
def test_a_prompt_beyond_the_context_costs_only_its_own_answer(
    subject: LocalBackend, words: int
) -> None:
    asked = requests(3)
    calm = subject.generate(asked)
    asked[1] = Request.ask(asked[1].images, "no " * words, sampling=GREEDY)
    observer = Recording()
    found = subject.generate(asked, observer)
    assert [found[0], found[2]] == [calm[0], calm[2]]
    refused = found[1]
    assert isinstance(refused.error, BadOption) and refused.finish_reason == "error"
    length = int(str(refused.error).split("prompt is ")[1].split()[0])
    assert length > words and str(LONG) in str(refused.error)
    assert sorted(observer.finished) == [0, 1, 2]
    subject.release()
    with pytest.raises(BadOption, match=rf"{length} tokens .* {LONG} "):
        subject.generate([asked[1]])
    assert subject.place == "disk", "nothing was brought for it"


@pytest.mark.parametrize("thinking", ["", "always"])
def test_an_answer_ends_with_the_context_and_says_so(
    backend: Any, thinking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject: LocalBackend = backend("qwen3_vl", thinking)
    monkeypatch.setattr(subject.chat_template, "eos_ids", frozenset())
    asked = Request.ask((picture(64),), "why?", sampling=Sampling(max_new_tokens=64))
    (calm,) = subject.generate([asked])
    assert calm.finish_reason == "length" and calm.notes == ()
    monkeypatch.setattr(subject, "context_length", calm.usage.prompt_tokens + 40)
    (cut,) = subject.generate([asked])
    fits = dataclasses.replace(asked, sampling=Sampling(5, max_thinking_tokens=5))
    (within,) = subject.generate([fits])
    assert cut.finish_reason == "length"
    assert cut.usage.prompt_tokens + cut.usage.new_tokens == calm.usage.prompt_tokens + 40
    (note,) = cut.notes
    assert str(calm.usage.prompt_tokens + 40) in note
    assert within.notes == () and within.usage.new_tokens <= 10 + len(
        subject.chat_template.think_end_ids
    )


CONTEXTS: dict[str, tuple[dict[str, Any], int | None]] = {
    "old form": ({"max_position_embeddings": 100}, 100),
    "inside the text's config": ({"text_config": {"max_position_embeddings": 100}}, 100),
    "the text's own counts": (
        {"max_position_embeddings": 7, "text_config": {"max_position_embeddings": 100}},
        100,
    ),
    "multimodal positions": (
        {
            "max_position_embeddings": 100,
            "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 1]},
        },
        100,
    ),
    "stretched": (
        {"max_position_embeddings": 100, "rope_scaling": {"type": "yarn", "factor": 4.0}},
        400,
    ),
    "stretched from what it was trained on": (
        {
            "max_position_embeddings": 350,
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 100,
            },
        },
        400,
    ),
    "stretching that is counted in": (
        {
            "max_position_embeddings": 500,
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 100,
            },
        },
        500,
    ),
    "nothing": ({}, None),
    "text": ({"max_position_embeddings": "long"}, None),
    "zero": ({"max_position_embeddings": 0}, None),
    "odd stretching": ({"max_position_embeddings": 100, "rope_scaling": "yarn"}, 100),
    "odd factor": (
        {"max_position_embeddings": 100, "rope_scaling": {"type": "yarn", "factor": "x"}},
        100,
    ),
}


@pytest.mark.parametrize("case", CONTEXTS)
def test_the_context_is_what_the_config_says(case: str) -> None:
    config, expected = CONTEXTS[case]
    assert context_length(config) == expected


class Ram(Memory):
    """``room`` bytes of RAM; a process that used more would be killed."""

    def __init__(self, room: int = 10**12):
        self.room = room

    def free(self, device: torch.device) -> int:
        return self.room


def test_on_a_processor_nothing_is_begun_that_does_not_fit(checkpoint: Any) -> None:
    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"), Ram())
    asked = requests(2)
    calm = subject.generate(asked)
    asked.insert(1, Request.ask(asked[0].images, "no " * 1000, sampling=GREEDY))
    needs = [dataclasses.replace(token_need(subject.prompt(each)), answer=1) for each in asked]
    costs = MemoryModel.from_model(subject.model)
    memory = subject.memory
    assert isinstance(memory, Ram)
    memory.room = int(costs.peak_bytes([needs[1]]) * 0.99)
    read: list[int] = []
    hook = subject.model.model.language_model.register_forward_pre_hook(
        lambda _module, _args, given: read.append(given["inputs_embeds"].shape[1]),
        with_kwargs=True,
    )
    found = subject.generate(asked)
    hook.remove()
    assert [found[0], found[2]] == calm
    assert isinstance(found[1].error, OutOfMemory)
    assert max(read) < 1000


def test_on_a_processor_an_answer_that_outgrows_ram_is_stopped_before_it_does(
    checkpoint: Any,
) -> None:
    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"), Ram())
    memory = subject.memory
    assert isinstance(memory, Ram)

    class Filling(Observer):
        tokens = 0

        def token(self, index: int, text: str) -> None:
            self.tokens += 1
            if self.tokens == 100:
                memory.room = 1000  # somebody else takes it

    subject.chat_template.eos_ids = frozenset()
    long = Sampling(max_new_tokens=400, temperature=1.0, seed=1)
    (whole,) = subject.generate([Request.ask((), "go on", sampling=long)])
    assert whole.usage.new_tokens == 400
    observer = Filling()
    (found,) = subject.generate([Request.ask((), "go on", sampling=long)], observer)
    assert isinstance(found.error, OutOfMemory)
    assert 100 <= observer.tokens <= 256


def test_on_a_processor_weights_that_do_not_fit_are_not_read(checkpoint: Any) -> None:
    subject = open_checkpoint(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"), Ram(10_000))
    with pytest.raises(OutOfMemory, match="weights need"):
        subject.generate(requests(1))
    assert subject.place == "disk"


GROUPS: dict[str, tuple[str, dict[str, str], int | None]] = {
    "no limit": ("0::/a", {"a/memory.max": "max\n", "a/memory.current": "5"}, None),
    "a limit": (
        "0::/a/b\n",
        {
            "a/b/memory.max": "1000\n",
            "a/b/memory.current": "700\n",
            "a/b/memory.stat": "anon 500\ninactive_file 150\nactive_file 50\n",
        },
        450,
    ),
    "a limit above": (
        "0::/a/b\n",
        {
            "a/memory.max": "1000\n",
            "a/memory.current": "900\n",
            "a/memory.stat": "inactive_file 0\n",
            "a/b/memory.max": "max\n",
        },
        100,
    ),
    "more used than allowed": (
        "0::/",
        {"memory.max": "10", "memory.current": "20", "memory.stat": "inactive_file 0"},
        0,
    ),
    "version 1": (
        "9:name=systemd:/x\n5:cpu,cpuacct:/x\n4:memory:/x\n0::/",
        {
            "memory/x/memory.limit_in_bytes": "1000",
            "memory/x/memory.usage_in_bytes": "600",
            "memory/x/memory.stat": "cache 9\ntotal_inactive_file 100\n",
        },
        500,
    ),
    "a path that is not mounted": (
        "0::/elsewhere/x",
        {"memory.max": "50", "memory.current": "20", "memory.stat": "inactive_file 0"},
        30,
    ),
}


@pytest.mark.parametrize("case", GROUPS)
def test_the_limits_of_containers_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    membership, files, expected = GROUPS[case]
    (tmp_path / "membership").write_text(membership)
    for name, words in files.items():
        (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / name).write_text(words)
    monkeypatch.setattr(ram, "_MEMBERSHIP", tmp_path / "absent")
    machine = ram.available()
    monkeypatch.setattr(ram, "_MEMBERSHIP", tmp_path / "membership")
    monkeypatch.setattr(ram, "_MOUNT", tmp_path / "mount")
    found = ram.available()
    assert found == expected if expected is not None else found > machine / 2
