"""Prefill: how many passes a prompt takes, and what is kept of them for others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asking import ask, generated_ids, picture
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.inference import prefix_cache
from qwen_vl_suite.qwenvl.inference.model_runner import ModelRunner, Prefill
from qwen_vl_suite.qwenvl.types import LocalSpec
from torch.backends.cuda import cudnn_sdp_enabled, enable_cudnn_sdp


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of tokens of each pass of a prefill."""
    found: list[int] = []
    prefill = ModelRunner.prefill

    def counted(
        self: ModelRunner, ids: Any, spans: Any, images: Any = (), prefix: Any = None
    ) -> Any:
        found.append(len(ids) - (prefix.length if prefix else 0))
        return prefill(self, ids, spans, images, prefix)

    monkeypatch.setattr(ModelRunner, "prefill", counted)
    return found


@pytest.mark.parametrize("family, expected", [("qwen3_vl", 1), ("qwen2_5_vl", 1), ("qwen3_5", 2)])
def test_passes_over_a_new_picture_and_over_a_known_one(
    family: str, expected: int, backend: Callable[..., LocalBackend], passes: list[int]
) -> None:
    """States of linear attention are taken where the picture ends, between two passes."""
    subject, shown = backend(family), picture(90, 130)
    first, second = ask("What is it?", shown), ask("Where, exactly, is it?", shown)
    subject.prefix_cache.clear()
    subject.generate([first])
    assert len(passes) == expected
    passes.clear()
    answer = generated_ids(subject, second)
    prompt = subject.prompt(second)
    assert passes == [len(prompt.ids) - prompt.image_prefix], "only what follows the picture"
    subject.prefix_cache.clear()
    assert generated_ids(subject, second) == answer


@pytest.mark.parametrize("settings", [{"precision": "bf16"}, {"quantization": "8bit"}])
def test_answers_do_not_depend_on_what_was_asked_before(
    settings: dict[str, str], checkpoint: Callable[..., Path]
) -> None:
    """In numbers that depend on what else a pass holds."""
    if "quantization" in settings:
        pytest.importorskip("bitsandbytes")
    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu", **settings))
    asked = [ask("What is it?", picture(90, 130 + index), tokens=30) for index in range(4)]
    first = [subject.generate([one])[0] for one in asked]
    assert [subject.generate([one])[0] for one in asked] == first


def test_what_is_kept_of_a_prompt_holds_no_memory_of_its_rest(
    backend: Callable[..., LocalBackend],
) -> None:
    subject = backend("qwen3_vl")
    subject.prefix_cache.clear()
    subject.generate([ask("word " * 200, picture(90, 130))])
    kept = [entry for entry, _ in subject.prefix_cache._entries.values() if hasattr(entry, "cache")]
    layers = [layer for prefill in kept for layer in prefill.cache.layers]
    assert layers
    for layer in layers:
        assert layer.keys.untyped_storage().nbytes() == layer.keys.nbytes
        assert layer.values.untyped_storage().nbytes() == layer.values.nbytes


@pytest.mark.parametrize("optimize", ["auto", "off"])
def test_prompts_run_without_cudnn(optimize: str, checkpoint: Callable[..., Path]) -> None:
    """Which builds a plan for every new shape."""
    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu", optimize=optimize))
    enabled: list[bool] = []
    before = cudnn_sdp_enabled()
    enable_cudnn_sdp(True)
    try:
        layers = [layer for layer in subject.model.modules() if "Attention" in type(layer).__name__]
        for layer in layers:
            layer.register_forward_pre_hook(lambda *_: enabled.append(cudnn_sdp_enabled()))
        subject.generate([ask("What is it?", picture(90, 130), tokens=1)])
        assert len(enabled) >= len(layers) and not any(enabled)
    finally:
        enable_cudnn_sdp(before)


def test_what_the_prefix_cache_would_refuse_is_not_copied(
    backend: Callable[..., LocalBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = backend("qwen3_vl")
    request = ask("What is it?", picture(90, 130))
    copies: list[int] = []
    beginning = Prefill.beginning

    def copied(self: Prefill, length: int) -> Prefill:
        copies.append(length)
        return beginning(self, length)

    monkeypatch.setattr(Prefill, "beginning", copied)
    subject.prefix_cache.clear()
    subject.generate([request])
    assert len(copies) == 1
    subject.prefix_cache.clear()
    monkeypatch.setattr(prefix_cache, "MAX_BYTES", 1000)
    subject.generate([request])
    assert len(copies) == 1
