"""YaRN: the factor of the spec is the ``config.json`` that the makers' cards show."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import ask, picture
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load, open_checkpoint
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.inference.generic import model_inputs
from qwen_vl_suite.qwenvl.types import LocalSpec
from qwen_vl_suite.qwenvl.yarn import context_length, with_yarn

MROPE = {"mrope_section": [2, 3, 3]}
INTERLEAVED = {"mrope_section": [4, 2, 2], "mrope_interleaved": True}
PARTIAL = {**INTERLEAVED, "partial_rotary_factor": 0.5}
# By model type: factor and length of the card, and what stands in the section besides.
CARDS: dict[str, tuple[float, int, dict[str, Any]]] = {
    "qwen2": (4.0, 32_768, {}),
    "qwen3": (2.0, 32_768, {}),
    "qwen2_5_vl": (4.0, 32_768, MROPE),
    "qwen3_vl": (3.0, 262_144, INTERLEAVED),
    "qwen3_5": (4.0, 262_144, PARTIAL),
}


def by_hand(model_type: str, folder: Path, copy: Path) -> Path:
    """The checkpoint with the card's entries in its ``config.json``."""
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text())
    factor, length, besides = CARDS[model_type]
    section = config.get("text_config", config)
    new = {
        **besides,
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": length,
    }
    if "rope_parameters" in section:
        base = section["rope_parameters"]["rope_theta"]
        section["rope_parameters"] = {**new, "rope_theta": base}
    else:
        section["rope_scaling"] = new
    (copy / "config.json").write_text(json.dumps(config))
    return copy


def logits(backend: LocalBackend, request: Any) -> torch.Tensor:
    prompt = backend.prompt(request)
    with torch.no_grad():
        return backend.model(**model_inputs(backend.model, prompt)).logits[0]


@pytest.mark.parametrize("model_type", CARDS)
def test_logits_are_those_of_a_config_written_by_hand(
    checkpoint: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    folder, (factor, length, _) = checkpoint(model_type), CARDS[model_type]
    shown = [picture(64, 64)] if FAMILIES[model_type].sees else []
    request = ask("a red circle " * 30, *shown)
    plain = LocalSpec(str(folder), device="cpu")
    stretched = load(dataclasses.replace(plain, yarn=factor))
    hand = by_hand(model_type, folder, tmp_path / "hand")
    written = load(LocalSpec(str(hand), device="cpu"))
    found = logits(stretched, request)
    torch.testing.assert_close(found, logits(written, request), rtol=0, atol=0)
    assert not torch.allclose(found, logits(load(plain), request), atol=1e-3)
    assert stretched.context_length == int(factor * length) == written.context_length
    assert stretched.generate([request])[0].ids == written.generate([request])[0].ids


def test_a_long_prompt_is_refused_with_both_numbers_and_fits_with_yarn(
    checkpoint: Callable[..., Path],
) -> None:
    plain = LocalSpec(str(checkpoint("qwen2")), device="cpu")
    request = ask("a red circle " * 1500)
    with pytest.raises(BadOption, match=r"is 12020 tokens long, .* holds 4096 .* yarn .* 131072"):
        open_checkpoint(plain).prompt(request)
    stretched = open_checkpoint(dataclasses.replace(plain, yarn=4.0))
    assert len(stretched.prompt(request).ids) > 4096


@pytest.mark.parametrize(
    ("model_type", "factor", "config", "said"),
    [
        ("qwen2_vl", 2.0, {}, "no YaRN factor for Qwen2-VL"),
        ("qwen3_vl", 4.0, {}, "Qwen3-VL it may be 1 .* to 3"),
        ("qwen3", 0.5, {}, "may be 1"),
        ("qwen3", float("nan"), {}, "yarn is nan"),
        ("qwen3", 4.0, {"max_position_embeddings": 262_144}, "131072: no more than the 262144"),
        ("qwen3", 4.0, {"max_position_embeddings": 131_072}, "131072: no more than the 131072"),
    ],
)
def test_factors_that_no_card_gives_are_refused(
    model_type: str, factor: float, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadOption, match=said):
        with_yarn(config, FAMILIES[model_type], factor)


def test_a_checkpoint_that_has_yarn_gets_the_other_factor() -> None:
    rope = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 30_000}
    config = {"max_position_embeddings": 120_000, "rope_scaling": rope, "rope_theta": 1e6}
    made = with_yarn(config, FAMILIES["qwen2"], 2.0)
    assert context_length(config) == 120_000 and context_length(made) == 60_000
    assert made["rope_scaling"]["factor"] == 2.0 and made["rope_theta"] == 1e6
    assert config["rope_scaling"] is rope and rope["factor"] == 4.0
    assert with_yarn(config, FAMILIES["qwen2"], 1) is config
