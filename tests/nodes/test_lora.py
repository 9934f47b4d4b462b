"""The LoRA node: which adapters it offers, and models with several of them on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from qwen_vl_suite.nodes import host
from qwen_vl_suite.nodes.lora import NONE_HERE
from qwen_vl_suite.nodes.model import CACHE, ModelHandle
from qwen_vl_suite.qwenvl.checkpoints.library import BUNDLED, BUNDLED_NAME
from qwen_vl_suite.qwenvl.errors import BadOption, CheckpointError, CheckpointNotFound
from qwen_vl_suite.qwenvl.types import Adapter, GgufSpec, LocalSpec, ServerSpec


@pytest.fixture
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Empty folders for LoRAs and for language models, the only ones there are."""
    loras, models = tmp_path / "loras", tmp_path / "LLM"
    folders = {"loras": ([str(loras)], set()), host.FOLDER_KEY: ([str(models)], set())}
    found = {**folder_paths.folder_names_and_paths, **folders}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", found)
    return loras, models


def put(folder: Path, rank: int = 2, **config: Any) -> Path:
    """An adapter for the bundled model, written as peft writes one."""
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    layer = "model.language_model.layers.0.self_attn.q_proj"
    with safe_open(BUNDLED / "model.safetensors", "pt") as opened:
        high, wide = opened.get_slice(f"{layer}.weight").get_shape()
    generator = torch.Generator().manual_seed(len(folder.name))
    pair = {
        "lora_A": torch.randn(rank, wide, generator=generator),
        "lora_B": torch.randn(high, rank, generator=generator) / 8,
    }
    folder.mkdir(parents=True)
    named = {f"base_model.model.{layer}.{part}.weight": value for part, value in pair.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = {"peft_type": "LORA", "r": rank, "lora_alpha": 4, "target_modules": ["q_proj"]}
    settings |= {"base_model_name_or_path": "Qwen/Some-Base-2B", **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_a_chain_of_adapters_shares_one_model(
    roots: tuple[Path, Path], run_node: Callable[..., Any], pictures: torch.Tensor
) -> None:
    first, second = put(roots[0] / "styles" / "first"), put(roots[1] / "the second")
    (base,) = run_node("QVL_Loader", model=BUNDLED_NAME, device="cpu")
    (one,) = run_node("QVL_LoRA", model=base, adapter="styles/first")
    (two,) = run_node("QVL_LoRA", model=one, adapter="the second", strength=-0.5)
    assert one.spec.adapters == (Adapter(str(first)),)
    assert two.spec.adapters == (Adapter(str(first)), Adapter(str(second), -0.5))
    before = CACHE.stats().misses

    def texts(model: ModelHandle) -> list[str]:
        found: list[str] = run_node(
            "QVL_Describe", model=model, images=pictures[:1], max_new_tokens=12
        )[0]
        return found

    answers = [texts(model) for model in (base, one, two)]
    assert len({str(answer) for answer in answers}) == 3
    assert texts(base) == answers[0]
    assert CACHE.stats().misses - before <= 1, "read once for all"


def test_adapters_of_both_folders_are_offered_those_that_cannot_be_loaded_last(
    roots: tuple[Path, Path], nodes: Any
) -> None:
    adapter = nodes["QVL_LoRA"].define_schema().inputs[1]
    assert adapter.options == [NONE_HERE]
    put(roots[0] / "a" / "b" / "deep")
    put(roots[0] / "odd", peft_type="LOHA")
    put(roots[1] / "Zebra")
    (roots[0] / "image.safetensors").write_bytes(b"")
    adapter = nodes["QVL_LoRA"].define_schema().inputs[1]
    assert adapter.options == ["a/b/deep", "Zebra", "odd (cannot be loaded)"]
    validate = nodes["QVL_LoRA"].validate_inputs
    assert validate(adapter="elsewhere\\deep") is True and validate() is True
    assert "no adapter 'gone'" in validate(adapter="gone")
    assert "models/loras" in validate(adapter=NONE_HERE)


def test_an_adapter_that_was_trained_anew_is_another_one(
    roots: tuple[Path, Path], nodes: Any
) -> None:
    folder = put(roots[0] / "mine")

    def state() -> str:
        found: str = nodes["QVL_LoRA"].fingerprint_inputs(adapter="mine", strength=1.0)
        return found

    before = state()
    (folder / "notes.txt").write_text("of no matter")
    assert state() == before != ""
    put(roots[1] / "mine", rank=3).joinpath("adapter_model.safetensors").replace(
        folder / "adapter_model.safetensors"
    )
    assert state() not in (before, "")
    assert nodes["QVL_LoRA"].fingerprint_inputs(adapter="gone") == ""


def test_a_model_of_another_name_than_the_adapters_base_is_told_on_the_node(
    roots: tuple[Path, Path], nodes: Any
) -> None:
    put(roots[0] / "mine")

    def notes(folder: str) -> list[Any]:
        handle = ModelHandle(LocalSpec(folder))
        output = nodes["QVL_LoRA"].execute(model=handle, adapter="mine")
        return [note for entry in output.ui["qwen_vl"] for note in entry["notes"]]

    assert notes("/models/some-base-2b-AWQ") == []
    told = "mine was trained on Qwen/Some-Base-2B, and is put on other."
    assert notes("/models/other") == [told]


def test_a_name_that_is_gone_is_not_another_adapters(roots: tuple[Path, Path], nodes: Any) -> None:
    for name in ("cats/checkpoint-500", "old/dogs/checkpoint-500", "a/twin", "b/twin", "c/only"):
        put(roots[0] / name)
    validate = nodes["QVL_LoRA"].validate_inputs
    for gone in ("horses/checkpoint-500", "checkpoint-500"):
        assert f"no adapter '{gone}'" in validate(adapter=gone)
    assert "2 that it could be: a/twin, b/twin." in validate(adapter="c/twin")
    library = host.adapter_library()
    assert library.locate("dogs/checkpoint-500") == roots[0] / "old" / "dogs" / "checkpoint-500"
    assert library.locate("x/only") == roots[0] / "c" / "only"


def test_what_cannot_be_put_on(roots: tuple[Path, Path], run_node: Callable[..., Any]) -> None:
    put(roots[0] / "odd", peft_type="LOHA")
    put(roots[0] / "mine")
    local = ModelHandle(LocalSpec("/models/a"))
    server = ModelHandle(ServerSpec(("http://localhost:8000/v1",), "elsewhere"))
    with pytest.raises(CheckpointError, match="type LOHA"):
        run_node("QVL_LoRA", model=local, adapter="odd (cannot be loaded)")
    of_gguf = ModelHandle(GgufSpec("mine.gguf", "mmproj.gguf", "qwen3_vl"))
    with pytest.raises(BadOption, match=r"mine is a GGUF model.*llama_server\.yaml"):
        run_node("QVL_LoRA", model=of_gguf, adapter="mine")
    with pytest.raises(BadOption, match="elsewhere is answered by a server"):
        run_node("QVL_LoRA", model=server, adapter="mine")
    with pytest.raises(CheckpointNotFound, match="There is no adapter here"):
        run_node("QVL_LoRA", model=local, adapter=NONE_HERE)
    (once,) = run_node("QVL_LoRA", model=local, adapter="mine")
    with pytest.raises(BadOption, match="put on twice"):
        run_node("QVL_LoRA", model=once, adapter="mine")


def test_an_adapter_chosen_as_a_model_says_what_it_is_for(
    roots: tuple[Path, Path], run_node: Callable[..., Any]
) -> None:
    put(roots[1] / "mine")
    with pytest.raises(CheckpointError, match=r"adapter .* for Qwen/Some-Base-2B.*LoRA node"):
        run_node("QVL_Loader", model="mine (cannot be loaded)")
