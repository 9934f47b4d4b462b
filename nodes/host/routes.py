"""HTTP routes: what the page asks the server between runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from ...qwenvl.errors import QwenVLError
from .daemon_threads import DaemonThreads
from .optional_import import optional_import

Handler = Callable[[Mapping[str, str]], Mapping[str, Any]]

# Threads of their own: where a disk is slow or gone, only these requests wait for it.
_usual = DaemonThreads(1, "qwen_vl")
_slow = DaemonThreads(2, "qwen_vl_slow")
_registered: set[str] = set()


def serve_json(path: str, handler: Handler) -> None:
    """Registers GET ``path``, answered with ``handler(query)`` as JSON, computed off the event
    loop. An error of the engine becomes status 400 with its message under ``error``. A path is
    registered once; without a server this does nothing."""

    async def handle(request: Any, web: Any) -> Any:
        status, body = await respond(handler, request.query)
        return web.json_response(body, status=status)

    _register("get", path, handle)


def accept_json(path: str, handler: Handler, is_slow: bool = False) -> None:
    """As ``serve_json`` for POST ``path``, which changes something: ``handler(body)`` gets a JSON
    object of texts. Anything but JSON is refused, since a form on any other page could send it.
    ``is_slow``: other machines are waited for, apart from all other requests."""

    async def handle(request: Any, web: Any) -> Any:
        if request.content_type != "application/json":
            return web.json_response({"error": "Send JSON."}, status=415)
        try:
            body = await request.json()
        except ValueError:
            body = None
        if not isinstance(body, dict) or not all(isinstance(v, str) for v in body.values()):
            return web.json_response({"error": "Send a JSON object of texts."}, status=400)
        status, answer = await respond(handler, body, _slow if is_slow else _usual)
        return web.json_response(answer, status=status)

    _register("post", path, handle)


def _register(method: str, path: str, handle: Callable[[Any, Any], Any]) -> None:
    server, web = optional_import("server", "PromptServer"), optional_import("aiohttp.web")
    instance = getattr(server, "instance", None)
    if instance is None or web is None or path in _registered:
        return
    _registered.add(path)

    async def handle_request(request: Any) -> Any:
        return await handle(request, web)

    getattr(instance.routes, method)(path)(handle_request)


async def respond(
    handler: Handler, query: Mapping[str, str], threads: DaemonThreads = _usual
) -> tuple[int, Mapping[str, Any]]:
    """The HTTP status and the JSON object that answer ``query``."""
    try:
        return 200, await asyncio.wrap_future(threads.submit(handler, query))
    except QwenVLError as error:
        return 400, {"error": str(error)}
