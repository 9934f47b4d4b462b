"""Model families: one row for each model generation, found by ``model_type`` in ``config.json``.

Fine-tunes (olmOCR, RolmOCR, QvQ, R1-Onevision, ...) carry the ``model_type`` of what they were
tuned from and need no row. Sampling values are the makers' own, from the model cards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .errors import UnsupportedModel
from .types import Family, Sampling

_INSTRUCT = Sampling(temperature=0.7, top_p=0.8, top_k=20, presence_penalty=1.5)
_THINKING = Sampling(temperature=0.6, top_p=0.95, top_k=20)
# The older generations ship with temperatures of 0.01 and less, which is greedy in effect.
_QWEN2 = Sampling()

FAMILIES: Mapping[str, Family] = {
    row.model_type: row
    for row in (
        Family(
            "qwen",
            "Qwen-VL",
            coordinates="relative",
            patch_factor=28,
            since="4.57",
            sampling=_QWEN2,
            thinking_sampling=_THINKING,
            notes="Its replies are read; the model itself needs code for an older transformers.",
            is_original=True,
        ),
        Family(
            "qwen2_vl",
            "Qwen2-VL",
            coordinates="relative",
            patch_factor=28,
            since="4.57",
            sampling=_QWEN2,
            thinking_sampling=_THINKING,
        ),
        Family(
            "qwen2_5_vl",
            "Qwen2.5-VL",
            coordinates="absolute",
            patch_factor=28,
            since="4.57",
            sampling=_QWEN2,
            thinking_sampling=_THINKING,
        ),
        Family(
            "qwen2_5_omni",
            "Qwen2.5-Omni (thinker)",
            coordinates="absolute",
            patch_factor=28,
            since="4.57",
            sampling=_QWEN2,
            thinking_sampling=_THINKING,
            transformers_class="Qwen2_5OmniThinkerForConditionalGeneration",
            image_token="<|IMAGE|>",
            vision_start="<|vision_bos|>",
            vision_end="<|vision_eos|>",
            notes="Pictures in, text out; the speaking half is not loaded.",
        ),
        Family(
            "qwen3_vl",
            "Qwen3-VL",
            coordinates="relative",
            patch_factor=32,
            since="4.57",
            sampling=_INSTRUCT,
            thinking_sampling=_THINKING,
        ),
        Family(
            "qwen3_vl_moe",
            "Qwen3-VL MoE",
            coordinates="relative",
            patch_factor=32,
            since="4.57",
            sampling=_INSTRUCT,
            thinking_sampling=_THINKING,
        ),
        Family(
            "qwen3_5",
            "Qwen3.5",
            coordinates="relative",
            patch_factor=32,
            since="5.20",
            sampling=_INSTRUCT,
            thinking_sampling=_THINKING,
            has_mtp_head=True,
        ),
        Family(
            "qwen3_5_moe",
            "Qwen3.5 MoE",
            coordinates="relative",
            patch_factor=32,
            since="5.20",
            sampling=_INSTRUCT,
            thinking_sampling=_THINKING,
            has_mtp_head=True,
        ),
    )
}

DEFAULT = Family(
    "default",
    "unknown model",
    coordinates="relative",
    patch_factor=32,
    since="4.57",
    sampling=_INSTRUCT,
    thinking_sampling=_THINKING,
    notes="Treated like the newest known family: boxes are read as 0-1000 of the picture.",
)
"""For a Qwen ``model_type`` without a row that transformers can load as image-text-to-text."""


def family_of(config: Mapping[str, Any]) -> Family:
    """The family of a parsed ``config.json``.

    A ``model_type`` without a row gets the default row under its own name, if the config takes
    pictures as Qwen's do; ``is_default`` tells. Raises ``UnsupportedModel`` if there is no
    ``model_type``, no vision tower, or the model is another maker's.
    """
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or not model_type:
        raise UnsupportedModel(
            "config.json names no model_type, so this is no transformers checkpoint. "
            "Choose the folder that the model's own config.json lies in."
        )
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    vision = config.get("vision_config")
    if not isinstance(vision, Mapping):
        raise UnsupportedModel(
            f"model_type {model_type!r} has no vision tower in its config.json: it reads text "
            "only. Choose a vision-language checkpoint (a name with VL, or Qwen3.5 and newer)."
        )
    # What all generations since Qwen2-VL have in common and other makers' models lack.
    if "spatial_merge_size" not in vision or "vision_start_token_id" not in config:
        raise UnsupportedModel(
            f"model_type {model_type!r} is not a Qwen vision-language model: it takes pictures in "
            "another way. Choose a Qwen checkpoint or a fine-tune of one."
        )
    return dataclasses.replace(
        DEFAULT, model_type=model_type, title=f"{model_type} (unknown model)"
    )


def has_mtp_head(model_type: object) -> bool:
    """Whether checkpoints of ``model_type`` may hold a head for multi-token prediction."""
    return (
        isinstance(model_type, str) and model_type in FAMILIES and FAMILIES[model_type].has_mtp_head
    )


def is_default(family: Family) -> bool:
    """Whether ``family`` came from the default row; its coordinate space is then a guess."""
    return family.model_type not in FAMILIES
