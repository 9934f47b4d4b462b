"""Patch: RMS norms of transformers' models computed by torch's fused kernel.

The models write a norm out as six to ten operations, and an 8B model has 145 norms: on a GPU
nearly half of all kernels of a decode step. ``torch.nn.functional.rms_norm`` is one kernel with
the same formula. A norm is replaced only where a trial in float32 gives the same as one of
``_FORMULAS``. In half precision the fused kernel rounds once, at its end; the written-out norm also
in between.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu


def applies(device: torch.device) -> bool:
    """Whether ``device`` has the fused kernel. Without it (torch before 2.9, the CPU) torch
    takes as many operations as the models do."""
    if device.type != "cuda" or not hasattr(torch.ops.aten, "_fused_rms_norm"):
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key("aten::_fused_rms_norm", "CUDA")


def apply(model: nn.Module) -> None:
    """Replaces every RMS norm of transformers' own in ``model`` that computes one of
    ``_FORMULAS``."""
    fused: dict[type, type] = {}
    for module in model.modules():
        kind = type(module)
        # A norm that accelerate has wrapped, to move its inputs, stays as it is.
        if "RMSNorm" not in kind.__name__ or "forward" in vars(module):
            continue
        if kind not in fused:
            is_official = kind.__module__.startswith("transformers.")
            fused[kind] = _fused(kind, _formula(module) if is_official else None)
        module.__class__ = fused[kind]


def _plain(norm: Any, x: Tensor) -> Tensor:
    return rms_norm(x, norm.weight.shape, norm.weight, _epsilon(norm))


def _around_one(norm: Any, x: Tensor) -> Tensor:
    """With weights around zero, to which one is added, as in Qwen3.5."""
    scale = 1.0 + norm.weight.float()
    return rms_norm(x.float(), scale.shape, scale, _epsilon(norm)).type_as(x)


def _gated(norm: Any, x: Tensor, gate: Tensor) -> Tensor:
    """With a gate, as behind Qwen3.5's linear attention."""
    return (_plain(norm, x) * silu(gate.float())).to(x.dtype)


_FORMULAS: tuple[Callable[..., Tensor], ...] = (_plain, _around_one, _gated)


def _epsilon(norm: Any) -> float:
    return norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps


def _formula(norm: Any) -> Callable[..., Tensor] | None:
    """The one of ``_FORMULAS`` that computes what ``norm`` computes, or None."""
    trial = copy.deepcopy(norm).float().cpu()
    trial.weight.data = torch.linspace(0.5, 1.5, len(trial.weight))
    inputs = [torch.linspace(-3, 2, len(trial.weight)), torch.linspace(-1, 4, len(trial.weight))]
    for formula in _FORMULAS:
        count = len(inspect.signature(formula).parameters) - 1
        if count == len(inspect.signature(trial.forward).parameters):
            expected, actual = trial(*inputs[:count]), formula(trial, *inputs[:count])
            if torch.allclose(expected, actual, rtol=1e-5, atol=1e-6):
                return formula
    return None


def _fused(kind: Any, formula: Callable[..., Tensor] | None) -> type:
    if formula is None:
        return kind

    def forward(self: Any, x: Tensor, *gate: Tensor) -> Tensor:
        if x.dtype != self.weight.dtype:  # torch has no kernel for mixed types
            return kind.forward(self, x, *gate)
        return formula(self, x, *gate)

    return type(f"Quick{kind.__name__}", (kind,), {"forward": forward})


def is_applied(model: nn.Module) -> bool:
    """Whether any norm of ``model`` is a replaced one."""
    return bool(_replaced(model))


def remove(model: nn.Module) -> None:
    """Gives ``model`` its own norms back."""
    for norm in _replaced(model):
        norm.__class__ = type(norm).__base__


@contextmanager
def removed(model: nn.Module) -> Iterator[None]:
    """While the block runs, ``model`` has its own norms."""
    replaced = [(norm, type(norm)) for norm in _replaced(model)]
    remove(model)
    try:
        yield
    finally:
        for norm, kind in replaced:
            norm.__class__ = kind


def _replaced(model: nn.Module) -> list[nn.Module]:
    return [part for part in model.modules() if type(part).__module__ == __name__]
