"""Plain executor: transformers' own ``generate``, by config, by option, or after a failure."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from asking import ask, picture, recorded_ids
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load, open_checkpoint
from qwen_vl_suite.qwenvl.errors import BadOption, NumericalError, OutOfMemory
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.inference.batch import Batch
from qwen_vl_suite.qwenvl.models.patches import PATCHES, mtp_head, patch_embedding
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Response, Sampling
from reference import Reference

FAMILY_NAMES = list(tiny.CONFIGS)
WARM = {"temperature": 1.0, "top_k": 40, "top_p": 0.9}


@pytest.fixture
def plain(checkpoint: Callable[..., Path]) -> Callable[..., LocalBackend]:
    def made(model_type: str, **options: Any) -> LocalBackend:
        folder = checkpoint(model_type, **options)
        return load(LocalSpec(str(folder), device="cpu", optimize="off"))

    return made


def questions() -> list[Request]:
    two = (picture(64, 96), picture(96, 64, seed=1))
    return [
        ask("What is it?", picture(50, 80)),
        ask("Both?", *two, tokens=24),
        ask("Only words.", tokens=12, presence_penalty=1.5),
        ask("Only words.", tokens=12, seed=3, repetition_penalty=1.3, **WARM),
        Request.ask(two[:1], "And?", "Be brief.", sampling=Sampling(9), logprobs=True),
    ]


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_the_plain_executor_answers_as_the_scheduler_does(
    backend: Any, plain: Any, model_type: str
) -> None:
    fast, slow = backend(model_type), plain(model_type)
    assert isinstance(slow.plain_reason, str) and not fast.plain_reason
    for ours, theirs in zip(fast.generate(questions()), slow.generate(questions()), strict=True):
        assert theirs.ids == ours.ids
        assert (theirs.text, theirs.usage, theirs.input_sizes, theirs.finish_reason) == (
            ours.text,
            ours.usage,
            ours.input_sizes,
            ours.finish_reason,
        )
        for token, other in zip(theirs.tokens, ours.tokens, strict=True):
            if other.logprob is not None:
                assert token.logprob == pytest.approx(other.logprob, abs=2e-4)
            else:
                assert token.logprob is None


def test_thoughts_are_limited_closed_and_split_off_in_the_same_way(
    checkpoint: Callable[..., Path],
) -> None:
    folder = str(checkpoint("qwen3_5", thinking="switch"))
    asked = [
        Request.ask((), "why?", sampling=Sampling(6, max_thinking_tokens=limit), thinking=True)
        for limit in (0, 5, 40)
    ]
    found = []
    for optimize in ("auto", "off"):
        with recorded_ids() as ids:
            answers = load(LocalSpec(folder, device="cpu", optimize=optimize)).generate(asked)
        found.append([(ids[n], answer.thinking, answer.text) for n, answer in enumerate(answers)])
    assert found[0] == found[1]


def test_optimize_off_leaves_every_patch_off(
    plain: Any, backend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert {patch.name for patch in PATCHES} == {"patch embedding", "fused RMS norms", "MTP head"}
    subject, patched = plain("qwen3_5", mtp=True), backend("qwen3_5", mtp=True)
    assert mtp_head.of(patched.model) is not None and mtp_head.of(subject.model) is None
    types = {type(module) for module in subject.model.modules()}
    assert patch_embedding.PatchEmbedding not in types
    ours = [kind for kind in types if not kind.__module__.startswith(("torch.", "transformers."))]
    assert ours == []
    monkeypatch.setattr(Batch, "launch", lambda _: pytest.fail("the scheduler ran"))
    assert subject.generate([ask("who?", picture(50, 80))])[0].text


def test_other_options_of_optimize_are_refused(checkpoint: Callable[..., Path]) -> None:
    with pytest.raises(BadOption, match="optimize is 'on'; use one of auto, off"):
        open_checkpoint(LocalSpec(str(checkpoint("qwen3_vl")), optimize="on"))


class Streamed(Observer):
    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.order: list[tuple[str, int]] = []

    def token(self, index: int, text: str) -> None:
        self.texts[index] = self.texts.get(index, "") + text

    def restart(self, index: int) -> None:
        self.texts[index] = ""
        self.order.append(("restart", index))

    def done(self, index: int, response: Response) -> None:
        self.order.append(("done", index))


def test_text_is_streamed_and_an_interrupt_ends_the_run(plain: Any) -> None:
    subject, streamed = plain("qwen3_vl"), Streamed()
    asked = [ask("one", picture(50, 80), tokens=12), ask("two", tokens=8)]
    answers = subject.generate(asked, streamed)
    assert streamed.order == [("done", 0), ("done", 1)]
    for index, answer in enumerate(answers):
        assert answer.text.startswith(streamed.texts[index].strip()) and streamed.texts[index]
    for checks in (1, 2, 5, 20):
        with pytest.raises(Interrupt):
            subject.generate(asked, InterruptAt(checks))
    assert subject.generate(asked) == answers


def test_a_request_that_fails_fails_alone(plain: Any) -> None:
    subject = plain("qwen3_vl")
    asked = [ask("one", picture(50, 80)), ask("two", picture(64, 64)), ask("three")]
    expected, passes = subject.generate(asked), []

    def fill_with_nan(_module: Any, _args: Any, inputs: Any, out: Any) -> None:
        passes.append(inputs["input_ids"].shape[1])
        if sum(length > 1 for length in passes) == 2:
            out.logits.fill_(torch.nan)

    hook = subject.model.register_forward_hook(fill_with_nan, with_kwargs=True)
    try:
        found = subject.generate(asked)
    finally:
        hook.remove()
    assert isinstance(found[1].error, NumericalError)
    assert [answer.text for answer in found[::2]] == [answer.text for answer in expected[::2]]


def test_a_picture_too_large_for_memory_is_shown_smaller_or_given_up(plain: Any) -> None:
    subject, seen = plain("qwen3_vl"), []

    def run_out(_module: Any, args: Any, options: Any) -> None:
        seen.append(options["input_ids"].shape[1])
        if seen[-1] > 150:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hook = subject.model.register_forward_pre_hook(run_out, with_kwargs=True)
    large = {"sampling": Sampling(4), "min_pixels": 512 * 512}
    streamed = Streamed()
    try:
        found = subject.generate(
            [
                Request.ask((picture(512, 512),), "what?", **large),
                Request.ask((picture(512, 512),), "what?", may_shrink=True, **large),
                ask("words"),
            ],
            streamed,
        )
    finally:
        hook.remove()
    assert isinstance(found[0].error, OutOfMemory)
    assert found[1].error is None and found[1].usage.image_tokens < 150
    assert found[2].text and ("restart", 1) in streamed.order


# Chosen from the config


UNVERIFIED = [name for name, row in FAMILIES.items() if not row.scheduler_verified]


@pytest.mark.parametrize("model_type", UNVERIFIED)
def test_a_family_that_the_scheduler_was_not_verified_on_is_run_by_generate(
    checkpoint: Callable[..., Path], model_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = checkpoint(model_type)
    with caplog.at_level(logging.INFO):
        subject = open_checkpoint(LocalSpec(str(folder), device="cpu"))
    assert subject.place == "disk", "known before weights are read"
    (said,) = [r.message for r in caplog.records if "own generate" in r.message]
    assert model_type in said
    asked = [ask("What is it?", picture(64, 96)), ask("Only words.")]
    reference = Reference(folder, subject.chat_template)
    assert [list(answer.ids) for answer in subject.generate(asked)] == list(map(reference, asked))


def test_an_unknown_layer_of_the_cache_is_found_in_the_config(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Sliding windows, say, in a family whose models have none."""
    folder = Path(shutil.copytree(checkpoint("qwen2_5_vl"), tmp_path / "sliding"))
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    text |= {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 0}
    text.pop("layer_types", None)
    (folder / "config.json").write_text(json.dumps(config))
    subject = open_checkpoint(LocalSpec(str(folder), device="cpu"))
    assert "DynamicSlidingWindowLayer" in subject.plain_reason
    assert subject.generate([ask("go on", tokens=24)])[0].usage.new_tokens == 24


# After a failure


@pytest.fixture
def failing(
    checkpoint: Callable[..., Path], may_fall_back: None, monkeypatch: pytest.MonkeyPatch
) -> LocalBackend:
    """A model whose fourth decode step fails."""
    launch, steps = Batch.launch, []

    def failing_launch(self: Batch) -> None:
        steps.append(1)
        if len(steps) == 4:
            raise RuntimeError("CUDA error: a kernel of this step does not run here")
        launch(self)

    monkeypatch.setattr(Batch, "launch", failing_launch)
    return load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"))


def test_where_a_fast_path_fails_the_request_under_way_is_answered_all_the_same(
    failing: LocalBackend, plain: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """And all later ones, with one warning."""
    asked = [ask("one", picture(50, 80), tokens=2), ask("two", tokens=9), ask("three", tokens=12)]
    expected, streamed = plain("qwen3_vl").generate(asked), Streamed()
    with caplog.at_level(logging.WARNING):
        assert failing.generate(asked, streamed) == expected
        assert failing.generate(asked) == expected
    (warned,) = [r.message for r in caplog.records if "fast path" in r.message]
    assert "a kernel of this step does not run here" in warned
    assert streamed.order == [
        ("done", 0),
        ("restart", 1),
        ("restart", 2),
        ("done", 1),
        ("done", 2),
    ]
    assert not any(
        isinstance(part, patch_embedding.PatchEmbedding) for part in failing.model.modules()
    )


def test_what_a_caller_raises_is_no_failure_of_a_fast_path(
    checkpoint: Callable[..., Path], may_fall_back: None
) -> None:
    class Wish(RuntimeError):
        pass

    class Stop(Observer):
        def token(self, index: int, text: str) -> None:
            raise Wish

    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"))
    with pytest.raises(Wish):
        subject.generate([ask("one")], Stop())
    assert not subject.plain_reason


def test_the_plain_executor_has_nothing_to_fall_back_to(plain: Any, may_fall_back: None) -> None:
    subject = plain("qwen3_vl")
    hook = subject.model.register_forward_pre_hook(lambda *_: 1 / 0)
    try:
        with pytest.raises(ZeroDivisionError):
            subject.generate([ask("one")])
    finally:
        hook.remove()
    assert subject.plain_reason == "optimize is off" and not subject.has_failed
