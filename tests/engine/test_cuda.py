"""On a CUDA device: what runs there alone, on the real thing. Skipped where there is none.

Everything else that these paths do is tested on a pretended device, which tells nothing of
kernels, captures, streams, and the allocator.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.qwenvl import constraints
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.inference.cuda_graphs import CudaGraphs
from qwen_vl_suite.qwenvl.inference.fast_path_check import disagreement
from qwen_vl_suite.qwenvl.inference.generic import model_inputs
from qwen_vl_suite.qwenvl.media import images
from qwen_vl_suite.qwenvl.media.image_processor import ImageProcessor
from qwen_vl_suite.qwenvl.types import Image, LocalSpec, Message, Request, Response, Sampling, Video

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NANO = Path(__file__).parents[2] / "nano" / "checkpoint"
MODELS = [*(name for name in tiny.CONFIGS if name != "qwen4_exp"), "nano"]
ROUNDING = {"fp32": 0.05, "bf16": 0.5, "fp16": 0.25}
"""How far the order in which kernels add may move a log-probability."""


def noise(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def questions() -> list[Request]:
    """Different in images, prompts and length."""
    shown = [noise(150, 200), noise(64, 64), noise(90, 130)]
    asked = [
        ((shown[0],), "Describe this image.", 40),
        ((shown[0],), "Read all the text in the image.", 12),
        ((shown[1],), "Describe this image in detail.", 30),
        ((shown[1], shown[2]), "Describe both.", 20),
        ((), "Only words.", 8),
        ((shown[2],), "Locate every circle. Report bbox coordinates in JSON format.", 24),
    ]
    clip = Video(torch.stack([noise(64, 96), noise(64, 96).flip(0)] * 3), (0, 0.5, 1, 1.5, 2, 2.5))
    return [
        *(
            Request.ask(pictures, prompt, sampling=Sampling(tokens), logprobs=True)
            for pictures, prompt, tokens in asked
        ),
        Request(
            (Message("user", (Image(shown[1]), clip, "What happens?")),),
            sampling=Sampling(30),
            logprobs=True,
        ),
    ]


@pytest.fixture(scope="module")
def on_cuda(checkpoint: Callable[..., Path]) -> Callable[..., LocalBackend]:
    """``on_cuda("qwen3_vl", precision="bf16")`` is a loaded model."""

    @cache
    def loaded(name: str, mtp: bool = False, **settings: str) -> LocalBackend:
        folder = NANO if name == "nano" else checkpoint(name, mtp=mtp)
        backend = load(LocalSpec(str(folder), device="cuda", **settings))
        backend.chat_template.eos_ids = frozenset()  # answers of the same lengths
        return backend

    return loaded


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One for each step that was replayed from a graph."""
    found: list[Any] = []
    replay = CudaGraphs._replay

    def counted(self: CudaGraphs, graph: Any) -> None:
        found.append(graph)
        replay(self, graph)

    monkeypatch.setattr(CudaGraphs, "_replay", counted)
    return found


def can_be_captured(name: str, precision: str) -> bool:
    """torch multiplies the tokens of all experts by one kernel in bf16; else it waits for the
    device to hear how many tokens each has."""
    return precision == "bf16" or "moe" not in name


def answers(backend: LocalBackend, asked: list[Request]) -> list[Response]:
    backend.prefix_cache.clear()
    found = backend.generate(asked)
    assert not any(response.error for response in found)
    return found


def problems(
    plain: LocalBackend, fast: list[Response], asked: list[Request], tolerance: float
) -> list[str]:
    """Why answers of the fast paths are not as good as those of the plain one."""
    expected = answers(plain, asked)

    def why(request: Request, ours: Response, theirs: Response) -> str:
        def logprob(before: Any, token: int) -> float:
            prompt = plain.prompt(request)
            prompt.ids = [*prompt.ids, *before]
            with torch.no_grad():
                logits = plain.model(**model_inputs(plain.model, prompt)).logits[0, -1]
            return float(logits.float().log_softmax(-1)[token])

        # Frames are many more patches, and what is rounded in each adds up.
        allowed = tolerance * (2 if request.videos else 1)
        return disagreement(theirs, ours, allowed, logprob)

    return [why(*three) for three in zip(asked, fast, expected, strict=True)]


@pytest.mark.parametrize("precision", ROUNDING)
@pytest.mark.parametrize("name", MODELS)
def test_every_fast_path_agrees_with_the_plain_one(
    name: str, precision: str, on_cuda: Callable[..., LocalBackend], replays: list[Any]
) -> None:
    fast = on_cuda(name, precision=precision)
    found = [answers(fast, questions()), answers(fast, questions()[:1])]
    assert not fast.plain_reason
    assert not any((fast.fast_path_problems or {"": "unchecked"}).values())
    assert bool(replays) == can_be_captured(name, precision)
    plain = on_cuda(name, precision=precision, optimize="off")
    for responses in found:
        asked = questions()[: len(responses)]
        assert problems(plain, responses, asked, ROUNDING[precision]) == [""] * len(asked)


def test_answers_are_held_to_their_form(
    on_cuda: Callable[..., LocalBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llguidance")
    box = constraints.from_regex(r'(\{"bbox_2d": \[[0-9]{1,3}(, [0-9]{1,3}){3}\]\})+')
    words = constraints.from_choices(["a cat", "a dog"])
    asked = [replace(request, constraint=box) for request in questions()]
    asked.append(replace(asked[0], constraint=words))
    fast = on_cuda("qwen3_vl", precision="fp32")
    plain = on_cuda("qwen3_vl", precision="fp32", optimize="off")
    for backend in (fast, plain):  # an answer that is whole has to end
        template = backend.chat_template
        monkeypatch.setattr(template, "eos_ids", frozenset({template.tokenizer.eos_token_id}))
    expected = answers(plain, asked)
    assert expected[-1].text in ("a cat", "a dog")
    for requests in (asked, asked[:1]):  # step by step, and with what is forced as drafts
        found = answers(fast, requests)
        assert [one.text for one in found] == [one.text for one in expected[: len(found)]]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_drafts_of_the_mtp_head_agree(precision: str, on_cuda: Callable[..., LocalBackend]) -> None:
    fast = on_cuda("qwen3_5", mtp=True, precision=precision)
    found = answers(fast, questions()[:1])
    assert (fast.fast_path_problems or {})["MTP drafts"] == ""
    plain = on_cuda("qwen3_5", mtp=True, precision=precision, optimize="off")
    assert problems(plain, found, questions()[:1], ROUNDING[precision]) == [""]


@pytest.mark.parametrize("bits", ["4bit", "8bit"])
def test_quantized_weights(bits: str, on_cuda: Callable[..., LocalBackend]) -> None:
    pytest.importorskip("bitsandbytes")
    fast = on_cuda("nano", quantization=bits, precision="bf16")
    found = answers(fast, questions())
    plain = on_cuda("nano", quantization=bits, precision="bf16", optimize="off")
    assert problems(plain, found, questions(), 1.0) == [""] * len(questions())


def test_sampling_is_the_same_with_the_same_seed(on_cuda: Callable[..., LocalBackend]) -> None:
    backend = on_cuda("qwen3_vl", precision="fp32")
    asked = [
        Request.ask((noise(64, 64),), "What?", sampling=Sampling(24, temperature=1.0, seed=seed))
        for seed in (1, 2, 3)
    ]
    together = [response.ids for response in answers(backend, asked)]
    alone = [answers(backend, [request])[0].ids for request in asked]
    assert together == alone and len(set(together)) == 3


def test_models_answer_in_threads_at_once(on_cuda: Callable[..., LocalBackend]) -> None:
    """Captures of one model do not record what another launches."""
    names = ["qwen3_vl", "qwen3_5", "nano"]
    models = [on_cuda(name, precision="fp32") for name in names]
    alone = [[r.ids for r in answers(model, questions())] for model in models]
    found: dict[int, list[Any]] = {}

    def ask(index: int) -> None:
        found[index] = [[r.ids for r in answers(models[index], questions())] for _ in range(3)]

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(len(models))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(len(models))] == [[ids] * 3 for ids in alone]


def test_after_an_interrupt_and_moves(on_cuda: Callable[..., LocalBackend]) -> None:
    backend = on_cuda("qwen3_vl", precision="fp32")
    expected = [response.ids for response in answers(backend, questions())]
    for checks in (2, 9, 20):
        with pytest.raises(Interrupt):
            backend.generate(questions(), InterruptAt(checks))
        assert [response.ids for response in answers(backend, questions())] == expected
    for move_out in (backend.offload, backend.release, backend.prefix_cache.offload):
        move_out()
        assert [response.ids for response in backend.generate(questions())] == expected


@pytest.fixture
def whole_memory() -> Iterator[None]:
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_memory_comes_back() -> None:
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    backend = load(LocalSpec(str(NANO), device="cuda", precision="bf16"))
    answers(backend, questions())
    assert torch.cuda.memory_allocated() > before
    backend.release()
    assert torch.cuda.memory_allocated() <= before
    answers(backend, questions())
    backend.close()
    assert torch.cuda.memory_allocated() <= before


def test_memory_that_runs_out_costs_time_only(whole_memory: None) -> None:
    """The driver says that memory is free which the allocator then does not get."""
    backend = load(LocalSpec(str(NANO), device="cuda", precision="fp32"))
    asked = [
        Request.ask((noise(448, 448 + 28 * index),), "What?", sampling=Sampling(24))
        for index in range(16)
    ]
    answers(backend, asked[:1])
    gc.collect()
    torch.cuda.empty_cache()
    held = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    expected = [response.ids for response in answers(backend, asked)]
    needed = torch.cuda.max_memory_reserved() - held
    backend.prefix_cache.clear()
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + needed / 2) / total)
    assert [response.ids for response in answers(backend, asked)] == expected
    assert not backend.plain_reason
    backend.close()


@pytest.mark.parametrize("at", ["cpu", "cuda"])
def test_pixels_are_those_of_the_cpu(at: str) -> None:
    """Resized as floats, one value in 150 is rounded to the level beside."""
    rule = ImageProcessor(patch_size=16, max_pixels=2**20)
    image = torch.rand(2, 600, 431, 3, generator=torch.Generator().manual_seed(1))
    expected = rule.pixel_values(images.pictures(image), "cpu")
    found = rule.pixel_values(images.pictures(image.to(at)), "cuda").cpu()
    levels = (found - expected).abs() * min(rule.image_std) * 255
    assert levels.max() < 2.2
    assert (levels > 0.5).float().mean() < 0.02 and (levels > 1.5).float().mean() < 1e-4
