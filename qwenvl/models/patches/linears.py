"""Patch: linear layers on a processor, by the quicker of the two libraries that torch brings.

In float32 torch computes them with MKL. For one row that gains nothing from more threads on some
processors (an AMD EPYC, say), and reads the weights at a fraction of the memory's speed; decoding
is little else than reading weights for one row. oneDNN is there too, and takes the same tensors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

FEW, MANY = 12, 128
"""Rows. Between them oneDNN puts the weights in another order at every call, which takes longer
than it saves."""
_LARGE = 100_000
"""Numbers in a layer's weight. Of smaller ones the call itself takes the time."""


def apply(model: nn.Module) -> None:
    """Lets the large float32 linear layers of a ``model`` on the processor take the quicker way,
    where there is one. Sums are made in another order, so results differ by rounding."""
    if not _pays():
        return
    for module in model.modules():
        # One that accelerate has wrapped stays as it is; quantised ones are of other classes.
        if type(module) is nn.Linear and "forward" not in vars(module):
            weight = module.weight
            if weight.dtype == torch.float32 and weight.numel() >= _LARGE:
                module.__class__ = QuickLinear


class QuickLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        rows = x.numel() // x.shape[-1]
        if rows <= FEW or rows >= MANY:
            return _onednn(x, self.weight, self.bias)
        return linear(x, self.weight, self.bias)


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


@cache
def _pays() -> bool:
    """Measured once, in some 30 ms: one row through weights that caches rarely hold all of."""
    if not (
        torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return False
    with torch.no_grad():
        row, weights = torch.ones(1, 1536), torch.ones(4, 2048, 1536)
        ours, theirs = (_seconds(way, row, weights) for way in (_onednn, linear))
    return ours < 0.9 * theirs


def _seconds(way: Callable[..., Any], row: Tensor, weights: Tensor) -> float:
    times = []
    for _ in range(4):
        start = time.perf_counter()
        for weight in weights:
            way(row, weight)
        times.append(time.perf_counter() - start)
    return min(times)
