"""Forward compatibility: checkpoints saved by transformers 5 load alike under both releases, or the
error says what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl.checkpoints import newer_format, transformers_version
from qwen_vl_suite.qwenvl.checkpoints.files import read_settings
from qwen_vl_suite.qwenvl.errors import UnsupportedModel
from qwen_vl_suite.qwenvl.families import family_of
from qwen_vl_suite.qwenvl.models import loading
from qwen_vl_suite.qwenvl.prompting.chat_template import ChatTemplate
from qwen_vl_suite.qwenvl.types import LocalSpec
from safetensors.torch import load_file, save_file

THETA = 300.0  # unlike any default


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def text_of(config: dict[str, Any]) -> dict[str, Any]:
    return config.get("thinker_config", config)["text_config"]


def with_theta(folder: Path, target: Path) -> Path:
    """A copy of ``folder`` with a RoPE theta of its own, under the names of both releases."""
    shutil.copytree(folder, target)

    def change(config: dict[str, Any]) -> None:
        for part in (config, text_of(config)):
            if rope := part.get("rope_scaling") or part.get("rope_parameters"):
                part["rope_scaling"] = part["rope_parameters"] = {**rope, "rope_theta": THETA}
                part["rope_theta"] = THETA

    edit(target / "config.json", change)
    return target


def as_release_5(folder: Path, target: Path) -> Path:
    """The same settings under the names of release 5 alone."""
    shutil.copytree(folder, target)

    def change(config: dict[str, Any]) -> None:
        for part in (config, text_of(config), config.get("thinker_config", {})):
            for name in ("rope_theta", "rope_scaling"):
                part.pop(name, None)
            part.pop("torch_dtype", None)
        config.pop("rope_parameters", None)
        config["transformers_version"] = "5.99.0"
        vision = config.get("thinker_config", config)["vision_config"]
        vision["rope_parameters"] = {"rope_theta": 10_000.0, "rope_type": "axial"}

    edit(target / "config.json", change)
    edit(
        target / "tokenizer_config.json",
        lambda settings: settings.update(
            tokenizer_class="TokenizersBackend", extra_special_tokens=["<|box_start|>"]
        ),
    )
    preprocessor = target / "preprocessor_config.json"
    part = json.loads(preprocessor.read_text())
    (target / "processor_config.json").write_text(json.dumps({"image_processor": part}))
    preprocessor.unlink()
    return target


def load(folder: Path) -> Any:
    family = family_of(read_settings(folder, "config.json"))
    with torch.no_grad():
        return loading.load_model(folder, LocalSpec(str(folder), device="cpu"), family)


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(40, 60).unsqueeze(0)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits


SHARED = ["qwen2_vl", "qwen2_5_vl", "qwen2_5_omni", "qwen3_vl"]


@pytest.mark.parametrize("model_type", SHARED)
def test_settings_of_release_5_give_the_same_model(checkpoint, tmp_path, model_type: str) -> None:
    both = with_theta(checkpoint(model_type), tmp_path / "both")
    fresh = as_release_5(both, tmp_path / "5")
    assert not torch.equal(logits(load(checkpoint(model_type))), logits(load(both)))
    assert torch.equal(logits(load(fresh)), logits(load(both)))
    family = family_of(read_settings(fresh, "config.json"))
    plain, template = (ChatTemplate.load(folder, family) for folder in (both, fresh))
    words = "a red circle <|box_start|> <|im_end|>"
    encode = plain.tokenizer.encode, template.tokenizer.encode
    assert encode[0](words) == encode[1](words)


@pytest.mark.parametrize("model_type", ["qwen2_5_vl", "qwen3_vl"])
def test_tied_embeddings_of_release_5_stay_tied(checkpoint, tmp_path, model_type: str) -> None:
    folder = as_release_5(with_theta(checkpoint(model_type), tmp_path / "both"), tmp_path / "5")

    def tie(config: dict[str, Any]) -> None:
        config["tie_word_embeddings"] = True
        text_of(config).pop("tie_word_embeddings", None)

    edit(folder / "config.json", tie)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model = load(folder)
    assert model.lm_head.weight is model.get_input_embeddings().weight


def test_what_an_old_release_cannot_express_is_reported(checkpoint, tmp_path, monkeypatch) -> None:
    folder = as_release_5(with_theta(checkpoint("qwen3_vl"), tmp_path / "b"), tmp_path / "5")
    edit(
        folder / "config.json", lambda c: c["vision_config"]["rope_parameters"].update(rope_theta=1)
    )
    monkeypatch.setattr(transformers_version, "is_older", lambda version: version == "5")
    monkeypatch.setattr(transformers_version, "installed", lambda: "4.57.6")
    with pytest.raises(UnsupportedModel, match=r"saved by transformers 5.99.0.*4.57.6.*-U"):
        load(folder)


DAMAGES = {
    "tensors": lambda folder: drop_a_tensor(folder),
    "shapes": lambda folder: edit(
        folder / "config.json", lambda config: text_of(config).update(hidden_size=48)
    ),
}


def drop_a_tensor(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.language_model.norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_failure_on_a_newer_checkpoint_asks_for_an_update(checkpoint, tmp_path, damage) -> None:
    folder = shutil.copytree(checkpoint("qwen3_vl"), tmp_path / "m")
    edit(folder / "config.json", lambda config: config.update(transformers_version="99.1"))
    damage(folder)
    with pytest.raises(UnsupportedModel, match=r"saved by transformers 99\.1.*pip install -U"):
        load(folder)


VERSIONS = [("5.1", True), ("4.57.9", False), ("4.57.0", False), ("4.0", False), ("", False)]


@pytest.mark.parametrize(("version", "result"), [*VERSIONS, ("a word", False), (5, False)])
def test_is_newer(tmp_path, version: object, result: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"transformers_version": version}))
    assert newer_format.is_newer(tmp_path, "4.57.6") is result


def test_no_name_of_release_5_is_left() -> None:
    rope = {
        "rope_theta": 7.0,
        "rope_type": "default",
        "mrope_section": [1],
        "partial_rotary_factor": 1,
    }
    config = {"tie_word_embeddings": True, "text_config": {"rope_parameters": rope}}
    assert newer_format.has_release_5_names(config)
    old = newer_format.with_release_4_names(config)
    assert not newer_format.has_release_5_names(old)
    assert old["text_config"] == {
        "tie_word_embeddings": True,
        "rope_theta": 7.0,
        "partial_rotary_factor": 1,
        "rope_scaling": {"rope_type": "default", "mrope_section": [1]},
    }
    assert "rope_parameters" in config["text_config"], "the argument is not changed"


assert set(SHARED) < set(tiny.CONFIGS)
