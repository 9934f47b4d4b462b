"""Resident backend: weights in this machine's memory, brought to their device for each call, which
others may move out between calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import unloaded
from ..models.memory import MEMORY_LOCK, Memory, acquired
from ..models.weights import Weights
from ..observer import Observer
from ..types import Place


class ResidentBackend:
    """Base of backends that are ``Resident``. ``weights``: theirs; ``memory``: what makes room for
    them."""

    def __init__(self, weights: Weights, memory: Memory):
        self.weights, self.memory = weights, memory
        # Of the call that is being served; others wait for it without MEMORY_LOCK.
        self._turn = threading.RLock()
        self._closed = False

    @property
    def nbytes(self) -> int:
        """See ``Resident.nbytes``."""
        return self.weights.nbytes

    @property
    def place(self) -> Place:
        """See ``Resident.place``."""
        return self.weights.place

    def release(self) -> None:
        """See ``Resident.release``."""
        self.weights.release()

    def close(self) -> None:
        """See ``Backend.close``."""
        with self.weights.lock:
            self._closed = True
            self.release()
            self.memory.forget(self.weights)

    @contextmanager
    def _held(self, bring: Callable[[], None], observer: Observer) -> Iterator[None]:
        """The weights are on their device while the block runs, and nobody moves them. ``bring``
        gets them there, again where another thread has moved them out in between. Raises what it
        raises, and ``QwenVLError`` once this is closed."""
        while True:
            with acquired(self._turn, observer.check), acquired(MEMORY_LOCK, observer.check):
                self._check_open()
                bring()
                self.weights.lock.acquire()  # at most held by somebody who moves them
            try:
                self._check_open()
                if self.weights.place == "device":
                    yield
                    return
            finally:
                self.weights.lock.release()

    def _check_open(self) -> None:
        if self._closed:
            self.release()  # closed while they were brought
            raise unloaded()
