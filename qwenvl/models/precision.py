"""Precision: the number type that a model computes in on a device."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from ..errors import BadOption, Unavailable

PRECISIONS: Mapping[str, torch.dtype | None] = {
    "auto": None,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp32": torch.float32,
}


def pick_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype for one of ``PRECISIONS``.

    ``auto``: bf16 where the device computes it natively, fp16 on older CUDA cards, fp32 on the
    CPU, where half types are slower. Raises ``BadOption`` and ``Unavailable``.
    """
    if precision not in PRECISIONS:
        raise BadOption(f"precision is {precision!r}; use one of {', '.join(PRECISIONS)}.")
    native_bf16 = device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
    dtype = PRECISIONS[precision]
    if dtype is torch.bfloat16 and not native_bf16:
        raise Unavailable(
            f"{torch.cuda.get_device_name(device)} has no bf16. Choose auto, fp16 or fp32."
        )
    if dtype is not None:
        return dtype
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if native_bf16 else torch.float16
