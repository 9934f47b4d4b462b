"""LoRA adapters: on, off and switched on one model, against peft's own merged model; and adapters
that do not belong to it, which are refused and never ignored."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import adapters
import pytest
import torch
from asking import ask, picture
from qwen_vl_suite.qwenvl.backends import base
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load, open_checkpoint
from qwen_vl_suite.qwenvl.checkpoints import transformers_version
from qwen_vl_suite.qwenvl.errors import (
    BadOption,
    CheckpointError,
    CheckpointNotFound,
    IncompleteCheckpoint,
    Unavailable,
    UnsupportedModel,
)
from qwen_vl_suite.qwenvl.models.adapters import Adapters
from qwen_vl_suite.qwenvl.models.quantization import allow_packing
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import Adapter, LocalSpec
from safetensors.torch import load_file

NEWEST = pytest.mark.skipif(
    transformers_version.is_older("5"), reason="of what is the same with both transformers"
)
IDS = torch.arange(20, 32)[None]
QUESTION = replace(ask("what is it?", picture(60, 90)), logprobs=True, continues=True)


@pytest.fixture(scope="module")
def subject(checkpoint: Callable[..., Path]) -> LocalBackend:
    """A model of its own: others should not find adapters on theirs."""
    return load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"))


@pytest.fixture(scope="module")
def made(checkpoint: Callable[..., Path], tmp_path_factory: Any) -> Callable[..., Any]:
    """``made(seed)``: an adapter's folder and the logits of peft's merged model on ``IDS``."""
    root = tmp_path_factory.mktemp("adapters")
    found: dict[int, Any] = {}

    def make(seed: int = 0) -> tuple[Path, torch.Tensor]:
        if seed not in found:
            folder = root / f"adapter {seed}"
            merged = adapters.make(folder, checkpoint("qwen3_vl"), seed).merge_and_unload()
            found[seed] = folder, logits(merged)
        return found[seed]

    return make


@pytest.fixture
def copy(made: Callable[..., Any], tmp_path: Path) -> Path:
    """An adapter to be changed."""
    return Path(shutil.copytree(made()[0], tmp_path / "mine"))


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS).logits
    return found


def with_on(subject: LocalBackend, *wanted: Adapter) -> torch.Tensor:
    with subject.adapted(wanted, Observer()):
        subject.load_weights(0, Observer())
        return logits(subject.model)


def on(folder: Path, strength: float = 1.0) -> Adapter:
    return Adapter(str(folder), strength)


def test_on_it_is_pefts_merged_model_and_off_it_is_the_one_that_was_loaded(
    subject: LocalBackend, made: Callable[..., Any]
) -> None:
    (first, merged), (second, _) = made(0), made(1)
    before, modules = logits(subject.model), [type(part) for part in subject.model.modules()]
    assert torch.allclose(with_on(subject, on(first)), merged, atol=1e-4)
    assert not torch.allclose(before, merged, atol=1)
    both = with_on(subject, on(first), on(second))
    assert not torch.allclose(both, merged, atol=0.1)
    assert torch.equal(with_on(subject, on(second), on(first, 0)), with_on(subject, on(second)))
    for off in ((), (on(first, 0),)):
        assert torch.equal(with_on(subject, *off), before)
    assert [type(part) for part in subject.model.modules()] == modules
    assert subject.nbytes == subject.weights.size


@NEWEST
def test_strength_scales_what_is_added(subject: LocalBackend, copy: Path) -> None:
    half = with_on(subject, on(copy, -0.5))
    adapters.change_config(copy, lora_alpha=-4)
    assert torch.allclose(with_on(subject, on(copy)), half, atol=1e-4)


@NEWEST
@pytest.mark.parametrize(
    ("model_type", "options"),
    [
        ("qwen3_vl", {"use_dora": True, "use_rslora": True, "targets": "all-linear"}),
        (
            "qwen2_5_vl",
            {"rank_pattern": {"layers.0.self_attn.q_proj": 2}, "alpha_pattern": {"up_proj": 3}},
        ),
        ("qwen3_5", {"targets": ("embed_tokens", "lm_head", "in_proj_qkv")}),
        ("qwen3_vl", {"modules_to_save": ["lm_head", "merger", "attention_layernorm"]}),
        ("qwen3", {"targets": "all-linear"}),
    ],
    ids=str,
)
def test_every_kind_of_lora(
    backend: Callable[..., LocalBackend],
    checkpoint: Callable[..., Path],
    tmp_path: Path,
    model_type: str,
    options: dict[str, Any],
) -> None:
    peft_model = adapters.make(tmp_path / "a", checkpoint(model_type), **options)
    subject, expected = backend(model_type), logits(peft_model)
    before = logits(subject.model)
    assert torch.allclose(with_on(subject, on(tmp_path / "a")), expected, atol=1e-4)
    assert not torch.allclose(before, expected, atol=0.1)
    if "modules_to_save" in options:
        with pytest.raises(BadOption, match=r"whole layers .* not 0\.5"):
            with_on(subject, on(tmp_path / "a", 0.5))
    assert torch.equal(with_on(subject), before)


@NEWEST
def test_answers_of_both_executors_and_of_turns_in_any_order(
    subject: LocalBackend, made: Callable[..., Any], checkpoint: Callable[..., Path]
) -> None:
    """By the scheduler, whose prefix cache knows what it read with which adapters, as by
    transformers' own generate on a model that has answered nothing else."""
    plain = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu", optimize="off"))
    models: list[Any] = []
    for wanted in ((), (on(made(0)[0]),), (on(made(1)[0], 0.7), on(made(0)[0]))):
        asked = (subject.with_adapters(wanted), plain.with_adapters(wanted))
        models.append((asked[0], [r.ids for r in asked[1].generate([QUESTION])]))
    assert len({ids[0] for _, ids in models}) == 3, "too alike to show anything"
    for turn in (0, 1, 0, 2, 1, 2, 0):
        model, expected = models[turn]
        assert [response.ids for response in model.generate([QUESTION])] == expected
    with ThreadPoolExecutor(3) as pool:  # whoever comes later waits for its turn
        running = [(pool.submit(model.generate, [QUESTION]), ids) for model, ids in models * 2]
        for future, ids in running:
            assert [response.ids for response in future.result()] == ids


@NEWEST
def test_the_model_is_read_once_and_adapters_move_and_go_with_it(
    checkpoint: Callable[..., Path], made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = open_checkpoint(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"))
    read, reads = subject.weights._read, []
    monkeypatch.setattr(subject.weights, "_read", lambda p: reads.append(1) or read(p))
    adapted = subject.with_adapters((on(made()[0]),))
    for protocol in vars(base).values():  # all that the model can do, but take adapters
        if getattr(protocol, "_is_runtime_protocol", False) and isinstance(subject, protocol):
            assert isinstance(adapted, protocol) or protocol is base.Adaptable, protocol
    answer = adapted.generate([QUESTION])
    file = made()[0] / "adapter_model.safetensors"
    assert 0 < adapted.nbytes - subject.weights.size <= file.stat().st_size
    subject.generate([QUESTION])
    assert adapted.generate([QUESTION]) == answer
    adapted.offload()
    assert adapted.generate([QUESTION]) == answer and len(reads) == 1
    subject.weights.release()  # as a host does
    assert adapted.nbytes == 0
    assert adapted.generate([QUESTION]) == answer and len(reads) == 2


@NEWEST
@pytest.mark.parametrize("warm", [False, True])
def test_a_layer_that_a_patch_replaces(
    checkpoint: Callable[..., Path], tmp_path: Path, warm: bool
) -> None:
    spec = LocalSpec(str(checkpoint("qwen3_vl")), device="cpu")
    adapters.make(tmp_path / "a", checkpoint("qwen3_vl"), targets=("q_proj", "proj"))
    subject = open_checkpoint(spec)
    if warm:
        base = subject.generate([QUESTION])
        subject.with_adapters((on(tmp_path / "a", 0),)).generate([QUESTION])
        assert subject.plain_reason == "", "an adapter that is off changes nothing"
    found = subject.with_adapters((on(tmp_path / "a"),)).generate([QUESTION])
    plain = open_checkpoint(replace(spec, optimize="off"))
    expected = plain.with_adapters((on(tmp_path / "a"),)).generate([QUESTION])
    assert [response.ids for response in found] == [response.ids for response in expected]
    assert "patch embedding" in subject.plain_reason
    if warm:
        assert subject.generate([QUESTION])[0].ids == base[0].ids != found[0].ids


@NEWEST
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_quantised_model(
    checkpoint: Callable[..., Path], made: Callable[..., Any], quantization: str
) -> None:
    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), quantization=quantization, device="cpu"))
    before, (folder, merged) = logits(subject.model), made()
    with_lora = with_on(subject, on(folder))
    assert (with_lora - merged).abs().mean() < 0.5 * (before - merged).abs().mean()
    assert torch.equal(with_on(subject), before)


@NEWEST
def test_dora_sees_4_bit_weights_that_were_used_before(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = checkpoint("qwen3_vl")
    adapters.make(tmp_path / "a", path, use_dora=True, targets="all-linear")
    spec = LocalSpec(str(path), quantization="4bit", device="cpu")
    used, fresh = load(spec), load(spec)
    before = logits(used.model)
    expected = with_on(fresh, on(tmp_path / "a"))
    assert torch.allclose(with_on(used, on(tmp_path / "a")), expected, atol=0.01)
    assert torch.equal(with_on(used), before)


@NEWEST
def test_packed_4_bit_weights_are_unpacked(checkpoint: Callable[..., Path]) -> None:
    """As processors with AVX512-BF16 have them packed at their first use."""
    from bitsandbytes import functional
    from bitsandbytes.nn import Linear4bit

    spec = LocalSpec(str(checkpoint("qwen3_vl")), quantization="4bit", device="cpu")
    model = load(spec).model
    layers = [module for module in model.modules() if isinstance(module, Linear4bit)]

    def weights() -> list[torch.Tensor]:
        states = [(layer.weight.data, layer.weight.quant_state) for layer in layers]
        return [functional.dequantize_4bit(*state).clone() for state in states]

    found = [weights()]
    for _ in range(2):
        for weight in (layer.weight for layer in layers):
            weight.data, weight.quant_state = functional._convert_weight_packed_for_cpu(
                weight.data, weight.quant_state
            )
        allow_packing(model, False)
        found.append(weights())
    for own, once, twice in zip(*found, strict=True):
        assert torch.allclose(own, once, rtol=2**-8)  # the packed scales are bfloat16
        assert torch.equal(once, twice)


@NEWEST
def test_weights_in_8_bit_floats_do_not_make_the_adapter_coarse(
    checkpoint: Callable[..., Path], made: Callable[..., Any]
) -> None:
    model = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu")).model
    stored = model.get_submodule("model.language_model.layers.0.self_attn.q_proj")
    stored.weight = torch.nn.Parameter(stored.weight.to(torch.float8_e4m3fn), requires_grad=False)
    Adapters().switch(model, (on(made()[0]),), "fp8")
    placed = model.get_submodule("model.language_model.layers.0.self_attn.q_proj")
    weights = load_file(made()[0] / "adapter_model.safetensors")
    for part in ("lora_A", "lora_B"):
        name = f"base_model.model.model.language_model.layers.0.self_attn.q_proj.{part}.weight"
        assert torch.equal(getattr(placed, part)["adapter_000"].weight, weights[name])


def test_where_putting_it_on_breaks_off_half_way_the_model_is_what_it_was(
    subject: LocalBackend, made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft.tuners.lora import LoraModel

    before, replace_module, count = with_on(subject), LoraModel._replace_module, []

    def breaks(self: Any, *given: Any) -> None:
        count.append(1)
        if len(count) > 3:
            raise ValueError("a bug")
        replace_module(self, *given)

    monkeypatch.setattr(LoraModel, "_replace_module", breaks)
    with pytest.raises(UnsupportedModel, match="cannot be put on qwen3_vl: a bug"):
        with_on(subject, on(made()[0]))
    assert torch.equal(with_on(subject), before) and subject.nbytes == subject.weights.size
    assert not [part for part in subject.model.modules() if hasattr(part, "base_layer")]


def test_another_name_of_the_base_is_told(
    subject: LocalBackend, copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with_on(subject, on(copy))
    assert "mine was trained on Qwen/Some-Base-2B, and is put on qwen3_vl" in caplog.text
    caplog.clear()
    adapters.change_config(copy, base_model_name_or_path="/home/somebody/qwen3_vl-bnb-4bit")
    with_on(subject, on(copy))
    assert "was trained on" not in caplog.text


def renamed(old: str, new: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda tensors: {name.replace(old, new): value for name, value in tensors.items()}


def test_names_of_earlier_transformers_are_understood(
    subject: LocalBackend, made: Callable[..., Any], copy: Path
) -> None:
    old = {"model.language_model.layers": "model.layers", "model.visual.": "visual."}
    for name, earlier in old.items():
        adapters.change_tensors(copy, renamed(f"base_model.model.{name}", f"x.{earlier}"))
    adapters.change_tensors(copy, renamed("x.", "base_model.model."))
    assert torch.allclose(with_on(subject, on(copy)), made()[1], atol=1e-4)


def first(change: Callable[[Any], Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Changes the first lora_B of a file."""
    return lambda found: {
        **found,
        (name := min(k for k in found if "_B" in k)): change(found[name]),
    }


def wider(tensors: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.cat([value, value], -1) for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (renamed("layers.1", "layers.7"), r"3 of the layers.*not in this model.*Some-Base-2B"),
        (renamed("self_attn", "attention"), r"cannot be put on .*attention"),
        (wider, r"does not fit .*lora_A of .*size 128, and the layer 64.*Some-Base-2B"),
        (lambda found: {k: v * 0 if "_B" in k else v for k, v in found.items()}, "changes nothing"),
        (lambda found: {k: v * 0 if "_A" in k else v for k, v in found.items()}, "changes nothing"),
        (lambda found: {}, "changes nothing: .* no tensors"),
        (lambda found: dict(list(found.items())[1:]), "one matrix of two"),
        (first(lambda b: b[0, 0].clone()), r"damaged: its lora_B of .* the shape \[\]"),
        (first(lambda b: b[0].clone()), r"damaged: its lora_B of .* the shape \[4\]"),
        (renamed("q_proj.lora", "q_proj.weight.lora"), r"not in this model, such as .*weight"),
        (lambda found: {k: v * torch.nan for k, v in found.items()}, "NaN"),
    ],
    ids=[
        "missing layers",
        "other names",
        "shapes",
        "zero",
        "zero first",
        "empty",
        "halves",
        "scalar",
        "vector",
        "parameter",
        "nan",
    ],
)
def test_an_adapter_of_another_model_is_refused_before_anything_is_read(
    subject: LocalBackend, copy: Path, change: Any, message: str
) -> None:
    adapters.change_tensors(copy, change)
    before = with_on(subject)
    with pytest.raises(UnsupportedModel, match=message):
        subject.with_adapters((on(copy),)).generate([QUESTION])
    assert torch.equal(with_on(subject), before)
    if "changes nothing: all" not in message and message not in ("changes nothing", "NaN"):
        unread = open_checkpoint(subject._files[0])  # type: ignore[index]
        with pytest.raises(UnsupportedModel, match=message):
            unread.with_adapters((on(copy),)).generate([QUESTION])
        assert unread.place == "disk"


def test_an_adapter_whose_alpha_is_zero_changes_nothing(subject: LocalBackend, copy: Path) -> None:
    adapters.change_config(copy, lora_alpha=0)
    with pytest.raises(UnsupportedModel, match="changes nothing"):
        subject.with_adapters((on(copy),)).generate([QUESTION])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"peft_type": "LOHA"}, "type LOHA"),
        ({"bias": "all"}, "bias='all'"),
        ({"modules_to_save": 5}, "modules_to_save is 5 "),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa"),
        ({"trainable_token_indices": [1]}, "single tokens"),
    ],
    ids=str,
)
def test_what_could_not_be_taken_off_again_is_refused(
    subject: LocalBackend, copy: Path, entries: dict[str, Any], message: str
) -> None:
    adapters.change_config(copy, **entries)
    with pytest.raises(UnsupportedModel, match=message):
        subject.with_adapters((on(copy),)).generate([QUESTION])


def test_files_that_are_wrong(subject: LocalBackend, copy: Path) -> None:
    def refused(error: type[CheckpointError], message: str) -> None:
        with pytest.raises(error, match=message):
            subject.with_adapters((on(copy),)).generate([QUESTION])

    weights = copy / "adapter_model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    refused(IncompleteCheckpoint, "mine is cut off")
    weights.rename(copy / "adapter_model.bin")
    refused(UnsupportedModel, "pickle")
    (copy / "adapter_config.json").unlink()
    refused(CheckpointNotFound, "no adapter")


def test_strengths_and_repetitions(subject: LocalBackend, made: Callable[..., Any]) -> None:
    folder = made()[0]
    with pytest.raises(BadOption, match="put on twice"):
        subject.with_adapters((on(folder), on(folder / ".", 0.5)))
    with pytest.raises(BadOption, match=r"is nan; it may be -100 to 100"):
        subject.with_adapters((on(folder, float("nan")),))


def test_without_peft_the_error_says_how_to_install_it(
    subject: LocalBackend, made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match="pip install peft"):
        subject.with_adapters((on(made()[0]),)).generate([QUESTION])
