"""Prefetch: work for waiting requests, done in a second thread before it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

MAX_BYTES = 64 << 20
"""Bytes of results that may wait to be taken."""

_WINDOW = 8  # the next indices that are considered


class Prefetcher(Generic[T]):
    """Runs ``work(index, check)`` for indices that will be taken: one after the other in a thread
    of its own where ``threaded``, else when they are taken. ``work`` must call ``check`` now and
    then: it raises once nobody wants the result. ``size(index)``: bytes that a result holds.

    Whoever makes one must ``close`` it, which ends the thread.
    """

    def __init__(
        self,
        work: Callable[[int, Callable[[], None]], T],
        size: Callable[[int], int],
        threaded: bool,
        max_bytes: int = MAX_BYTES,
    ):
        self._work, self._size, self._max_bytes = work, size, max_bytes
        self._pool = ThreadPoolExecutor(1, "qwenvl-prefetch") if threaded else None
        self._futures: dict[int, Future[T]] = {}
        self._closed = threading.Event()

    def schedule(self, indices: Iterable[int]) -> None:
        """``indices`` will be taken in this order: begins with the first of them, as many as
        ``max_bytes`` hold."""
        if self._pool is None:
            return
        held = sum(map(self._size, self._futures))
        for index in islice(indices, _WINDOW):
            if index in self._futures:
                continue
            held += self._size(index)
            if held > self._max_bytes:
                return
            self._futures[index] = self._pool.submit(self._work, index, self._check)

    def take(self, index: int, check: Callable[[], None]) -> T:
        """The result for ``index``, which is then no longer held. Raises what the work raised.
        Work that has not begun is done here, and then stopped by ``check``."""
        future = self._futures.pop(index, None)
        # Work that is queued behind other work is done sooner here.
        if future is None or future.cancel():
            return self._work(index, check)
        return future.result()

    def close(self) -> None:
        """Ends the work at its next ``check``, and the thread. Results that were not taken are
        dropped."""
        self._closed.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._futures.clear()

    def _check(self) -> None:
        if self._closed.is_set():
            raise CancelledError
