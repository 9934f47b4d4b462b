"""Thinking of models on servers: whether one does, by its name, and how a server is told.

A model's chat template, which decides about it, is the server's and not seen here.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

from ..errors import BadOption
from ..types import Family, Request
from .kinds import ServerKind, kinds

Style = Literal["never", "always", "on", "off", "unknown"]
"""Whether a model thinks. ``on`` and ``off`` are defaults that a request can change; of an
``unknown`` one it can be tried."""

_EFFORT = "medium"
"""The effort that is sent where thinking is asked for, and the server knows only efforts."""

_WORD = r"(?<![a-z0-9]){}(?![a-z0-9])"
_ALWAYS = re.compile(_WORD.format(r"(?:thinking|qvq|qwq|r1(?:-[a-z]+)?)"))
_NEVER = re.compile(_WORD.format(r"(?:instruct|coder|captioner)"))
_SMALL = re.compile(_WORD.format(r"(?:0\.8|2)b"))


def style(name: str, family: Family, find_kind: Callable[[], ServerKind]) -> Style:
    """The style of the model of ``family`` that a server calls ``name``. ``find_kind``: finds the
    kind of server; called only for names that mean a Thinking edition at some kind."""
    plain = name.lower().replace("_", "-")
    if _ALWAYS.search(plain):
        return "always"
    if _NEVER.search(plain):
        return "never"
    if family.mtp_prefix or family.leaves_thought_open:
        # One checkpoint that does both: Qwen3.5 and later, and Qwen3 for text alone.
        return "off" if family.mtp_prefix and _SMALL.search(plain) else "on"
    listed = plain.partition(":")[0]
    if any(listed in kind.thinkers for kind in kinds().values()) and (
        listed in find_kind().thinkers
    ):
        return "always"
    named = re.search(r"qwen\W*\d", plain)
    return "never" if named else "unknown"


def thinks(
    name: str, found: Style, kind: ServerKind | None, wish: bool | None, effort: str = ""
) -> bool:
    """Whether an answer begins with a thought, as ``Backend.thinks``. Raises ``BadOption`` where
    the model ``name``, or the server, cannot do as wished. ``kind``: of the server, None where it
    does not matter."""
    if wish and found == "never":
        raise BadOption(
            f"{name} does not think before it answers: set thinking to the model's default, or "
            "choose a Thinking model."
        )
    if wish is False and found == "always":
        raise BadOption(
            f"{name} always thinks before it answers: set thinking to the model's default, or "
            "choose an Instruct model."
        )
    if found in ("never", "always"):
        return found == "always"
    if wish is not None and kind and kind.thinking == "none":
        raise BadOption(
            f"{kind.title} cannot be told by a request whether to think: set thinking to the "
            "model's default, and turn it on or off in the server's own settings."
        )
    if effort == "none":
        return False
    return found == "on" if wish is None else wish


def thinking_fields(kind: ServerKind, request: Request) -> dict[str, Any]:
    """Fields for what ``request`` says about thinking; empty where it says nothing, or where no
    field of such a server sets it. A chat template ignores variables that it does not know."""
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
    """A note on what ``request`` says about thinking and no field of such a server sets."""
    unheard = {
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
