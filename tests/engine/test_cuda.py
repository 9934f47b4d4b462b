"""On a CUDA device: what runs there alone, on the real thing. Skipped where there is none.

Everything else that these paths do is tested on a pretended device, which tells nothing of
kernels, captures, streams, and the allocator.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import adapters
import pytest
import regex
import tiny
import torch
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.qwenvl import constraints
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.inference import constraints as grammars
from qwen_vl_suite.qwenvl.inference import speech
from qwen_vl_suite.qwenvl.inference.cuda_graphs import CudaGraphs
from qwen_vl_suite.qwenvl.inference.fast_path_check import disagreement
from qwen_vl_suite.qwenvl.inference.generic import known_positions, model_inputs
from qwen_vl_suite.qwenvl.media import images
from qwen_vl_suite.qwenvl.media.image_processor import ImageProcessor
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import (
    Adapter,
    Audio,
    Constraint,
    Generated,
    Image,
    LocalSpec,
    Message,
    Part,
    Request,
    Response,
    Sampling,
    Video,
)

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
            return float(plain_logprobs(plain, request, before)[-1, token])

        # Frames are many more patches, sounds many steps: what is rounded in each adds up.
        allowed = tolerance * (2 if request.videos or request.sounds else 1)
        return disagreement(theirs, ours, allowed, logprob)

    return [why(*three) for three in zip(asked, fast, expected, strict=True)]


def plain_logprobs(plain: LocalBackend, request: Request, answer: Sequence[int]) -> torch.Tensor:
    """``[len(answer) + 1, V]``, on the CPU: the plain path's log-probabilities of each token of an
    answer, and of the one behind it."""
    prompt = plain.prompt(request)
    start = len(prompt.ids)
    prompt.ids = [*prompt.ids, *answer]
    with torch.no_grad(), known_positions(plain, prompt):
        logits = plain.model(**model_inputs(plain.model, prompt)).logits[0, start - 1 :]
    return logits.float().log_softmax(-1).cpu()


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


BOXES = r'(\{"bbox_2d": \[[0-9]{1,3}(, [0-9]{1,3}){3}\]\})+'


def allowed(plain: LocalBackend, form: Constraint, answer: Sequence[int]) -> torch.Tensor:
    """``[len(answer) + 1, V]``: which tokens a form allows in each place of an answer."""
    matcher = grammars.matcher(form, plain.chat_template, len(answer) + 1)
    assert matcher is not None
    words = torch.zeros(-(-tiny.VOCABULARY // 32), dtype=torch.int32)
    found = []
    for length in range(len(answer) + 1):
        matcher.follow(answer[:length])
        matcher.fill(words)
        found.append((words[:, None] >> torch.arange(32) & 1).flatten().bool())
    return torch.stack(found)[:, : tiny.VOCABULARY]


def problems_of_held(plain: LocalBackend, request: Request, found: Response) -> list[str]:
    """Tokens of a held answer, its end included, than which the plain path finds another one that
    the form allows more likely, or that it finds more or less likely than was said. All of them are
    looked at: with random weights two tokens may be so close that roundings decide, and from there
    on two answers are different ones."""
    assert request.constraint is not None
    tolerance = ROUNDING["fp32"] * (2 if request.videos else 1)
    scores = plain_logprobs(plain, request, found.ids)
    possible = allowed(plain, request.constraint, found.ids)
    best, others = scores.masked_fill(~possible, -torch.inf).max(-1)
    tokens = [(token.id, token.logprob) for token in found.tokens]
    if found.finish_reason == "stop":
        (end,) = plain.chat_template.eos_ids
        tokens.append((end, float(scores[-1, end])))
    return [
        f"token {place + 1} of {found.text!r} is {token} ({logprob}, by the plain path "
        f"{scores[place, token]}); the likeliest there is {others[place]} ({best[place]})"
        for place, (token, logprob) in enumerate(tokens)
        if not possible[place, token]
        or abs(scores[place, token] - (logprob or 0)) > tolerance
        or best[place] - scores[place, token] > 2 * tolerance
    ]


def test_answers_are_held_to_their_form(
    on_cuda: Callable[..., LocalBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("llguidance")
    asked = [replace(one, constraint=constraints.from_regex(BOXES)) for one in questions()]
    asked.append(replace(asked[0], constraint=constraints.from_choices(["a cat", "a dog"])))
    forms = [BOXES] * len(questions()) + ["a cat|a dog"]
    fast = on_cuda("qwen3_vl", precision="fp32")
    plain = on_cuda("qwen3_vl", precision="fp32", optimize="off")
    for backend in (fast, plain):  # an answer that is whole has to end
        template = backend.chat_template
        monkeypatch.setattr(template, "eos_ids", frozenset({template.tokenizer.eos_token_id}))
    # Step by step, and with what is forced as drafts.
    for backend, requests in ((plain, asked), (fast, asked), (fast, asked[:1])):
        for request, form, found in zip(requests, forms, answers(backend, requests), strict=False):
            is_cut = found.finish_reason == "length"
            assert found.held and (not is_cut or len(found.ids) == request.sampling.max_new_tokens)
            assert regex.fullmatch(form, found.text, partial=is_cut), found.text
            assert problems_of_held(plain, request, found) == []


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_drafts_of_the_mtp_head_agree(precision: str, on_cuda: Callable[..., LocalBackend]) -> None:
    fast = on_cuda("qwen3_5", mtp=True, precision=precision)
    found = answers(fast, questions()[:1])
    assert (fast.fast_path_problems or {})["MTP drafts"] == ""
    plain = on_cuda("qwen3_5", mtp=True, precision=precision, optimize="off")
    assert problems(plain, found, questions()[:1], ROUNDING[precision]) == [""]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_adapter_goes_on_and_off(
    precision: str,
    on_cuda: Callable[..., LocalBackend],
    checkpoint: Callable[..., Path],
    tmp_path: Path,
) -> None:
    pytest.importorskip("peft")
    adapters.make(tmp_path / "adapter", checkpoint("qwen3_vl"))
    fast = on_cuda("qwen3_vl", precision=precision)
    plain = on_cuda("qwen3_vl", precision=precision, optimize="off")
    ids = torch.arange(20, 32, device="cuda")[None]

    def logits(*wanted: Adapter) -> torch.Tensor:
        with fast.adapted(wanted, Observer()), torch.no_grad():
            fast.load_weights(0, Observer())
            found: torch.Tensor = fast.model(input_ids=ids).logits
            return found

    on = Adapter(str(tmp_path / "adapter"), 0.5)
    base, base_logits = answers(fast, questions()), logits()
    with fast.adapted([on], Observer()), plain.adapted([on], Observer()):
        found = [answers(fast, questions()), answers(fast, questions()[:1])]
        assert not any((fast.fast_path_problems or {"": "unchecked"}).values())
        for responses in found:
            asked = questions()[: len(responses)]
            assert problems(plain, responses, asked, ROUNDING[precision]) == [""] * len(asked)
    assert not any(one.ids == other.ids for one, other in zip(base, found[0], strict=True))
    assert not torch.allclose(logits(on), base_logits, atol=1)
    assert torch.equal(logits(), base_logits)
    after = answers(fast, questions())
    assert problems(plain, after, questions(), ROUNDING[precision]) == [""] * len(after)
    if precision == "fp32":
        assert [response.ids for response in after] == [response.ids for response in base]
    assert not fast.plain_reason


def sound(seconds: float, seed: int = 0) -> Audio:
    generator = torch.Generator().manual_seed(seed)
    return Audio(torch.randn(1, round(seconds * 16_000), generator=generator) * 0.1, 16_000)


def about(*parts: Part, tokens: int = 24) -> Request:
    return Request((Message("user", parts),), Sampling(tokens), logprobs=True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["qwen2_5_omni", "qwen3_omni_moe"])
def test_sounds_and_videos_with_their_own(
    name: str, precision: str, on_cuda: Callable[..., LocalBackend]
) -> None:
    frames = torch.stack([noise(64, 96), noise(64, 96).flip(0)] * 3)
    video = Video(frames, (0, 0.5, 1, 1.5, 2, 2.5), sound(3.3, 1))
    asked = [
        about(sound(3.21), "What is heard?"),
        about("Here is ", Image(noise(64, 96)), sound(9.5, 2), "."),
        about(sound(3.21), "And who?", tokens=12),
        about("First", video, "What happens?"),
    ]
    fast = on_cuda(name, precision=precision)
    found = answers(fast, asked)
    assert not fast.plain_reason and len({response.ids for response in found}) == len(asked)
    plain = on_cuda(name, precision=precision, optimize="off")
    assert problems(plain, found, asked, ROUNDING[precision]) == [""] * len(asked)
    again = fast.generate(asked[2:])  # behind what was heard already
    assert all(response.usage.reused_tokens for response in again)
    assert problems(plain, again, asked[2:], ROUNDING[precision]) == ["", ""]


DEVICES = ("cpu", "cuda")


@pytest.mark.parametrize("name", ["qwen2_5_omni", "qwen3_omni_moe"])
def test_an_answer_is_spoken_as_on_the_cpu(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same random numbers: those of a CUDA device are others than the CPU's."""
    if not tiny.available(name):
        pytest.skip(f"transformers has no {name}")
    monkeypatch.setattr(speech, "MAX_CODES", 6)
    for function in ("multinomial", "randn"):
        monkeypatch.setattr(torch, function, drawn_on_the_cpu(getattr(torch, function)))
    folder = tiny.make(name, tmp_path / name, speaks=True)
    sampling = Sampling(4, seed=6)
    request = Request.ask((noise(64, 96),), "What?", "Speak.", sampling=sampling, voice="ethan")
    on_cpu, there = (load(LocalSpec(str(folder), device=at, precision="fp32")) for at in DEVICES)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        (expected,), (found,) = on_cpu.generate([request]), there.generate([request])
    assert found.ids == expected.ids and found.notes == expected.notes
    assert found.speech is not None and expected.speech is not None
    spoken, wave = found.speech.samples, expected.speech.samples
    assert spoken.shape == wave.shape and found.speech.rate == expected.speech.rate
    assert torch.isfinite(spoken).all() and wave.std() > 0.01
    assert (spoken - wave).abs().max() < 0.01 * wave.abs().max()
    there.close()


def drawn_on_the_cpu(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``torch.multinomial`` or ``torch.randn``, with the CPU's generator."""

    def draw(*given: Any, **options: Any) -> torch.Tensor:
        device = options.pop("device", None)
        tensors = [one for one in given if isinstance(one, torch.Tensor)]
        device = device or (tensors[0].device if tensors else "cpu")
        given = tuple(one.cpu() if isinstance(one, torch.Tensor) else one for one in given)
        return function(*given, **options).to(device)

    return draw


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen3_vl_moe", "qwen3_5", "qwen3"])
def test_a_next_turn_is_answered_as_if_all_was_read_anew(
    name: str, precision: str, on_cuda: Callable[..., LocalBackend]
) -> None:
    shown = () if name == "qwen3" else (Image(noise(90, 130)),)
    asked = replace(about(*shown, "What is it? " * 4, tokens=12), continues=True)
    fast = on_cuda(name, precision=precision)
    plain = on_cuda(name, precision=precision, optimize="off")
    (found,) = answers(fast, [asked])
    for words in ("And now?", "Why?"):
        known = len(fast.prompt(asked).ids)
        turns = (
            *asked.messages,
            Message("assistant", (Generated(found.ids),)),
            Message("user", (words,)),
        )
        asked = replace(asked, messages=turns)
        (found,) = fast.generate([asked])
        # All that was read and written, but for the last token, which no step has read.
        assert found.usage.reused_tokens >= known
        (anew,) = answers(fast, [asked])
        assert not anew.usage.reused_tokens
        for response in (found, anew):
            assert problems(plain, [response], [asked], ROUNDING[precision]) == [""]
        found = anew  # what is cached now
    assert not fast.plain_reason


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", tiny.TEXT_CONFIGS)
def test_a_model_that_reads_text_only(
    name: str, precision: str, on_cuda: Callable[..., LocalBackend], replays: list[Any]
) -> None:
    asked = [
        about("Only words.", tokens=24),
        about("a red circle and a blue square in the picture " * 4, tokens=30),
        about("Write a prompt.", tokens=9),
    ]
    fast = on_cuda(name, precision=precision)
    found = [answers(fast, asked), answers(fast, asked[:1])]
    assert not fast.plain_reason and bool(replays) == can_be_captured(name, precision)
    assert not any((fast.fast_path_problems or {"": "unchecked"}).values())
    plain = on_cuda(name, precision=precision, optimize="off")
    for responses in found:
        requests = asked[: len(responses)]
        assert problems(plain, responses, requests, ROUNDING[precision]) == [""] * len(requests)


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
