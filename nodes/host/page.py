"""What a node shows on its own page: the words while it runs, and its results when it is done.

``web/`` draws both. While a node runs, messages named ``qwen_vl.live`` come over ComfyUI's
websocket; when it is done, ComfyUI itself sends the ``ui`` part of the node's output, and again
whenever the node is answered from ComfyUI's cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...qwenvl.types import Result
from .parts import part

LIVE = "qwen_vl.live"
KEY = "qwen_vl"


def live(**news: Any) -> None:
    """Tells the page of the node that runs now: ``index`` and ``count`` of the picture being
    answered, its ``text`` and ``thinking`` so far, or a ``status`` line such as a download's."""
    server = part("server", "PromptServer")
    context_of = part("comfy_execution.utils", "get_executing_context")
    context = context_of() if server and context_of else None
    if context is None:
        return
    place = {"node": context.node_id, "prompt_id": context.prompt_id}
    server.instance.send_sync(LIVE, {**place, **news}, server.instance.client_id)


def shown(results: Sequence[Result]) -> dict[str, Any]:
    """The ``ui`` of a node: one entry a picture, in order, under a name of our own."""
    return {
        KEY: [
            {
                "text": result.text,
                "thinking": result.thinking,
                "finish_reason": result.finish_reason,
                "error": result.error,
            }
            for result in results
        ]
    }
