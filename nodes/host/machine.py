"""Devices of this machine and their memory, as ComfyUI uses them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .optional_import import optional_import

if TYPE_CHECKING:
    import torch


def devices() -> list[str]:
    """Device names to choose from: ``auto``, the accelerators that torch sees, ``split`` where
    there are several, and ``cpu``."""
    import torch

    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if len(found) > 1:
        found.append("split")
    if torch.backends.mps.is_available():
        found.append("mps")
    return ["auto", *found, "cpu"]


def device(name: str) -> str:
    """The device that ``auto`` means to ComfyUI (so ``--cpu`` holds here too); any other name as it
    is."""
    get_torch_device = optional_import("comfy.model_management", "get_torch_device")
    return str(get_torch_device()) if name == "auto" and get_torch_device else name


def total_memory(device: torch.device) -> int:
    """Bytes of memory that ``device`` has."""
    if total := optional_import("comfy.model_management", "get_total_memory"):
        return int(total(device))
    import psutil

    return int(psutil.virtual_memory().total)


def movable_memory(device: torch.device) -> int:
    """Bytes of models on ``device`` that ComfyUI can offload to make room."""
    loaded = optional_import("comfy.model_management", "current_loaded_models") or []
    # A copy, since runs change the list meanwhile; it holds its models weakly.
    models = [item.model for item in list(loaded) if item.device == device]
    return sum(
        model.loaded_size()
        for model in models
        if model is not None and model.offload_device != device
    )
