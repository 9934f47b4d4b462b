"""Fake CUDA graphs for the CPU: record a step's operations and replay them.

As with real graphs, what the host decided during the capture is fixed, and only tensors that live
outside the step carry anything from one run to the next. What a capture would refuse is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from qwen_vl_suite.qwenvl.inference.cuda_graphs import CudaGraphs
from torch.utils._python_dispatch import TorchDispatchMode

REFUSED = {
    "aten::_local_scalar_dense": "reads a number back from the device",
    "aten::lift_fresh": "takes numbers from the host",
    "aten::nonzero": "makes a tensor whose size the host must know",
    "aten::unique": "makes a tensor whose size the host must know",
    "aten::_unique2": "makes a tensor whose size the host must know",
    "aten::masked_select": "makes a tensor whose size the host must know",
}


class FakeGraph(TorchDispatchMode):
    """``record(step)`` has no lasting effect: the tensors that the step writes to are restored."""

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Any, Any, Any, Any]] = []
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

    def record(self, step: Callable[[], None]) -> FakeGraph:
        try:
            with self:
                step()
        finally:
            for held, value in self._before.values():
                held.copy_(value)
        return self

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func._schema.name
        if name in REFUSED:
            raise RuntimeError(f"operation not permitted when stream is capturing: {name}")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info and argument.alias_info.is_write:
                whole = value if value._base is None else value._base
                self._before.setdefault(id(whole), (whole, whole.clone()))
        out = func(*args, **kwargs)
        self._operations.append((func, args, kwargs, out))
        return out

    def replay(self) -> None:
        made: dict[int, torch.Tensor] = {}

        def current(value: Any) -> Any:
            # What the operations were recorded with is still alive, so that an id names one object.
            if isinstance(value, (list, tuple)):
                return [current(part) for part in value]
            return made.get(id(value), value)

        for func, args, kwargs, out in self._operations:
            fresh = func(*map(current, args), **{key: current(kwargs[key]) for key in kwargs})
            olds = out if isinstance(out, (tuple, list)) else [out]
            news = fresh if isinstance(fresh, (tuple, list)) else [fresh]
            for old, new in zip(olds, news, strict=True):
                if isinstance(old, torch.Tensor):
                    made[id(old)] = new


class Model:
    """Stands for a model; only its identity counts."""


class FakeCudaGraphs(CudaGraphs):
    """``CudaGraphs`` that capture fake graphs."""

    def __init__(self, model: Any = None) -> None:
        super().__init__(torch.device("cpu"), model or Model())
        self.captures = self.replays = 0

    def _synchronizes(self, step: Callable[[], None]) -> bool:
        step()
        return False

    def _record(self, step: Callable[[], None]) -> Any:
        self.captures += 1
        return FakeGraph().record(step)

    def _replay(self, graph: Any) -> None:
        self.replays += 1
        graph.replay()
