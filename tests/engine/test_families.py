"""Model families: the table, and how a checkpoint's row is found."""

from __future__ import annotations

import pytest
from qwen_vl_suite.qwenvl.errors import UnsupportedModel
from qwen_vl_suite.qwenvl.families import FAMILIES, family_of, is_default

SPACES = {
    "qwen": ("relative", 28),
    "qwen2_vl": ("relative", 28),
    "qwen2_5_vl": ("absolute", 28),
    "qwen2_5_omni": ("absolute", 28),
    "qwen3_vl": ("relative", 32),
    "qwen3_vl_moe": ("relative", 32),
    "qwen3_5": ("relative", 32),
    "qwen3_5_moe": ("relative", 32),
}


def test_every_row_is_covered_by_these_tests() -> None:
    assert {name: (row.coordinates, row.patch_factor) for name, row in FAMILIES.items()} == SPACES


@pytest.mark.parametrize("model_type", SPACES)
def test_the_row_is_found_by_model_type(model_type: str) -> None:
    family = family_of({"model_type": model_type, "_name_or_path": "somebody/fine-tune"})
    assert family is FAMILIES[model_type] and not is_default(family)


def test_an_unknown_vision_model_gets_the_default_row_under_its_own_name() -> None:
    like_qwen = {"vision_config": {"spatial_merge_size": 2}, "vision_start_token_id": 5}
    family = family_of({"model_type": "qwen9_vl", **like_qwen})
    assert is_default(family)
    assert family.model_type == "qwen9_vl" and "qwen9_vl" in family.title
    assert "0-1000" in family.notes


REFUSED = {
    "text only": ({"model_type": "qwen3"}, "qwen3"),
    "another maker's": ({"model_type": "llava", "vision_config": {}}, "not a Qwen"),
    "no type": ({}, "model_type"),
    "type of a wrong kind": ({"model_type": 3}, "model_type"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_configs_without_a_qwen_vision_tower_are_refused(case: str) -> None:
    config, said = REFUSED[case]
    with pytest.raises(UnsupportedModel, match=said):
        family_of(config)
