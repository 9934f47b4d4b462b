"""Served weights: those that a llama-server holds, and the watch on it while it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..models.load_progress import Progress
from ..models.weights import Weights
from ..observer import Observer, Relay
from ..servers.llama_server import LlamaServer
from ..source import Source
from ..types import Request, Response


class ServedWeights(Weights):
    """Weights that a process of its own holds, which is ``model`` while they are loaded. They are
    in memory or not: there is no half way of RAM."""

    model: LlamaServer | None

    def load(self, progress: Progress | None = None) -> Any:
        with self.lock:
            if self.model is not None and not self.model.is_running:
                self.release()
            if self.model is None:
                self.model = self._read(progress)
                self.place = "device"
            return self.model

    def offload(self) -> None:
        self.release()

    def release(self) -> None:
        with self.lock:
            if self.model is not None:
                self.model.stop()
            super().release()


class ServerEnded(Exception):
    """The server has ended while it was asked."""


class ServerWatch(Relay):
    """Relay that looks whether ``server`` still lives, so that nobody waits for one that has
    ended."""

    def __init__(self, inner: Observer, server: LlamaServer):
        super().__init__(inner)
        self._server = server

    def check(self) -> None:
        super().check()
        if not self._server.is_running:
            raise ServerEnded


class BatchWatch(ServerWatch):
    """As ``ServerWatch``, for the requests of one call: it keeps what the server answered until its
    end."""

    def __init__(self, inner: Observer, server: LlamaServer):
        super().__init__(inner, server)
        self._responses: dict[int, Response] = {}
        self._has_started = False

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        self._has_started = True
        super().start(prompt_tokens, max_new_tokens)

    def done(self, index: int, response: Response) -> None:
        self._responses[index] = response
        super().done(index, response)

    def responses(self, count: int) -> list[Response]:
        """To each of ``count`` requests, after the server's end. Raises what ended it where that
        was before any of them was asked."""
        if not self._has_started:
            raise self._server.failure()
        return [self._response(index) for index in range(count)]

    def _response(self, index: int) -> Response:
        if index not in self._responses:
            failed = Response.failed(self._server.failure())
            self.done(index, failed)
        return self._responses[index]


class SourceWatch(ServerWatch):
    """As ``ServerWatch``, for requests that ``source`` gives: it keeps which are open."""

    def __init__(self, inner: Observer, server: LlamaServer, source: Source):
        super().__init__(inner, server)
        self._source = source
        self._given = 0
        self._open: set[int] = set()

    def more(self, wait: bool) -> Sequence[Request] | None:
        """See ``Source.more``."""
        given = self._source.more(wait)
        self._open.update(range(self._given, self._given + len(given or ())))
        self._given += len(given or ())
        return given

    def done(self, index: int, response: Response) -> None:
        self._open.discard(index)
        super().done(index, response)

    def fail(self) -> None:
        """Those that are open, after the server's end."""
        for index in sorted(self._open):
            self.done(index, Response.failed(self._server.failure()))
