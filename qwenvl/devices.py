"""Which device and which number type a model gets, from a wish and from what is there."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .errors import BadOption, Unavailable

PRECISIONS: Mapping[str, torch.dtype | None] = {
    "auto": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


def pick_device(wish: str) -> torch.device:
    """``auto``: the first CUDA, XPU or MPS device, else the CPU. Raises ``Unavailable``."""
    if wish == "auto":
        for kind in ("cuda", "xpu", "mps"):
            if _has(kind):
                return torch.device(kind, 0) if kind != "mps" else torch.device(kind)
        return torch.device("cpu")
    try:
        device = torch.device(wish)
    except RuntimeError as error:
        raise BadOption(f"{wish!r} is no device name. Use auto, cpu, cuda:0, cuda:1 ...") from error
    if device.type != "cpu" and not _has(device.type):
        raise Unavailable(
            f"Device {wish} was asked for, but torch {torch.__version__} sees no "
            f"{device.type} device here. Choose auto or cpu."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Unavailable(
            f"Device {wish} was asked for, but there are only "
            f"{torch.cuda.device_count()} CUDA devices (from cuda:0)."
        )
    return device


def _has(kind: str) -> bool:
    module = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    return module is not None and module.is_available()


def pick_dtype(wish: str, device: torch.device) -> torch.dtype:
    """``auto``: bf16 where the device computes it natively, fp16 on older CUDA cards, fp32 on
    the CPU, where half types are slower. Raises ``BadOption`` and ``Unavailable``."""
    if wish not in PRECISIONS:
        raise BadOption(f"precision is {wish!r}; use one of {', '.join(PRECISIONS)}.")
    native_bf16 = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    dtype = PRECISIONS[wish]
    if dtype is torch.bfloat16 and not native_bf16:
        raise Unavailable(
            f"{torch.cuda.get_device_name(device)} has no bf16. Choose auto, fp16 or fp32."
        )
    if dtype is not None:
        return dtype
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if native_bf16 else torch.float16
