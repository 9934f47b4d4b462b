"""Model families: the table, how a checkpoint's row is found, and that each row's model runs."""

from __future__ import annotations

import dataclasses
import inspect
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl.backends import local
from qwen_vl_suite.qwenvl.checkpoints.files import read_settings
from qwen_vl_suite.qwenvl.checkpoints.inspection import require_complete
from qwen_vl_suite.qwenvl.errors import UnsupportedModel
from qwen_vl_suite.qwenvl.families import (
    FAMILIES,
    family_of,
    is_default,
    model_config,
    weights_beside,
)
from qwen_vl_suite.qwenvl.inference.mrope import PositionRule, rope_positions
from qwen_vl_suite.qwenvl.media.spans import Span
from qwen_vl_suite.qwenvl.models import footprint
from qwen_vl_suite.qwenvl.models.loading import load_model, model_class
from qwen_vl_suite.qwenvl.types import Family, LocalSpec, Request, Sampling
from qwen_vl_suite.qwenvl.yarn import context_length
from safetensors.torch import load_file, save_file

SPACES = {
    "qwen": ("relative", 28),
    "qwen2_vl": ("relative", 28),
    "qwen2_5_vl": ("absolute", 28),
    "qwen2_5_omni_thinker": ("absolute", 28),
    "qwen2_5_omni": ("absolute", 28),
    "qwen3_vl": ("relative", 32),
    "qwen3_vl_moe": ("relative", 32),
    "qwen3_omni_moe_thinker": ("relative", 32),
    "qwen3_omni_moe": ("relative", 32),
    "qwen3_5": ("relative", 32),
    "qwen3_5_moe": ("relative", 32),
    "qwen4_exp": ("relative", 32),
    **dict.fromkeys(tiny.TEXT_CONFIGS, ("relative", 28)),
}


def test_every_row_is_covered_by_these_tests() -> None:
    assert {name: (row.coordinates, row.patch_factor) for name, row in FAMILIES.items()} == SPACES


def test_every_row_that_can_be_loaded_has_an_example() -> None:
    loadable = {name for name, row in FAMILIES.items() if not row.is_original}
    assert loadable == set(tiny.EXAMPLES)
    assert {n for n in loadable if not FAMILIES[n].scheduler_verified}.isdisjoint(tiny.CONFIGS)


def test_every_field_of_a_row_has_a_reader() -> None:
    engine = Path(local.__file__).parents[1]
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in engine.rglob("*.py") if path.name != "types.py"
    )
    assert [f.name for f in dataclasses.fields(Family) if f".{f.name}" not in sources] == []


@pytest.mark.parametrize("model_type", SPACES)
def test_the_row_is_found_by_model_type(model_type: str) -> None:
    family = family_of({"model_type": model_type, "_name_or_path": "somebody/fine-tune"})
    assert family is FAMILIES[model_type] and not is_default(family)


def test_an_unknown_vision_model_gets_the_default_row_under_its_own_name() -> None:
    family = family_of({"model_type": "qwen9_vl", "vision_config": {"spatial_merge_size": 2}})
    assert is_default(family)
    assert family.model_type == "qwen9_vl" and "qwen9_vl" in family.title
    assert "0-1000" in family.notes
    assert {"mtp.", "talker."} <= {*weights_beside(family)}, "are not counted as its weights"


def test_a_family_that_another_nests_is_found_in_it() -> None:
    inner = {"model_type": "qwen3_omni_moe_thinker", "vision_config": {"patch_size": 16}}
    config = {"model_type": "qwen9_omni", "talker_config": {}, "inner_config": inner}
    family = family_of(config)
    assert is_default(family) and family.model_type == "qwen9_omni"
    assert family.transformers_class == FAMILIES["qwen3_omni_moe_thinker"].transformers_class
    assert model_config(config, family) is inner


def test_settings_of_a_nested_model_are_read_where_they_lie(checkpoint: Any) -> None:
    for model_type in ("qwen2_5_omni", "qwen3_omni_moe"):
        config = read_settings(checkpoint(model_type), "config.json")
        assert context_length(config) is None
        assert context_length(model_config(config, FAMILIES[model_type])) == 4096


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "text only": (
        {"model_type": "qwen3_next"},
        "'qwen3_next' has no vision tower.* takes text only.* known: qwen2, qwen3, qwen3_moe",
    ),
    "sound": ({"model_type": "qwen2_audio", "audio_config": {"a": 1}}, "takes sound and text"),
    "another maker's": ({"model_type": "llava", "vision_config": {}}, "another maker's"),
    "a tower of another kind": ({"model_type": "qwen9", "vision_config": {}}, "is not known here"),
    "embeddings": (
        {"model_type": "colqwen2", "vlm_config": {"model_type": "qwen2_vl", "vision_config": {}}},
        "embeddings for a search and writes no text",
    ),
    "no type": ({}, "model_type"),
    "type of a wrong kind": ({"model_type": 3}, "model_type"),
    "odd nested type": ({"model_type": "qwen9", "x": {"model_type": [], "vision_config": 1}}, "9"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_configs_without_a_qwen_vision_tower_are_refused(case: str) -> None:
    config, said = REFUSED[case]
    with pytest.raises(UnsupportedModel, match=said):
        family_of(config)


def library_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every model type of the installed transformers, with the config its class makes."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING, CONFIG_MAPPING_NAMES

    for model_type in CONFIG_MAPPING_NAMES:
        try:
            config = CONFIG_MAPPING[model_type]().to_dict()
        except Exception:  # a class that cannot be made of its defaults
            config = {}
        yield model_type, {**config, "model_type": model_type}


def test_of_all_that_the_library_knows_only_the_rows_are_taken() -> None:
    taken, refused = {}, {}
    for model_type, config in library_configs():
        try:
            taken[model_type] = family_of(config)
        except UnsupportedModel as error:
            refused[model_type] = str(error)
    assert len(refused) > 200
    assert taken == {name: row for name, row in FAMILIES.items() if name in taken}
    assert set(taken) == FAMILIES.keys() & {*taken, *refused}
    others = {
        "paddleocr_vl": "another maker's",
        "cohere_compass": "another maker's",
        "cosmos3_edge": "another maker's",
        "cosmos3_omni": "another maker's",
        "lfm3_vl": "another maker's",
        "glm4v": "another maker's",
        "colqwen2": "embeddings",
        "qwen2_audio": "sound",
        "qwen3_asr": "sound",
        "qwen3_next": "text only",
    }
    for model_type, said in others.items():
        assert model_type not in refused or said in refused[model_type]


PICTURE = torch.randint(0, 256, (3, 130, 90), dtype=torch.uint8)
ALONE = {"qwen2_5_omni_thinker": "qwen2_5_omni", "qwen3_omni_moe_thinker": "qwen3_omni_moe"}


@pytest.mark.parametrize("model_type", ALONE)
def test_a_thinker_alone_answers_as_inside_its_bigger_model(
    checkpoint: Callable[..., Path], model_type: str
) -> None:
    asked = [Request.ask([PICTURE], "What is it?", sampling=Sampling(8))]
    answers = [
        local.load(LocalSpec(str(checkpoint(name)), device="cpu")).generate(asked)[0].text
        for name in (model_type, ALONE[model_type])
    ]
    assert answers[0] == answers[1] != ""


@pytest.mark.parametrize("model_type", [n for n, row in FAMILIES.items() if weights_beside(row)])
def test_weights_beside_the_model_are_neither_counted_nor_complained_of(
    checkpoint: Callable[..., Path], tmp_path: Path, model_type: str
) -> None:
    plain = checkpoint(model_type)
    folder = shutil.copytree(plain, tmp_path / "more")
    weights = load_file(folder / "model.safetensors")
    prefixes = weights_beside(FAMILIES[model_type])
    more = {f"{prefix}a": torch.ones(8, dtype=torch.int8) for prefix in prefixes}
    save_file({**weights, **more}, folder / "model.safetensors", metadata={"format": "pt"})
    assert require_complete(folder).problem == ""
    assert {w.name for w in footprint.weights(folder)} == {w.name for w in footprint.weights(plain)}


UNVERIFIED = [name for name, row in FAMILIES.items() if not row.scheduler_verified]


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[..., Path]) -> Callable[[str], Any]:
    """``loaded("qwen4_exp")``: the model as the engine loads it, whatever is to run it."""

    @cache
    def made(model_type: str) -> Any:
        folder = checkpoint(model_type)
        return load_model(folder, LocalSpec(str(folder), device="cpu"), FAMILIES[model_type])

    return made


@pytest.mark.parametrize("model_type", tiny.EXAMPLES)
def test_a_row_names_modules_that_its_model_has(
    loaded: Callable[[str], Any], model_type: str
) -> None:
    model, row = loaded(model_type), FAMILIES[model_type]
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    assert {*row.towers, *row.kept_whole} <= names
    assert not any(name.startswith(weights_beside(row)) for name in model.state_dict())
    ints = {name for name, tensor in model.state_dict().items() if not tensor.is_floating_point()}
    assert all(name.endswith(row.buffers) for name in ints)


@pytest.mark.parametrize("model_type", tiny.EXAMPLES)
def test_the_library_has_the_class_that_a_row_asks_for(model_type: str) -> None:
    import transformers
    from transformers.models.auto import modeling_auto

    if not tiny.available(model_type):
        pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
    mapping = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    cls = FAMILIES[model_type].transformers_class
    if not FAMILIES[model_type].sees:
        assert model_type in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        return
    assert hasattr(transformers, cls) if cls else model_type in mapping
    if FAMILIES[model_type].config_section:
        assert model_type not in mapping, "the whole of it would be loaded"


@pytest.mark.parametrize("model_type", [name for name in tiny.EXAMPLES if FAMILIES[name].sees])
def test_positions_of_still_pictures_are_those_of_the_library(
    loaded: Callable[[str], Any], model_type: str
) -> None:
    """For the same prompts (ordinary tokens are above 100)."""
    model = loaded(model_type)
    config, merge = model.config, 2
    image = next(
        getattr(config, name)
        for name in ("image_token_id", "image_token_index")
        if hasattr(config, name)
    )
    holder = model.model if hasattr(model.model, "get_rope_index") else model
    start = config.vision_start_token_id
    for layout in ([(4, 6)], [(2, 2), (8, 4)], [(2, 12), (6, 6), (4, 2)]):
        ids, spans = [101, 102, 103], []
        for rows, columns in layout:
            count = (rows // merge) * (columns // merge)
            ids += [start, *[image] * count, 105, 107, 107]
            spans.append(Span((1, rows, columns), count, (16 * rows, 16 * columns)))
        tokens = torch.tensor([ids])
        given: dict[str, Any] = {
            "input_ids": tokens,
            "image_grid_thw": torch.tensor([span.grid for span in spans]),
            "attention_mask": torch.ones_like(tokens),
        }
        if "mm_token_type_ids" in inspect.signature(holder.get_rope_index).parameters:
            given["mm_token_type_ids"] = (tokens == image).int()
        expected, _ = holder.get_rope_index(**given)
        rule = PositionRule.of(config, {"image": image}, merge, FAMILIES[model_type].watching)
        ours, next_position = rope_positions(ids, spans, rule)
        assert torch.equal(ours, expected[-3:, 0].to(ours.dtype))
        assert next_position == int(expected.max()) + 1


@pytest.mark.parametrize("model_type", UNVERIFIED)
def test_a_model_without_the_scheduler_is_loaded_as_the_library_loads_it(
    checkpoint: Callable[..., Path], loaded: Callable[[str], Any], model_type: str
) -> None:
    """Its weights, vision tower and answers, for a road that does not need the scheduler."""
    folder = checkpoint(model_type)
    plain = model_class(folder, FAMILIES[model_type]).from_pretrained(folder, dtype=torch.float32)
    ours = loaded(model_type)
    image, start = plain.config.image_token_id, plain.config.vision_start_token_id
    patches = torch.randn(24, 3, 1, 16**2, generator=torch.Generator().manual_seed(0))
    inputs: dict[str, Any] = {
        "input_ids": torch.tensor([[101, start, *[image] * 6, 107, 108]]),
        "image_grid_thw": torch.tensor([[1, 4, 6]]),
        "pixel_values": patches.expand(-1, -1, 2, -1).flatten(1),
    }
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == image).int()
    wanted = {"max_new_tokens": 12, "do_sample": False, "repetition_penalty": 1.0}
    answers = [model.generate(**inputs, **wanted)[0].tolist() for model in (plain, ours)]
    assert answers[0] == answers[1] and len(set(answers[0][10:])) > 1
    encoded = [
        model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output[0]
        for model in (plain, ours)
    ]
    torch.testing.assert_close(encoded[1], encoded[0], atol=1e-4, rtol=1e-4)
