"""Room for a model and its work: who gives it, and what to do when there is none.

Bringing one model can move others out, and each is locked while it computes. So locks are taken in
one order, by which no two models can wait for one another: a model's ``turn``, then ``MOVING``,
then the locks of weights. Who computes, and so holds his weights' lock, waits for none of them.
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

MOVING = threading.RLock()
"""Held while room is made: hosts keep one list of what is loaded where."""


@contextmanager
def held(lock: Any, check: Callable[[], None]) -> Iterator[None]:
    """Holds ``lock``, and calls ``check``, which may raise to stop, every so often until then."""
    while not lock.acquire(timeout=0.1):
        check()
    try:
        yield
    finally:
        lock.release()


class Memory:
    """Gives models room. This one knows torch alone; a host that manages memory for several
    models at once overrides every method."""

    def bring(self, weights: Weights, work: int, progress: Progress | None = None) -> None:
        """Gets the weights onto their devices with ``work`` bytes free beside them, as far as
        that can be had. Raises what loading raises."""
        weights.load(progress)

    def free(self, device: torch.device) -> int:
        """Bytes that can be allocated on ``device`` now."""
        if device.type == "cuda":
            unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return torch.cuda.mem_get_info(device)[0] + unused
        return ram.available()

    def relieve(self, weights: Weights) -> None:
        """Called when memory ran out beside ``weights``: gives back all that is not in use. See
        ``LocalBackend.relieve``."""
        gc.collect()
        self.settle()

    def settle(self) -> None:
        """Called after weights left a device: lets other programs have the memory."""
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()

    def forget(self, weights: Weights) -> None:
        """These weights will not be used again."""


def ran_out(error: BaseException) -> bool:
    """Whether ``error`` says that memory ran out, in the words of torch's various devices."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    words = str(error).lower()
    return isinstance(error, RuntimeError) and (
        "out of memory" in words or "can't allocate memory" in words or "not enough memory" in words
    )
