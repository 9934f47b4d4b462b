"""Server on this machine that takes as long as it is told and computes nothing: the OpenAI chat
protocol, so that what is measured is the road to a server and back.

An answer repeats what was asked, so that one that belongs to another question is seen.
``python -m benchmarks.loopback SECONDS PLACES`` runs a server until its standard input ends.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import subprocess
import sys
import threading
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import ROOT

if TYPE_CHECKING:
    from typing_extensions import Self

log = logging.getLogger(__name__)

MODEL = "Qwen3-VL-loopback"
SIDE = 32
"""Pixels of a picture's side that are a token."""


class Listener:
    """HTTP server on a free port of this machine, in a thread of its own, from entering the context
    until it is left or ``die``. ``url``: its base address. ``answer`` is for subclasses."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Writes the answer to ``request``; returns whether the connection is kept."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        start = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self._server = asyncio.run_coroutine_threadsafe(start, self._loop).result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def die(self) -> None:
        """Breaks all connections, answers under way included, and accepts no more."""
        asyncio.run_coroutine_threadsafe(self._die(), self._loop).result()

    async def _die(self) -> None:
        self._server.close()
        for writer in self._open.values():
            writer.transport.abort()

    async def _end(self) -> None:
        await self._die()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open[task] = writer
        try:
            while request := await _read(reader):
                if not await self.answer(request, writer):
                    break
                await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            log.debug("whoever asked has gone, or the server ended")
        finally:
            del self._open[task]
            writer.close()


class LoopbackServer(Listener):
    """Answers each chat completion after ``seconds``, at most ``places`` at once (0: any number).
    ``answered``: how many answers it has sent."""

    def __init__(self, seconds: float, places: int = 0):
        super().__init__()
        self._seconds = seconds
        self._places = asyncio.Semaphore(places or 10**9)
        self.answered = 0

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        if request.path.endswith("/models"):
            listed = {"id": MODEL, "object": "model", "owned_by": "vllm"}
            writer.write(whole({"object": "list", "data": [listed]}))
        else:
            async with self._places:
                await asyncio.sleep(self._seconds)
            writer.write(streamed(chunks(request.body)))
            self.answered += 1
        return True


class ServerProcess:
    """A ``LoopbackServer`` in a process of its own, which takes nothing from the time of whoever
    asks it. ``die``: as a machine that is switched off."""

    def __init__(self, seconds: float, places: int = 0):
        self._command = [sys.executable, "-m", "benchmarks.loopback", str(seconds), str(places)]

    def __enter__(self) -> Self:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(
            self._command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True
        )
        assert self._process.stdout
        self.url = self._process.stdout.readline().strip()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._process.communicate()  # which closes its input

    def die(self) -> None:
        self._process.kill()


@dataclass(frozen=True)
class Request:
    """An HTTP request: its path, its JSON body, empty without one, and all its bytes."""

    path: str
    body: dict[str, Any]
    raw: bytes


async def _read(reader: asyncio.StreamReader) -> Request | None:
    """The next HTTP request of a connection; None where it ends."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise ConnectionResetError from error
        return None
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(first.split(" ")[1], json.loads(body or b"{}"), head + body)


def expected(body: Mapping[str, Any]) -> str:
    """The answer to a request: its last words, and a number of each of its pictures."""
    parts = [part for message in body["messages"] for part in _parts(message)]
    texts = [part["text"] for part in parts if part["type"] == "text"]
    shown = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    return " ".join([*texts[-1:], *(f"#{zlib.crc32(url.encode()):08x}" for url in shown)])


def _parts(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _size(part: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height of a picture, by the head of its file."""
    from PIL import Image

    data = part["image_url"]["url"].partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as opened:
        return opened.size


def chunks(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The chunks of the streamed answer to a request."""
    words = expected(body).split(" ")
    prompt = 8 + sum(map(_tokens, body["messages"]))
    about = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    said = [(word if i == 0 else f" {word}", None) for i, word in enumerate(words)]
    found = [
        {**about, "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}
        for text, reason in [*said, ("", "stop")]
    ]
    usage = {"prompt_tokens": prompt, "completion_tokens": len(words)}
    usage["total_tokens"] = sum(usage.values())
    return [*found, {**about, "choices": [], "usage": usage}]


def _tokens(message: Mapping[str, Any]) -> int:
    """About those of a message's words, exactly those of its pictures."""
    count = 0
    for part in _parts(message):
        if part["type"] == "text":
            count += len(part["text"].split())
        else:
            width, height = _size(part)
            count += (width // SIDE) * (height // SIDE)
    return count


def streamed(found: list[dict[str, Any]]) -> bytes:
    """An HTTP answer of server-sent events, in one piece of a chunked body."""
    events = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in found) + "data: [DONE]\n\n"
    head = (
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return f"{head}{len(events):x}\r\n{events}\r\n0\r\n\r\n".encode()


def whole(found: Any, status: str = "200 OK", headers: str = "") -> bytes:
    """An HTTP answer of JSON."""
    body = json.dumps(found).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


if __name__ == "__main__":
    with LoopbackServer(float(sys.argv[1]), int(sys.argv[2])) as served:
        print(served.url, flush=True)
        sys.stdin.read()
