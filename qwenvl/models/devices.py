"""Devices: which of the machine's devices a model runs on."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import BadOption, Unavailable

SPLIT = "split"
"""As a device: all CUDA devices, each with a part of the model."""


def pick_devices(name: str) -> list[torch.device]:
    """The devices of a model, the one that takes its inputs first: all CUDA devices for
    ``split``, else the one of ``pick_device``. Raises ``BadOption`` and ``Unavailable``."""
    if name != SPLIT:
        return [pick_device(name)]
    count = torch.cuda.device_count()
    if count < 2:
        raise Unavailable(
            f"A model can be split over two or more CUDA devices, and torch sees "
            f"{count or 'none'} here. Choose auto; if the model is too large for it, 8bit or "
            "4bit, or a smaller model."
        )
    return [torch.device("cuda", index) for index in range(count)]


def least_capable(devices: Sequence[torch.device]) -> torch.device:
    """The device whose dtypes and kernels all of ``devices`` have. All are of one kind."""
    return devices[0] if len(devices) == 1 else min(devices, key=torch.cuda.get_device_capability)


def pick_device(name: str) -> torch.device:
    """``auto``: the first CUDA, XPU or MPS device, else the CPU. ``split``: the first CUDA device,
    which takes the inputs. Raises ``BadOption`` and ``Unavailable``."""
    if name == SPLIT:
        return pick_devices(name)[0]
    if name == "auto":
        for kind in ("cuda", "xpu", "mps"):
            if _is_available(kind):
                return torch.device(kind, 0) if kind != "mps" else torch.device(kind)
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise BadOption(f"{name!r} is no device name. Use auto, cpu, cuda:0, cuda:1 ...") from error
    if device.type != "cpu" and not _is_available(device.type):
        raise Unavailable(
            f"Device {name} was asked for, but torch {torch.__version__} sees no "
            f"{device.type} device here. Choose auto or cpu."
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise Unavailable(
            f"Device {name} was asked for, but there are only "
            f"{torch.cuda.device_count()} CUDA devices (from cuda:0)."
        )
    return device


def _is_available(kind: str) -> bool:
    module = torch.backends.mps if kind == "mps" else getattr(torch, kind, None)
    return module is not None and module.is_available()


def free_memory() -> dict[int, int]:
    """Free bytes on each CUDA device, by its index."""
    return {i: torch.cuda.mem_get_info(i)[0] for i in range(torch.cuda.device_count())}
