"""CUDA graphs: the two parts of a decode step, the forward pass and the sampling, each captured
once and replayed in one launch.

A step is a thousand small kernels; launching them one by one from Python takes several times as
long as they run.
"""

from __future__ import annotations

import logging
import threading
import warnings
import weakref
from collections import Counter
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch

from ..models.memory import is_out_of_memory

log = logging.getLogger(__name__)

_WARMUP_RUNS = 2
"""Eager runs before a step is captured: they do real work, set up what cannot be set up during a
capture, and show whether the step synchronises with the device. A short answer is over before a
capture would pay."""

_DISABLED: weakref.WeakSet[Any] = weakref.WeakSet()
"""Models whose steps cannot be captured. A capture that fails leaves torch's allocator in a bad
state, so it is not tried twice, and not at all where it is known to fail."""

_CAPTURE_LOCK = threading.Lock()
"""Of captures under way at once, torch lets some fail, and with them whatever comes after; and what
another thread launches on the capture stream meanwhile would become part of the graph."""


def disable(model: Any) -> None:
    """Steps of ``model`` are not captured from now on."""
    _DISABLED.add(model)


@contextmanager
def disabled(model: Any) -> Iterator[None]:
    """Steps of ``model`` are not captured while the block runs."""
    before = model in _DISABLED
    disable(model)
    try:
        yield
    finally:
        if not before:
            _DISABLED.discard(model)


class CudaGraphs:
    """Graphs of ``model``'s steps, by a key that names their shapes. Their tensors must stay where
    they are: ``forget`` when one has moved."""

    def __init__(self, device: torch.device, model: Any):
        self._device, self._model = device, model
        self._graphs: dict[Hashable, Any] = {}
        self._runs: Counter[Hashable] = Counter()
        self._pool: Any = None  # graphs run one at a time and can share their memory

    @property
    def enabled(self) -> bool:
        return self._model not in _DISABLED

    def run(self, key: Hashable, step: Callable[[], None]) -> bool:
        """Runs one ``step``, eagerly or as a graph. It must not read from the device, nor leave a
        tensor that it made, nor depend on anything of the host that changes while ``key`` does not.
        False where it took longer than it will the next time."""
        if not self.enabled:
            step()
            return True
        self._runs[key] += 1
        if self._runs[key] < _WARMUP_RUNS:
            step()
        elif self._runs[key] == _WARMUP_RUNS:
            if self._synchronizes(step):
                self._disable("it waits for the device")
        elif graph := self._graphs.get(key):
            self._replay(graph)
        else:
            self._capture(key, step)
        return self._runs[key] > _WARMUP_RUNS + 1

    def forget(self) -> None:
        self._graphs.clear()
        self._runs.clear()
        self._pool = None

    def _disable(self, why: object) -> None:
        disable(self._model)
        self.forget()
        log.info("Steps of this model are launched one kernel at a time: %s", why)

    def _capture(self, key: Hashable, step: Callable[[], None]) -> None:
        try:
            self._graphs[key] = self._record(step)
        except RuntimeError as error:
            # Memory that suffices for the step may not suffice for its graph as well.
            self._disable("no memory is left for more" if is_out_of_memory(error) else error)
            step()
        else:
            self._replay(self._graphs[key])

    def _synchronizes(self, step: Callable[[], None]) -> bool:
        """Runs ``step``, and tells whether it waited for the device, as some kernels do (those of
        8-bit weights, say). On the capture stream: what libraries set up for a stream must not
        become part of a graph."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as caught, self._on_capture_stream():
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")  # which warns that it is a prototype
            try:
                step()
            finally:
                torch.cuda.set_sync_debug_mode(before)
        return any("a synchronizing" in str(warning.message) for warning in caught)

    @contextmanager
    def _on_capture_stream(self) -> Iterator[None]:
        """Behind everything that was launched before the block, and before what is launched
        after."""
        capture, current = _capture_stream(self._device), torch.cuda.current_stream(self._device)
        with _CAPTURE_LOCK:
            capture.wait_stream(current)
            try:
                with torch.cuda.stream(capture):
                    yield
            finally:
                current.wait_stream(capture)

    def _record(self, step: Callable[[], None]) -> Any:
        graph = torch.cuda.CUDAGraph()
        with _CAPTURE_LOCK, torch.cuda.device(self._device):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            torch.cuda.synchronize()
            # Not torch.cuda.graph: it empties torch's caches every time, keeps one stream for all
            # devices, and stays on it where a capture fails.
            with torch.cuda.stream(_capture_stream(self._device)):
                try:
                    # Other threads of the process may use the device meanwhile.
                    graph.capture_begin(self._pool, capture_error_mode="thread_local")
                    try:
                        step()
                    finally:
                        graph.capture_end()
                except BaseException:  # a host's interrupt, say
                    self._end_allocation_to_pool()
                    raise
        return graph

    def _end_allocation_to_pool(self) -> None:
        """After a capture that failed, torch up to 2.11 would go on allocating from the graph's
        pool, and give none of that memory back."""
        # A newer one has ended it, and may have no such function.
        with suppress(RuntimeError, AttributeError):
            torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)

    def _replay(self, graph: Any) -> None:
        with torch.cuda.device(self._device):
            graph.replay()


@cache
def _capture_stream(device: torch.device) -> Any:
    """Where steps on ``device`` are captured: one for all, for each keeps memory of its own."""
    return torch.cuda.Stream(device)
