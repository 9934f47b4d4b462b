"""Executor choice: which models the scheduler runs, told from their config before any weights are
read. The others are run by transformers' own ``generate``."""

from __future__ import annotations

from typing import Any

from ..errors import BadOption
from ..families import is_default
from ..types import Family, LocalSpec

OPTIMIZE = ("auto", "off")

CACHE_LAYERS = frozenset({"DynamicLayer", "LinearAttentionLayer"})
"""transformers' classes of cache layers that the scheduler's KV cache can hold."""


def plain_reason(spec: LocalSpec, family: Family, config: Any) -> str:
    """Why the model of ``spec`` is run by transformers' ``generate``, as it comes; empty where the
    scheduler runs it, with all patches. ``config``: transformers' configuration of the model.
    Raises ``BadOption``."""
    if spec.optimize not in OPTIMIZE:
        raise BadOption(f"optimize is {spec.optimize!r}; use one of {', '.join(OPTIMIZE)}.")
    if spec.optimize == "off":
        return "optimize is off"
    if is_default(family) or not family.scheduler_verified:
        return f"the faster way was not verified on {family.model_type}"
    unknown = sorted(_cache_layers(config) - CACHE_LAYERS)
    return f"its cache has layers of an unknown kind ({', '.join(unknown)})" if unknown else ""


def _cache_layers(config: Any) -> set[str]:
    from transformers import DynamicCache

    return {type(layer).__name__ for layer in DynamicCache(config=config.get_text_config()).layers}
