"""Client thread: a server's client in an event loop of its own, for callers that wait in threads of
theirs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

from ..errors import unloaded
from ..observer import Observer
from ..types import ServerSpec
from .client import Client
from .event_loop import EventLoopThread, Job
from .keys import Keys

T = TypeVar("T")


class ClientThread:
    """The client of the server of ``spec``, made with the first work for it. Thread-safe."""

    def __init__(self, spec: ServerSpec, keys: Keys):
        self._spec, self._keys = spec, keys
        self._loop = EventLoopThread("server requests")
        self._lock = threading.Lock()
        self._client: Client | None = None  # made and used in the loop
        self._client_loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def run(self, work: Callable[[Job[T], Client], Awaitable[T]], observer: Observer) -> T:
        """The result of ``work``, which runs in the event loop, while ``observer`` is told its
        events here. Raises what either of them does, and ``QwenVLError`` once this is closed."""

        async def run(job: Job[T]) -> T:
            client = self._client_here()
            client.try_again()
            return await work(job, client)

        with self._lock:
            if self._closed:
                raise unloaded()
            job = self._loop.start(run)
        return job.wait(observer)

    def close(self) -> None:
        """Cancels all work and ends the thread soon."""
        with self._lock:
            self._closed = True
        self._loop.close()

    def _client_here(self) -> Client:
        """The client of the running loop, which is another one in a forked process."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._client_loop is not loop:
            self._client, self._client_loop = Client(self._spec, self._keys), loop
            self._loop.at_end(self._client.close)
        return self._client
