"""Attention implementation: which of transformers' a model uses on a device."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from ..errors import BadOption, Unavailable

ATTENTIONS = (
    "auto",
    "sdpa",
    "flash_attention_2",
    "flash_attention_3",
    "flash_attention_4",
    "flex_attention",
    "eager",
)
_FLASH_PACKAGES = {
    "flash_attention_2": "flash_attn",
    "flash_attention_3": "flash_attn_interface",
    "flash_attention_4": "flash_attn.cute",
}


def pick_attention(attention: str, device: torch.device, dtype: torch.dtype) -> str:
    """transformers' ``attn_implementation`` for one of ``ATTENTIONS``.

    ``auto``: flash attention 2 where it is installed and can run, eager on MPS (sdpa fails there
    with these models), else sdpa. Any other one is used as it is; raises ``Unavailable`` where it
    cannot run, and ``BadOption``.
    """
    if attention not in ATTENTIONS:
        raise BadOption(f"attention is {attention!r}; use one of {', '.join(ATTENTIONS)}.")
    if attention == "auto":
        if device.type == "mps":
            return "eager"
        return "sdpa" if flash_problem("flash_attention_2", device, dtype) else "flash_attention_2"
    if attention in _FLASH_PACKAGES and (problem := flash_problem(attention, device, dtype)):
        raise Unavailable(f"{attention} was asked for, but {problem}. Choose auto or sdpa.")
    return attention


def flash_problem(name: str, device: torch.device, dtype: torch.dtype) -> str:
    """Why this flash attention cannot run; empty where it can."""
    if device.type != "cuda":
        return f"it runs on CUDA devices only, and the model goes to {device.type}"
    minimum = (9, 0) if name != "flash_attention_2" else (8, 0)
    if torch.cuda.get_device_capability(device) < minimum:
        return f"it needs compute capability {minimum[0]}.{minimum[1]} or newer"
    if dtype not in (torch.bfloat16, torch.float16):
        return "it computes in bf16 or fp16 only"
    try:
        # A build for another torch is found like any other and fails only here.
        importlib.import_module(_FLASH_PACKAGES[name])
    except Exception as error:
        return f"its package cannot be imported ({error})"
    if name == "flash_attention_2":
        from transformers.utils import is_flash_attn_2_available

        if not is_flash_attn_2_available():
            return "transformers finds the installed flash_attn too old"
    return ""


_cudnn_lock = threading.Lock()
_cudnn_blocks = 0  # being run, in all threads
_cudnn_before = True


@contextmanager
def without_cudnn() -> Iterator[None]:
    """While the block runs, torch's sdpa chooses among its kernels without cuDNN's.

    cuDNN builds a plan for every new shape. On an H200 that takes 0.2 s, more than the prefill
    that needs it, and shapes of prompts seldom come again. The setting is the process's; it is
    restored when the last thread leaves its block.
    """
    global _cudnn_blocks, _cudnn_before
    sdp = torch.backends.cuda
    with _cudnn_lock:
        if not _cudnn_blocks:
            _cudnn_before = sdp.cudnn_sdp_enabled()
            sdp.enable_cudnn_sdp(False)
        _cudnn_blocks += 1
    try:
        yield
    finally:
        with _cudnn_lock:
            _cudnn_blocks -= 1
            if not _cudnn_blocks:
                sdp.enable_cudnn_sdp(_cudnn_before)
