"""Environment: versions, operating system, processor, memory and devices.

Nothing here can be wrong: a package that is missing is missing. Only names and numbers of public
things are told, never a path, user or host.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PACKAGES = (
    "torch", "torchvision", "transformers", "tokenizers", "accelerate", "safetensors",
    "huggingface-hub", "bitsandbytes", "flash-attn", "flash-attn-3",
    "flash-linear-attention", "causal-conv1d", "kernels", "triton", "triton-windows", "gptqmodel",
    "optimum", "compressed-tensors", "json-repair", "llguidance", "numpy", "pillow", "pypdfium2",
)  # fmt: skip
"""Distributions that decide what can be loaded, and how."""

_PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
_CPUINFO = Path("/proc/cpuinfo")


def environment() -> dict[str, Any]:
    """The machine and what is installed; a package that is not has None for a version."""
    import psutil

    from ..models import ram

    return {
        "pack": _pack_version(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processor": _processor(),
        "cores": os.cpu_count(),
        "ram": {"total": psutil.virtual_memory().total, "free": ram.available()},
        "packages": {name: _version(name) for name in PACKAGES},
        "torch": _torch(),
    }


def _pack_version() -> str | None:
    """From pyproject.toml, which the registry ships."""
    if not _PYPROJECT.is_file():
        return None
    found = re.search(r'^version = "([^"]+)"', _PYPROJECT.read_text(encoding="utf-8"), re.MULTILINE)
    return found and found[1]


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Linux tells the name in /proc alone."""
    if sys.platform == "linux" and _CPUINFO.is_file():
        found = re.search(r"^model name\s*:\s*(.+)$", _CPUINFO.read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor()


def _torch() -> dict[str, Any]:
    """What torch was built for and the devices that it sees; why it cannot be imported."""
    try:
        import torch
    except Exception as error:  # a broken installation raises anything: ImportError, OSError, ...
        return {"error": f"{type(error).__name__}: {error}"}
    return {
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "threads": torch.get_num_threads(),
        "devices": _devices(torch),
    }


def _devices(torch: Any) -> list[dict[str, Any]]:
    """Devices beside the processor. ``free`` and ``total`` are bytes."""
    found = []
    if torch.cuda.is_available():
        found += [_probed(f"cuda:{i}", _cuda, torch, i) for i in range(torch.cuda.device_count())]
    if hasattr(torch, "xpu") and torch.xpu.is_available():
        found += [_probed(f"xpu:{i}", _xpu, torch, i) for i in range(torch.xpu.device_count())]
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": "Apple GPU"})
    return found


def _probed(
    device: str, probe: Callable[[Any, int], dict[str, Any]], torch: Any, index: int
) -> dict[str, Any]:
    """What ``probe`` tells of a device, or why it tells nothing."""
    try:
        return {"device": device, **probe(torch, index)}
    except Exception as error:  # a device that is lost, or full, or of an unknown kind
        return {"device": device, "error": f"{type(error).__name__}: {error}"}


def _cuda(torch: Any, index: int) -> dict[str, Any]:
    free, total = torch.cuda.mem_get_info(index)
    major, minor = torch.cuda.get_device_capability(index)
    return {
        "name": torch.cuda.get_device_name(index),
        "capability": f"{major}.{minor}",
        "free": free,
        "total": total,
    }


def _xpu(torch: Any, index: int) -> dict[str, Any]:
    known = torch.xpu.get_device_properties(index)
    return {"name": known.name, "total": known.total_memory}
