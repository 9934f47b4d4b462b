"""Outputs that have no value."""

from __future__ import annotations

from typing import Any

from .parts import part


def blocked(message: str) -> Any:
    """Stands for a value that is not there: ComfyUI stops the nodes that take it with ``message``
    and lets all others go on. None where no graph is run."""
    blocker = part("comfy_execution.graph", "ExecutionBlocker")
    return blocker(message) if blocker else None
