"""How ComfyUI's graph calls a node, and what it does with outputs."""

from __future__ import annotations

from typing import Any

from .parts import part


def call_index() -> int:
    """Which call this is of the node, counted from 0: given a list, ComfyUI calls a node once for
    each of its items and puts what the calls show in one row."""
    context_of = part("comfy_execution.utils", "get_executing_context")
    context = context_of() if context_of else None
    return (context.list_index or 0) if context else 0


def blocked(message: str) -> Any:
    """Stands for a value that is not there: ComfyUI stops the nodes that take it with ``message``
    and lets all others go on. None where no graph is run."""
    blocker = part("comfy_execution.graph", "ExecutionBlocker")
    return blocker(message) if blocker else None
