"""HTTP routes: what the page asks the server between runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ...qwenvl.errors import QwenVLError
from .optional_import import optional_import

Handler = Callable[[Mapping[str, str]], Mapping[str, Any]]

# A thread of its own: where a disk is slow or gone, only these requests wait for it.
_executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="qwen_vl")
_registered: set[str] = set()


def serve_json(path: str, handler: Handler) -> None:
    """Registers GET ``path``, answered with ``handler(query)`` as JSON, computed off the event
    loop. An error of the engine becomes status 400 with its message under ``error``. A path is
    registered once; without a server this does nothing."""
    server, web = optional_import("server", "PromptServer"), optional_import("aiohttp.web")
    instance = getattr(server, "instance", None)
    if instance is None or web is None or path in _registered:
        return
    _registered.add(path)

    async def handle(request: Any) -> Any:
        status, body = await respond(handler, request.query)
        return web.json_response(body, status=status)

    instance.routes.get(path)(handle)


async def respond(handler: Handler, query: Mapping[str, str]) -> tuple[int, Mapping[str, Any]]:
    """The HTTP status and the JSON object that answer ``query``."""
    try:
        return 200, await asyncio.get_running_loop().run_in_executor(_executor, handler, query)
    except QwenVLError as error:
        return 400, {"error": str(error)}
