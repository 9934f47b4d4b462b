"""Memory manager: makes room for a model and its work, and reacts when memory runs out.

Loading one model can evict others, and each is locked while it computes. Locks are therefore taken
in one order, so that two models never wait for one another: a backend's own lock for the call that
it serves, then ``MEMORY_LOCK``, then the locks of weights. A thread that computes, and so holds
its weights' lock, waits for none of them.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from . import ram
from .load_progress import Progress
from .weights import Weights

MEMORY_LOCK = threading.RLock()
"""Held while room is made: a host keeps one list of what is loaded where."""


@contextmanager
def acquired(lock: Any, check: Callable[[], None]) -> Iterator[None]:
    """Holds ``lock`` while the block runs. Until it is free, ``check`` is called ten times a
    second; what that raises, such as a host's interrupt, ends the wait."""
    while not lock.acquire(timeout=0.1):
        check()
    try:
        yield
    finally:
        lock.release()


class Memory:
    """Memory manager that knows torch alone; a host that manages the memory of several models
    overrides every method."""

    def bring(self, weights: Weights, work: int, progress: Progress | None = None) -> None:
        """Loads ``weights`` onto their devices, with ``work`` bytes free beside them as far as
        possible. Raises what loading raises."""
        weights.load(progress)

    def free(self, device: torch.device) -> int:
        """Bytes that can be allocated on ``device`` now."""
        if device.type == "cuda":
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return torch.cuda.mem_get_info(device)[0] + unused
        return ram.available()

    def evict_others(self, weights: Weights) -> None:
        """Called when memory ran out beside ``weights``: evicts other models and returns cached
        memory. The caller holds ``MEMORY_LOCK``."""
        gc.collect()
        self.empty_cache()

    def empty_cache(self) -> None:
        """Called after weights left a device: returns torch's cached memory to the system."""
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def forget(self, weights: Weights) -> None:
        """Called when ``weights`` will not be used again."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, in the words of torch's various devices."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in words or "can't allocate memory" in words or "not enough memory" in words
    )
