"""Node results on the page: live messages while a node runs, its ``ui`` output when it is done.

``web/`` draws both. Live messages, named ``qwen_vl.live``, go over ComfyUI's websocket. The ``ui``
output is sent by ComfyUI itself, also when the node is answered from ComfyUI's cache; but not for
a node that raises, whose results so far ``send_results`` sends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from ...qwenvl.notes import NotesOfRun
from ...qwenvl.types import Box, Result
from .optional_import import optional_import
from .overlay import overlay

LIVE_EVENT = "qwen_vl.live"
UI_KEY = "qwen_vl"


def send_live(**fields: Any) -> None:
    """Sends a live message to the page about the node that is running. ``fields`` are one of:

    - ``status``: a line such as a download's; with ``count``, the number of pictures to answer;
    - ``thinking`` and ``text`` of picture ``index`` of ``count``. They continue part ``part`` - 1
      (0: from the beginning). The last ones come with ``finish_reason``;
    - ``results``: see ``send_results``.
    """
    server = optional_import("server", "PromptServer")
    context_of = optional_import("comfy_execution.utils", "get_executing_context")
    context = context_of() if server and context_of else None
    # Without a client ComfyUI would send it to every page; a script that queues does not listen.
    if context is None or (client := server.instance.client_id) is None:
        return
    place = {"node": _displayed_node(context.node_id), "prompt_id": context.prompt_id}
    server.instance.send_sync(LIVE_EVENT, {**place, **fields}, client)


def _displayed_node(node_id: str) -> str:
    """The node on the page that stands for ``node_id``: itself, or the loop that expanded it."""
    state_of = optional_import("comfy_execution.progress", "get_progress_state")
    return state_of().dynprompt.get_display_node_id(node_id) if state_of else node_id


def send_results(results: Sequence[Result], images: Any = None) -> None:
    """Shows results at once, for a node that is about to raise: the answers stay readable beside
    the error. Takes what ``results_ui`` takes."""
    send_live(results=results_ui(results, images)[UI_KEY])


def results_ui(
    results: Sequence[Result], images: Any = None, own_words: bool = False
) -> dict[str, Any]:
    """The ``ui`` output of a node: one entry a picture, in order, under the pack's own key. With
    ``images`` (see ``overlay``), also the pictures and what is drawn over them. ``own_words``: the
    texts are the pack's, none of a model's, and are shown in the page's language. A note on the
    whole run is in its first entry."""
    shown = NotesOfRun()
    entries: list[dict[str, Any]] = [
        {
            "text": result.text,
            "thinking": result.thinking,
            "finish_reason": result.finish_reason,
            "error": result.error,
            "notes": shown.new(result.notes),
        }
        for result in results
    ]
    if own_words:
        entries = [{**entry, "own_words": True} for entry in entries]
    if images is not None:
        drawn = overlay(images, [item.boxes for item in results], [item.points for item in results])
        entries = [{**entry, **over} for entry, over in zip(entries, drawn, strict=True)]
    return {UI_KEY: entries}


def picked_boxes_ui(
    boxes: Sequence[Sequence[Box]], left_out: Sequence[Collection[int]], images: Any
) -> dict[str, Any]:
    """The ``ui`` output of a node that chooses among boxes: all of them, those whose indices are
    in ``left_out`` marked as such. The page itself knows which ones were switched off there."""
    entries = overlay(images, boxes)
    for entry, indices in zip(entries, left_out, strict=True):
        for index in indices:
            entry["boxes"][index]["left_out"] = True
    return {UI_KEY: entries}
