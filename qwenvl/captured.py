"""A step on CUDA, launched as a whole.

A model's step is a thousand small kernels; launching them one by one from Python takes several
times as long as they run. A captured step is one launch.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from typing import Any

import torch

from .memory import ran_out

log = logging.getLogger(__name__)

_EAGER = 2
"""Runs before a step is captured: they do real work, and set up what cannot be while capturing. A
short answer is over before a capture would pay."""


class Captured:
    """Steps of fixed shapes on tensors that stay where they are, by a key that names the shapes.
    ``forget`` when a tensor has moved."""

    def __init__(self, device: torch.device):
        self._device = device
        self._graphs: dict[Hashable, Any] = {}
        self._runs: Counter[Hashable] = Counter()
        self._pool: Any = None  # graphs run one at a time and can share their memory
        self._possible = True

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """One ``step``. It must not read from the device, nor depend on anything of the host that
        changes while ``key`` does not."""
        self._runs[key] += 1
        if key not in self._graphs and self._possible and self._runs[key] > _EAGER:
            self._capture(key, step)
        graph = self._graphs.get(key)
        if graph is None:
            step()
        else:
            self._replay(graph)

    def forget(self) -> None:
        self._graphs.clear()
        self._runs.clear()
        self._pool = None

    def _capture(self, key: Hashable, step: Callable[[], None]) -> None:
        try:
            self._graphs[key] = self._record(step)
        except RuntimeError as error:
            if ran_out(error):
                raise
            # Some kernels (of 8-bit weights, say) look at their results on the host.
            self._possible = False
            log.info("This model decodes launch by launch, its steps cannot be captured: %s", error)

    def _record(self, step: Callable[[], None]) -> Any:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(self._device):
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            # Other threads of the process may use the device meanwhile.
            with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
                step()
        return graph

    def _replay(self, graph: Any) -> None:
        with torch.cuda.device(self._device):
            graph.replay()
