"""What the page asks the server between runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...qwenvl.errors import QwenVLError
from .parts import part

Answer = Callable[[Mapping[str, str]], Mapping[str, Any]]

# A thread of its own: where a disk is slow or gone, only these questions wait for it.
_asked = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qwen_vl")
_served: set[str] = set()


def serve(path: str, answer: Answer) -> None:
    """From now on GET ``path`` gives ``answer(query)`` as JSON, computed beside the event loop.
    What the engine refuses is status 400, with its words under ``error``. Once for each path;
    nothing where there is no server."""
    server, web = part("server", "PromptServer"), part("aiohttp.web")
    instance = getattr(server, "instance", None)
    if instance is None or web is None or path in _served:
        return
    _served.add(path)

    async def handle(request: Any) -> Any:
        status, body = await respond(answer, request.query)
        return web.json_response(body, status=status)

    instance.routes.get(path)(handle)


async def respond(answer: Answer, query: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
    """The HTTP status and the JSON object that answer ``query``."""
    try:
        return 200, await asyncio.get_running_loop().run_in_executor(_asked, answer, query)
    except QwenVLError as error:
        return 400, {"error": str(error)}
