"""Daemon threads: a thread pool that keeps no process from exiting."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class DaemonThreads:
    """At most ``most`` threads, the first of which starts with the first call. Those of
    ``concurrent.futures`` are waited for when the process is to exit, however long a disk or
    another machine may take."""

    def __init__(self, most: int, name: str):
        self._most, self._name = most, name
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._count = 0

    def submit(self, function: Callable[..., T], *args: Any) -> Future[T]:
        """``function(*args)``, called once a thread is free."""
        future: Future[T] = Future()

        def call() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(function(*args))
            except BaseException as error:
                future.set_exception(error)

        self._calls.put(call)
        with self._lock:
            if self._count < self._most:
                self._count += 1
                name = f"{self._name}_{self._count}"
                threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def _work(self) -> None:
        while True:
            self._calls.get()()
