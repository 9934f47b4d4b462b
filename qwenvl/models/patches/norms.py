"""RMS norms in one kernel each, where launching kernels is what a step costs.

The models write their norms out, six to ten operations each, and an 8B model has 145 of them: on a
graphics card nearly half of all kernels of a step. torch has the whole as one.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import rms_norm, silu


def applies(device: torch.device) -> bool:
    """Whether the kernel is there; without it (torch before 2.9, processors) torch takes as many
    steps as the models do."""
    if device.type != "cuda" or not hasattr(torch.ops.aten, "_fused_rms_norm"):
        return False
    return torch._C._dispatch_has_kernel_for_dispatch_key("aten::_fused_rms_norm", "CUDA")


def apply(model: nn.Module) -> None:
    """Lets every RMS norm of ``model`` that is known here take the short way.

    Known is one of transformers' own that computes the same as one of ``_FORMS``. In half
    precision the short way rounds once, at its end; the long way also in between.
    """
    quick: dict[type, type] = {}
    for module in model.modules():
        kind = type(module)
        # One that accelerate has wrapped, to move what comes in, keeps the long way.
        if "RMSNorm" not in kind.__name__ or "forward" in vars(module):
            continue
        if kind not in quick:
            written_out = kind.__module__.startswith("transformers.")
            quick[kind] = _quick(kind, _form(module) if written_out else None)
        module.__class__ = quick[kind]


def _plain(norm: Any, x: Tensor) -> Tensor:
    return rms_norm(x, norm.weight.shape, norm.weight, _epsilon(norm))


def _one_more(norm: Any, x: Tensor) -> Tensor:
    """Weights around zero, as Qwen3.5 has them."""
    scale = 1.0 + norm.weight.float()
    return rms_norm(x.float(), scale.shape, scale, _epsilon(norm)).type_as(x)


def _gated(norm: Any, x: Tensor, gate: Tensor) -> Tensor:
    """Behind Qwen3.5's linear attention."""
    return (_plain(norm, x) * silu(gate.float())).to(x.dtype)


_FORMS: tuple[Callable[..., Tensor], ...] = (_plain, _one_more, _gated)


def _epsilon(norm: Any) -> float:
    return norm.variance_epsilon if hasattr(norm, "variance_epsilon") else norm.eps


def _form(norm: Any) -> Callable[..., Tensor] | None:
    """Which of ``_FORMS`` computes what ``norm`` computes; None if none does."""
    trial = copy.deepcopy(norm).float().cpu()
    trial.weight.data = torch.linspace(0.5, 1.5, len(trial.weight))
    inputs = [torch.linspace(-3, 2, len(trial.weight)), torch.linspace(-1, 4, len(trial.weight))]
    for form in _FORMS:
        taken = len(inspect.signature(form).parameters) - 1
        if taken == len(inspect.signature(trial.forward).parameters):
            wanted, got = trial(*inputs[:taken]), form(trial, *inputs[:taken])
            if torch.allclose(wanted, got, rtol=1e-5, atol=1e-6):
                return form
    return None


def _quick(kind: Any, form: Callable[..., Tensor] | None) -> type:
    if form is None:
        return kind

    def forward(self: Any, x: Tensor, *more: Tensor) -> Tensor:
        if x.dtype != self.weight.dtype:  # torch has no kernel for mixed types
            return kind.forward(self, x, *more)
        return form(self, x, *more)

    return type(f"Quick{kind.__name__}", (kind,), {"forward": forward})
