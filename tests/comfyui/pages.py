"""A browser's page as ComfyUI sees one: a client that queues workflows and is told of them."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import websocket
from real import Server

LIVE = "qwen_vl.live"
_LIMIT = 300  # seconds


@dataclass(frozen=True)
class Message:
    """``at``: when it came, on ``time.monotonic``'s clock."""

    kind: str
    data: Any
    at: float


class Page:
    """Keeps every message that the server sends to it, in order."""

    def __init__(self, server: Server):
        self.server = server
        self.client_id = uuid.uuid4().hex
        self._heard: list[Message] = []
        self._news = threading.Condition()

    def __enter__(self) -> Page:
        address = self.server.url.replace("http", "ws", 1)
        self._socket = websocket.create_connection(f"{address}/ws?clientId={self.client_id}")
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.abort()  # wakes the listener
        self._listener.join()
        self._socket.shutdown()

    def start(self, prompt: dict[str, Any]) -> str:
        return self.server.start(prompt, self.client_id)

    def run(self, prompt: dict[str, Any]) -> str:
        """Queues a workflow and waits for its end, which must be a good one."""
        prompt_id = self.start(prompt)
        kind = self.wait(ends(prompt_id)).kind
        assert kind == "execution_success", self.heard(kind, prompt_id)
        return prompt_id

    def heard(self, kind: str = "", prompt_id: str = "") -> list[Message]:
        """What came so far, of one kind and about one workflow if these are given."""
        with self._news:
            return [
                message
                for message in self._heard
                if kind in ("", message.kind) and prompt_id in ("", _prompt_of(message))
            ]

    def wait(self, wanted: Callable[[Message], bool]) -> Message:
        """The first message that is ``wanted``, which may have come already."""
        deadline = time.monotonic() + _LIMIT
        with self._news:
            while True:
                for message in self._heard:
                    if wanted(message):
                        return message
                if not self._news.wait(deadline - time.monotonic()):
                    raise AssertionError(f"Not told within {_LIMIT} s; last: {self._heard[-3:]}")

    def _listen(self) -> None:
        while True:
            try:
                frame = self._socket.recv()
            except (websocket.WebSocketException, OSError):  # closed by ``__exit__``
                return
            if isinstance(frame, str) and frame:  # previews of pictures are bytes
                told = json.loads(frame)
                with self._news:
                    self._heard.append(Message(told["type"], told["data"], time.monotonic()))
                    self._news.notify_all()


def ends(prompt_id: str) -> Callable[[Message], bool]:
    """For ``Page.wait``: how the workflow ended."""
    kinds = ("execution_success", "execution_error", "execution_interrupted")
    return lambda message: message.kind in kinds and _prompt_of(message) == prompt_id


def _prompt_of(message: Message) -> str:
    return message.data.get("prompt_id", "") if isinstance(message.data, dict) else ""
