"""Qwen-VL Suite for ComfyUI: describe, read and find with the Qwen vision-language models."""

from __future__ import annotations

from typing import Any

WEB_DIRECTORY = "./web"


async def comfy_entrypoint() -> Any:
    """Called by ComfyUI once at start. Imports here, so that importing the pack is free."""
    from .nodes.extension import QwenVLSuite

    return QwenVLSuite()
