"""What a node shows on its own page: the words while it runs, and its results when it is done.

``web/`` draws both. While a node runs, messages named ``qwen_vl.live`` come over ComfyUI's
websocket; when it is done, ComfyUI itself sends the ``ui`` part of the node's output, and again
whenever the node is answered from ComfyUI's cache. Of a node that raises, ComfyUI sends no ``ui``:
what it has by then, ``report`` sends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ...qwenvl.types import Box, Result
from .overlay import overlay
from .parts import part

LIVE = "qwen_vl.live"
KEY = "qwen_vl"


def live(**news: Any) -> None:
    """Tells the page of the node that runs now. ``status``: a line such as a download's, with
    ``count`` the pictures to answer. Or words: ``thinking`` and ``text`` about the picture
    ``index`` of ``count``, which go on from ``part`` - 1 (0: from the beginning), and at their
    end ``finish_reason``. Or ``results``: see ``report``."""
    server = part("server", "PromptServer")
    context_of = part("comfy_execution.utils", "get_executing_context")
    context = context_of() if server and context_of else None
    # Without a client ComfyUI would tell everybody; whoever queues by script listens to nothing.
    if context is None or (client := server.instance.client_id) is None:
        return
    place = {"node": _on_page(context.node_id), "prompt_id": context.prompt_id}
    server.instance.send_sync(LIVE, {**place, **news}, client)


def _on_page(node_id: str) -> str:
    """The node of the graph that shows what ``node_id`` does: itself, or the loop that made it."""
    state_of = part("comfy_execution.progress", "get_progress_state")
    return state_of().dynprompt.get_display_node_id(node_id) if state_of else node_id


def report(results: Sequence[Result], images: Any = None) -> None:
    """Shows results at once, for a node that is about to raise: what was answered stays to be
    read beside the error. Takes what ``shown`` takes."""
    live(results=shown(results, images)[KEY])


def shown(results: Sequence[Result], images: Any = None) -> dict[str, Any]:
    """The ``ui`` of a node: one entry a picture, in order, under a name of our own. With the
    ``images`` (see ``overlay``), also the pictures and what is drawn over them."""
    entries = [
        {
            "text": result.text,
            "thinking": result.thinking,
            "finish_reason": result.finish_reason,
            "error": result.error,
            "notes": list(result.notes),
        }
        for result in results
    ]
    if images is not None:
        drawn = overlay(images, [item.boxes for item in results], [item.points for item in results])
        entries = [{**entry, **over} for entry, over in zip(entries, drawn, strict=True)]
    return {KEY: entries}


def picked(
    boxes: Sequence[Sequence[Box]], left_out: Sequence[Collection[int]], images: Any
) -> dict[str, Any]:
    """The ``ui`` of a node that chooses among boxes: all of them, those at the places ``left_out``
    marked so. Which ones a person switched off the page knows by itself."""
    entries = overlay(images, boxes)
    for entry, places in zip(entries, left_out, strict=True):
        for place in places:
            entry["boxes"][place]["left_out"] = True
    return {KEY: entries}
