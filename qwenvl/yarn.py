"""YaRN: longer contexts by RoPE scaling (Peng et al. 2023, arXiv:2309.00071), as the makers' cards
turn it on: by a few entries in ``config.json``. transformers computes the rest.

It is static: the same factor for every prompt, short ones too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import BadOption
from .types import Family

_SCALED = ("yarn", "linear", "dynamic")
"""RoPE types that stretch the embedding over more tokens than were trained on, by ``factor``."""
_KEPT = ("mrope_section", "mrope_interleaved", "rope_theta", "partial_rotary_factor")


def context_length(config: Mapping[str, Any]) -> int | None:
    """Context length in tokens, prompt and answer together, by a model's own config (see
    ``families.model_config``); None where that does not say it."""
    text = {**config, **(config.get("text_config") or {})}
    longest = text.get("max_position_embeddings")
    if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
        return None
    rope = _rope(text)
    if _type(rope) not in _SCALED:
        return longest
    factor, trained = rope.get("factor"), rope.get("original_max_position_embeddings") or longest
    if not isinstance(factor, (int, float)) or not isinstance(trained, int):
        return longest
    return max(longest, int(trained * factor))  # some configs count the scaling in


def with_yarn(config: Mapping[str, Any], family: Family, factor: float) -> Mapping[str, Any]:
    """A model's own ``config`` (see ``families.model_config``) with YaRN by ``factor``; 1 leaves it
    as it is. One that has YaRN already gets the other factor.

    Raises ``BadOption`` for a factor outside the card's range, of a family whose cards give none,
    and for one that would leave no more context than there is.
    """
    if factor == 1:
        return config
    if family.yarn is None:
        raise BadOption(
            f"yarn is {factor:g}, and the makers' cards give no YaRN factor for {family.title}. "
            "Leave it at 1."
        )
    most, trained = family.yarn
    if not 1 <= factor <= most:
        raise BadOption(
            f"yarn is {factor:g}; for {family.title} it may be 1 (the context as it is) to "
            f"{most:g}, which the makers' cards give."
        )
    text = {**config, **(config.get("text_config") or {})}
    rope = _rope(text)
    before = rope.get("original_max_position_embeddings")
    if _type(rope) == "yarn" and isinstance(before, int):
        trained = before
    stretched, own = int(factor * trained), context_length(config)
    if own is not None and own >= stretched and _type(rope) not in _SCALED:
        raise BadOption(
            f"yarn is {factor:g}, which stretches {trained} tokens to {stretched}: no more than "
            f"the {own} of this checkpoint's own context. Leave it at 1."
        )
    scaling = {
        "rope_type": "yarn",
        "factor": float(factor),
        "original_max_position_embeddings": trained,
    }
    return _scaled(config, scaling, stretched)


def longest_context(family: Family) -> int | None:
    """Tokens that YaRN can stretch a context of ``family`` to; None where it cannot."""
    return int(family.yarn[0] * family.yarn[1]) if family.yarn else None


def _scaled(
    config: Mapping[str, Any], scaling: Mapping[str, Any], stretched: int
) -> dict[str, Any]:
    """``config`` with RoPE ``scaling``, in each section that says something of positions."""
    made = dict(config)
    if isinstance(text := config.get("text_config"), Mapping):
        made["text_config"] = _scaled(text, scaling, stretched)
    if "max_position_embeddings" in config or _rope(config):
        name = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
        old = _rope(config)
        made.pop("rope_scaling", None)
        made[name] = {key: old[key] for key in _KEPT if key in old} | dict(scaling)
        made["max_position_embeddings"] = stretched
    return made


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The RoPE settings of a section; releases of transformers differ in their name."""
    found = config.get("rope_parameters") or config.get("rope_scaling")
    return found if isinstance(found, Mapping) else {}


def _type(rope: Mapping[str, Any]) -> Any:
    return rope.get("rope_type", rope.get("type"))
