"""Fast paths: which of the engine's shortcuts a loaded model takes here, and why it does not take
the others.

Each computes what the plain way computes; a report says what was used to get its figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

    from ..backends.local import LocalBackend
    from ..types import LocalSpec

State = Literal["on", "off", "failed", "not applicable"]

_OF_THE_SCHEDULER = ("CUDA graphs", "prompt lookup", "MTP drafts")

_KERNEL_PACKAGES = {"fla": "flash-linear-attention", "causal_conv1d": "causal-conv1d"}
"""Modules, and the packages that bring them."""


@dataclass(frozen=True)
class FastPath:
    """``on``: in use. ``off``: could be in use, and is not. ``failed``: its results were not those
    of the plain way. ``not applicable``: this model or device has no use for it."""

    name: str
    state: State
    reason: str = ""


def fast_paths(backend: LocalBackend) -> list[FastPath]:
    """Of a loaded model that has answered something: some are decided while it answers."""
    found: list[Callable[[LocalBackend], FastPath]] = [
        _scheduler, _patch_embedding, _norms, _linear_attention, _cuda_graphs, _prompt_lookup, _mtp,
    ]  # fmt: skip
    return [_checked(one(backend), backend) for one in found]


def _checked(path: FastPath, backend: LocalBackend) -> FastPath:
    """With what the check of the fast paths on this device found, if there was one."""
    problems = backend.fast_path_problems or {}
    if problem := problems.get(path.name):
        return FastPath(path.name, "failed", problem)
    if backend.plain_reason and path.state == "on" and path.name in _OF_THE_SCHEDULER:
        return FastPath(path.name, "off", "the scheduler is not used")
    if path.name in problems and path.state == "on":
        reason = "; ".join(filter(None, [path.reason, "checked: agrees with the plain path"]))
        return FastPath(path.name, "on", reason)
    return path


def _scheduler(backend: LocalBackend) -> FastPath:
    if backend.plain_reason:
        return FastPath(
            "scheduler", "failed" if backend.has_failed else "off", backend.plain_reason
        )
    return FastPath("scheduler", "on", "requests are answered in batches")


def attention_reason(spec: LocalSpec, device: torch.device, dtype: torch.dtype) -> str:
    """Why the model of ``spec`` has the attention that it has."""
    from ..models.attention import flash_problem

    if spec.attention != "auto":
        return "as asked for"
    if device.type == "mps":
        return "sdpa fails on MPS with these models"
    problem = flash_problem("flash_attention_2", device, dtype)
    return f"no flash_attention_2: {problem}" if problem else "flash_attention_2 is installed"


def _patch_embedding(backend: LocalBackend) -> FastPath:
    from ..models.patches import patch_embedding

    name = "patch embedding"
    if not backend.family.sees:
        return FastPath(name, "not applicable", "this model reads text only")
    if any(isinstance(part, patch_embedding.PatchEmbedding) for part in backend.model.modules()):
        return FastPath(name, "on", "one linear layer, one frame for a still picture")
    return FastPath(name, "off", "the library's own convolution is in place")


def _norms(backend: LocalBackend) -> FastPath:
    from ..models.patches import norms

    name = "fused RMS norms"
    if not norms.applies(backend.device):
        return FastPath(name, "not applicable", f"no such kernel on {backend.device.type}")
    modules = [m for m in backend.model.modules() if "RMSNorm" in type(m).__name__]
    count = sum(type(module).__module__ == norms.__name__ for module in modules)
    state: State = "on" if count else "off"
    return FastPath(name, state, f"{count} of {len(modules)} norms")


def _linear_attention(backend: LocalBackend) -> FastPath:
    """The library's own, in Qwen3.5: without these packages it computes in plain torch."""
    name = "linear attention kernels"
    layers = getattr(backend.model.config.get_text_config(), "layer_types", None) or ()
    if "linear_attention" not in layers:
        return FastPath(name, "not applicable", "no layer of this model has linear attention")
    if backend.device.type != "cuda":
        return FastPath(name, "not applicable", f"the model is on {backend.device.type}")
    missing = [module for module in _KERNEL_PACKAGES if find_spec(module) is None]
    if missing:
        packages = " and ".join(_KERNEL_PACKAGES[module] for module in missing)
        return FastPath(name, "off", f"not installed: {packages}")
    return FastPath(name, "on")


def _cuda_graphs(backend: LocalBackend) -> FastPath:
    from ..inference.cuda_graphs import CudaGraphs

    name = "CUDA graphs"
    if backend.device.type != "cuda":
        return FastPath(name, "not applicable", f"the model is on {backend.device.type}")
    if len(backend.weights.shares) > 1:
        return FastPath(name, "not applicable", "the model is split over several devices")
    if CudaGraphs(backend.device, backend.model).enabled:
        return FastPath(name, "on")
    return FastPath(name, "off", "a step of this model could not be captured; the log says why")


def _prompt_lookup(backend: LocalBackend) -> FastPath:
    return _drafts("prompt lookup", backend.adaptive_lookup)


def _mtp(backend: LocalBackend) -> FastPath:
    from ..models.patches import mtp_head

    name = "MTP drafts"
    if not backend.family.mtp_prefix:
        return FastPath(name, "not applicable", "this family has no MTP head")
    if mtp_head.of(backend.model) is None:
        return FastPath(name, "off", "the checkpoint has no MTP head that fits")
    return _drafts(name, backend.adaptive_mtp)


def _drafts(name: str, adaptive: Any) -> FastPath:
    if adaptive.pays:
        return FastPath(name, "on", "while it is measured to be faster, for greedy rows")
    return FastPath(name, "off", "measured to be no faster here, for now")
