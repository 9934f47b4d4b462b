"""Model runner and prefix cache: rows in a batch generate what they generate alone, and images and
prefixes are run once."""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import tiny
import torch
from asking import KINDS
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Sampling

FAMILY_NAMES = list(tiny.CONFIGS)
GREEDY = Sampling(max_new_tokens=16)
WARM = Sampling(max_new_tokens=16, temperature=1.0, top_k=30, seed=5)


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width + seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def ask(words: str, *pictures: torch.Tensor, sampling: Sampling = GREEDY, **fields: Any) -> Request:
    return Request.ask(pictures, words, sampling=sampling, **fields)


@contextmanager
def counting(subject: LocalBackend) -> Iterator[dict[str, int]]:
    """How often the vision tower and the language model ran, and on how many tokens."""
    counts = {"images": 0, "passes": 0, "tokens": 0}
    model = subject.model
    tower = model.visual if hasattr(model, "visual") else model.model.visual
    language = model.get_decoder() if not hasattr(model, "thinker_config") else model.model
    language = getattr(language, "language_model", language)

    def encoded(*_: Any) -> None:
        counts["images"] += 1

    def passed(_module: Any, _args: Any, given: dict[str, Any]) -> None:
        counts["passes"] += 1
        counts["tokens"] += given["inputs_embeds"].shape[:2].numel()

    hooks = [
        tower.blocks[0].register_forward_pre_hook(encoded),
        language.register_forward_pre_hook(passed, with_kwargs=True),
    ]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture
def fresh(backend: Any) -> Any:
    """``fresh("qwen3_vl")``: the tiny model with an empty prefix cache and default limits."""

    def make(model_type: str) -> LocalBackend:
        subject: LocalBackend = backend(model_type)
        subject.prefix_cache.clear()
        subject.batch_limits = BatchLimits()
        return subject

    return make


@pytest.mark.parametrize("model_type", KINDS)
def test_rows_generate_in_a_batch_what_they_generate_alone(fresh: Any, model_type: str) -> None:
    subject = fresh(model_type)
    requests = [
        ask("what is it?", picture(50, 80)),
        ask("one word", picture(64, 64), sampling=Sampling(max_new_tokens=1)),
        ask("only words"),
        ask("both", picture(100, 100), picture(200, 64), system="brief"),
        ask("short", picture(33, 90), sampling=Sampling(max_new_tokens=4)),
        ask("warm", picture(50, 80), sampling=WARM),
        ask("long", picture(64, 64), sampling=Sampling(max_new_tokens=40)),
        ask("again", picture(90, 60), sampling=Sampling(16, repetition_penalty=1.3)),
    ]
    alone = []
    for request in requests:
        subject.prefix_cache.clear()
        alone += subject.generate([request])
    for rows in (2, 3, 8):
        subject.batch_limits = BatchLimits(rows=rows)
        assert subject.generate(requests) == alone, f"{rows} at once"
        assert subject.generate(requests[::-1])[::-1] == alone


def test_a_finished_rows_slot_is_taken_at_once(fresh: Any) -> None:
    """One long answer and many short ones, two at once: no more steps than the long one takes."""
    subject = fresh("qwen3_vl")
    long, short = Sampling(max_new_tokens=40), Sampling(max_new_tokens=4)
    asked = (ask(str(seed), picture(64, 64, seed), sampling=long) for seed in range(100, 200))
    # Random weights end some answers early.
    requests = [next(r for r in asked if subject.generate([r])[0].usage.new_tokens == 40)]
    requests += [ask(str(n), picture(64, 64, n), sampling=short) for n in range(1, 9)]
    alone = [subject.generate([request])[0] for request in requests]
    subject.batch_limits = BatchLimits(rows=2)
    with counting(subject) as counts:
        assert subject.generate(requests) == alone
    prompts = len(requests)  # their prefixes are cached since they were asked alone
    assert counts["passes"] - prompts <= 40


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_a_second_question_about_an_image_reuses_its_prefix(fresh: Any, model_type: str) -> None:
    subject = fresh(model_type)
    image = picture(150, 200)
    questions = [ask("what is it?", image), ask("where?", image, sampling=WARM)]
    expected = []
    for question in questions:
        subject.prefix_cache.clear()
        with counting(subject) as first:
            expected += subject.generate([question])
        assert first["images"] == 1
    subject.prefix_cache.clear()
    together = subject.generate(questions)
    with counting(subject) as counts:
        again = subject.generate(questions[1:])
    assert together == [expected[0], *again] == expected
    assert counts["images"] == 0
    assert counts["tokens"] <= first["tokens"] - together[1].usage.image_tokens


def test_answers_from_a_cached_prefix_do_not_change_it(fresh: Any) -> None:
    """Sampling shows tiny differences that greedy decoding would not."""
    subject = fresh("qwen3_5")
    question = ask("what is it?", picture(150, 200), sampling=WARM)
    answers = [subject.generate([question])[0] for _ in range(4)]
    assert len({answer.text for answer in answers}) == 1


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_an_image_is_encoded_once_whatever_stands_before_it(fresh: Any, model_type: str) -> None:
    """Another system prompt is another prefix, which is prefilled anew; the image's features are
    reused, also among other images."""
    subject = fresh(model_type)
    image, other = picture(150, 200), picture(64, 64)
    questions = [
        ask("what is it?", image),
        ask("what is it?", image, system="Be brief."),
        ask("and both?", other, image),
        ask("and both?", image, other, image),
    ]
    expected = []
    for question in questions:
        subject.prefix_cache.clear()
        expected += subject.generate([question])
    subject.prefix_cache.clear()
    with counting(subject) as counts:
        assert subject.generate(questions) == expected
    assert counts["images"] == 2
    subject.prefix_cache.clear()
    with counting(subject) as counts:
        assert subject.generate(questions[::-1]) == expected[::-1]
    assert counts["images"] == 2


OTHERS = {
    "one pixel": lambda image: {"image": flipped(image)},
    "pixel limit": lambda image: {"max_pixels": 16 * 1024},
    "orientation": lambda image: {"image": image.transpose(1, 2).contiguous()},
}


def flipped(image: torch.Tensor) -> torch.Tensor:
    changed = image.clone()
    changed[2, -1, -1] ^= 1
    return changed


@pytest.mark.parametrize("case", OTHERS, ids=str)
def test_anything_else_is_encoded_anew(fresh: Any, case: str) -> None:
    subject = fresh("qwen3_vl")
    image = picture(160, 160)
    subject.generate([ask("what is it?", image)])
    fields = OTHERS[case](image)
    with counting(subject) as counts:
        subject.generate([ask("what is it?", fields.pop("image", image), **fields)])
    assert counts["images"] == 1


def test_two_models_taking_turns_do_not_mix(checkpoint: Any, fresh: Any, tmp_path: Any) -> None:
    first = fresh("qwen3_vl")
    second = load(LocalSpec(str(tiny.make("qwen3_vl", tmp_path / "other", seed=4)), device="cpu"))
    question = ask("what is it?", picture(150, 200))
    alone = [subject.generate([question])[0] for subject in (first, second)]
    assert alone[0] != alone[1]
    for _ in range(2):
        assert [subject.generate([question])[0] for subject in (first, second)] == alone


def test_the_prefix_cache_goes_where_the_weights_go(fresh: Any) -> None:
    subject = fresh("qwen3_5")
    question = ask("what is it?", picture(150, 200))
    (expected,) = subject.generate([question])
    assert subject.prefix_cache.nbytes > 0
    subject.offload()
    with counting(subject) as counts:
        assert subject.generate([question]) == [expected]
    assert counts["images"] == 0
    subject.release()
    assert subject.prefix_cache.nbytes == 0
    assert subject.generate([question]) == [expected]


def test_an_interrupted_prefill_leaves_nothing_in_the_prefix_cache_half_done(fresh: Any) -> None:
    subject = fresh("qwen3_vl")
    questions = [ask("what is it?", picture(150, 200)), ask("where?", picture(64, 64))]
    expected = subject.generate(questions)
    for checks in (1, 3, 5, 7, 9, 12, 16):
        subject.prefix_cache.clear()
        with pytest.raises(Interrupt):
            subject.generate(questions, InterruptAt(checks))
        assert subject.generate(questions) == expected


def test_a_call_leaves_no_reference_circles(fresh: Any) -> None:
    subject, image = fresh("qwen3_vl"), picture(50, 80)
    gone = weakref.ref(image)
    gc.collect()
    gc.disable()
    try:
        subject.generate([ask("what is it?", image)])
        del image
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_forward_passes_use_nothing_that_transformers_deprecates(
    backend: Any, model_type: str
) -> None:
    """Prefill, decode steps, drafts by prompt lookup and, where there is one, the MTP head."""
    subject = backend(model_type, mtp=model_type.startswith("qwen3_5"))
    subject.prefix_cache.clear()
    questions = [ask("what is it?", picture(50, 80)), ask("one word", picture(64, 64))]
    with warnings.catch_warnings():
        for kind in (FutureWarning, DeprecationWarning):
            warnings.filterwarnings("error", category=kind, message=".*deprecated")
        subject.generate(questions)
        subject.generate(questions[:1])
