"""Thinking on a server: how it is turned on and off, by kind of server."""

from __future__ import annotations

from typing import Any

from ..types import Request
from .kinds import ServerKind

_EFFORT = "medium"
"""Thinking that was asked for, where the server knows it as an effort alone."""


def thinking_fields(kind: ServerKind, request: Request) -> dict[str, Any]:
    """Fields of a request for the wishes of ``request``; none where it has none, or where such a
    server cannot be told. A chat template that does not know a variable ignores it."""
    if kind.thinking == "chat_template_kwargs":
        wishes: dict[str, Any] = {}
        if request.thinking is not None:
            wishes["enable_thinking"] = request.thinking
        if request.preserve_thinking:
            wishes["preserve_thinking"] = True
        if request.reasoning_effort:
            wishes["reasoning_effort"] = request.reasoning_effort
        return {"chat_template_kwargs": wishes} if wishes else {}
    if kind.thinking == "reasoning_effort":
        if request.thinking is False:
            return {"reasoning_effort": "none"}
        if request.thinking or request.reasoning_effort:
            return {"reasoning_effort": request.reasoning_effort or _EFFORT}
    return {}


def thinking_notes(kind: ServerKind, request: Request) -> tuple[str, ...]:
    """What the user should know where such a server cannot be told the wishes of ``request``."""
    unheard = {
        "thinking": bool(request.thinking) and kind.thinking == "none",
        "preserve_thinking": request.preserve_thinking and kind.thinking != "chat_template_kwargs",
        "reasoning_effort": bool(request.reasoning_effort) and kind.thinking == "none",
    }
    names = [name for name, is_unheard in unheard.items() if is_unheard]
    if not names:
        return ()
    return (
        f"{', '.join(names)}: {kind.title} cannot be told by a request. Set it where the server's "
        "settings are.",
    )
