"""Work that is done in a second thread before it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")

MOST = 64 << 20
"""Bytes that may wait to be asked for."""

_NEXT = 8  # of what is next, so many are looked at


class Prefetcher(Generic[T]):
    """``work(index, check)`` for indices that will be asked for: one after the other in a thread
    of its own where ``threaded``, else when they are. ``work`` is to call ``check`` now and then:
    it raises once nobody wants the result. ``size(index)``: bytes that a result will hold.

    To be closed by whoever made it, which ends the thread.
    """

    def __init__(
        self,
        work: Callable[[int, Callable[[], None]], T],
        size: Callable[[int], int],
        threaded: bool,
        most: int = MOST,
    ):
        self._work, self._size, self._most = work, size, most
        self._pool = ThreadPoolExecutor(1, "qwenvl-ahead") if threaded else None
        self._begun: dict[int, Future[T]] = {}
        self._closed = threading.Event()

    def want(self, indices: Iterable[int]) -> None:
        """``indices`` will be asked for, in this order: begins with the first of them, as many as
        ``most`` bytes hold."""
        if self._pool is None:
            return
        held = sum(map(self._size, self._begun))
        for index in islice(indices, _NEXT):
            if index in self._begun:
                continue
            held += self._size(index)
            if held > self._most:
                return
            self._begun[index] = self._pool.submit(self._work, index, self._check)

    def take(self, index: int, check: Callable[[], None]) -> T:
        """The result for ``index``, which is then no longer held. Raises what the work raised.
        Work that nobody has begun is done here, and then stopped by ``check``."""
        begun = self._begun.pop(index, None)
        # What waits in the queue behind other work is done sooner here.
        if begun is None or begun.cancel():
            return self._work(index, check)
        return begun.result()

    def close(self) -> None:
        """Ends the work at its next ``check``, and the thread. Results that were not taken are
        dropped."""
        self._closed.set()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        self._begun.clear()

    def _check(self) -> None:
        if self._closed.is_set():
            raise CancelledError
