"""Which devices this machine has, and which of them ComfyUI uses."""

from __future__ import annotations

from .parts import part


def devices() -> list[str]:
    """``auto``, the accelerators that torch sees here, and ``cpu``."""
    import torch

    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return ["auto", *found, "cpu"]


def device(wish: str) -> str:
    """``auto`` as ComfyUI means it (so ``--cpu`` holds here too); any other wish as it is."""
    get_torch_device = part("comfy.model_management", "get_torch_device")
    return str(get_torch_device()) if wish == "auto" and get_torch_device else wish
