"""ComfyUI's own memory management, and our models in it."""

from __future__ import annotations

from .parts import part


def free_memory() -> None:
    """Gives memory that torch keeps for reuse back to the device, for other models."""
    if soft_empty_cache := part("comfy.model_management", "soft_empty_cache"):
        soft_empty_cache()
