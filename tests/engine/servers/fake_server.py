"""A server on loopback that speaks the OpenAI chat protocol and answers by a script."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any, Literal


@dataclass(frozen=True)
class Answer:
    """What the server says. ``pieces``: the chunks of ``text``, by default one a word.
    ``logprobs``: entries of the protocol, one for each piece. ``usage``: of the last chunk; None
    leaves it out. ``delay``: seconds before anything is sent; ``drip``: between chunks.

    ``cuts``: where the bytes of the stream are cut into what is sent at a time.

    ``status`` other than 200 answers with ``body`` and ``headers`` in the place of a stream; so
    does a ``body`` without one. ``fault``: what happens halfway through the stream."""

    text: str = ""
    thinking: str = ""
    thinking_field: str = "reasoning_content"
    pieces: Sequence[str] | None = None
    logprobs: Sequence[Mapping[str, Any]] | None = None
    finish: str | None = "stop"
    usage: Mapping[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 7})
    delay: float = 0.0
    drip: float = 0.0
    cuts: Sequence[int] | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    fault: Literal["", "drop", "half", "stall", "garbage", "wrong json"] = ""

    def chunks(self) -> Iterator[dict[str, Any]]:
        """Of the stream, without the usage."""
        yield _chunk({"role": "assistant", "content": ""})
        for piece in _words(self.thinking):
            yield _chunk({self.thinking_field: piece})
        pieces = _words(self.text) if self.pieces is None else self.pieces
        for number, piece in enumerate(pieces):
            told = {"content": [self.logprobs[number]]} if self.logprobs else None
            yield _chunk({"content": piece}, logprobs=told)
        if self.finish:
            yield _chunk({}, self.finish)


Script = Callable[[dict[str, Any], int], "Answer | str"]
"""Of the request's body, and how many came before it."""


def _words(text: str) -> list[str]:
    return [piece for piece in text.replace(" ", "\0 ").split("\0") if piece]


def _chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
    return {"object": "chat.completion.chunk", "choices": [choice]}


@dataclass
class Asked:
    """A request that came."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]


class FakeServer:
    """Answers with ``script``. ``owner``: of its models, as it says. ``drips``: what it tells of
    itself comes byte by byte. ``listing``: what it tells instead of its models. ``asked``: every
    request that came. ``most_active``: requests that were under way at once. ``hung_up``: how often
    a client left before the end."""

    def __init__(
        self,
        script: Script | Answer | str = "",
        models: Sequence[str] = ("Qwen3-VL-8B",),
        port: int = 0,
        owner: str = "",
    ):
        self.owner = owner
        self.drips = False
        self.listing: Answer | None = None
        self.script: Script = script if callable(script) else lambda body, number: script
        self.models = models
        self.asked: list[Asked] = []
        self.active = self.most_active = self.hung_up = 0
        self.lock = threading.Lock()
        self.closing = threading.Event()
        server = self

        class Handler(_Handler):
            fake = server

        self._http = _Quiet(("127.0.0.1", port), Handler)
        self.port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def close(self) -> None:
        """Stops: connections that are open break, further ones are refused."""
        self.closing.set()
        # Not from the thread that asks for it: a script may.
        threading.Thread(target=self._http.shutdown).start()
        self._http.socket.close()

    @property
    def chats(self) -> list[Asked]:
        return [asked for asked in self.asked if asked.path.endswith("/chat/completions")]


@contextmanager
def serving(*args: Any, **options: Any) -> Iterator[FakeServer]:
    server = FakeServer(*args, **options)
    try:
        yield server
    finally:
        server.close()


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *args: Any) -> None:
        """Clients leave in the middle of requests, which is no news here."""


class _Handler(BaseHTTPRequestHandler):
    fake: FakeServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.fake.asked.append(Asked(self.path, dict(self.headers), {}))
        said = {"object": "model", **({"owned_by": self.fake.owner} if self.fake.owner else {})}
        if self.fake.drips:
            self._drip()
            return
        if given := self.fake.listing:
            self._whole(given.status, given.body or b"", given.headers)
            return
        listed = {"data": [{"id": name, **said} for name in self.fake.models]}
        self._whole(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "100000")
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has left
            while True:
                self._wait(0.02)
                self.wfile.write(b" ")
                self.wfile.flush()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fake = self.fake
        with fake.lock:
            number = len(fake.chats)
            fake.asked.append(Asked(self.path, dict(self.headers), body))
            fake.active += 1
            fake.most_active = max(fake.most_active, fake.active)
        try:
            given = fake.script(body, number)
            self._answer(Answer(given) if isinstance(given, str) else given)
        except OSError:  # the client has left
            fake.hung_up += 1
            self.close_connection = True
        finally:
            with fake.lock:
                fake.active -= 1

    def _answer(self, answer: Answer) -> None:
        self._wait(answer.delay)
        if answer.fault == "drop":
            self.close_connection = True
            self.connection.close()
            return
        if answer.status != 200 or answer.body is not None:
            self._whole(answer.status, answer.body or b"", answer.headers)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if answer.cuts is not None:
            self._send_cut(answer, answer.cuts)
            return
        chunks = list(answer.chunks())
        for number, chunk in enumerate(chunks):
            if answer.fault and number == len(chunks) // 2:
                self._fail(answer.fault)
                return
            self._wait(answer.drip)
            self._send(f"data: {json.dumps(chunk)}\n\n".encode())
        if answer.usage is not None:
            self._send(f"data: {json.dumps({'choices': [], 'usage': answer.usage})}\n\n".encode())
        self._send(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _send_cut(self, answer: Answer, cuts: Sequence[int]) -> None:
        lines = [json.dumps(chunk, ensure_ascii=False) for chunk in answer.chunks()]
        whole = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()
        edges = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
        for start, end in pairwise(edges):
            self._send(whole[start:end])
        self.wfile.write(b"0\r\n\r\n")

    def _fail(self, fault: str) -> None:
        if fault == "garbage":
            self._send(b"\xff\xfe<html>not the protocol at all</html>\n\n")
        if fault == "wrong json":
            self._send(b'data: {"choices": [{"delta": {"content": \n\n')
        if fault == "stall":
            while not self.fake.closing.is_set():
                self._wait(0.02)
                self._send(b": still here\n\n")
        if fault == "half":
            self.wfile.write(b"0\r\n\r\n")
            return
        self.close_connection = True

    def _wait(self, seconds: float) -> None:
        if self.fake.closing.wait(seconds) if seconds else self.fake.closing.is_set():
            raise ConnectionError("the server is closing")

    def _send(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _whole(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def until(condition: Callable[[], object], seconds: float = 60.0) -> bool:
    """Waits until ``condition`` holds; False where it does not in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
