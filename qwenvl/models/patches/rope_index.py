"""Patch: positions that are known already, for the time of ``generate``.

For videos whose times are in positions. The library has changed how it counts these: release 4
cuts the seconds of a step down to whole ones, release 5 lets the text behind a video go on at its
height or width, as if it had no length. The makers' training code does neither
(``get_rope_index_25`` and ``get_rope_index_2`` in ``qwen-vl-finetune/qwenvl/data/rope2d.py`` of
QwenLM/Qwen3-VL), nor does vLLM. See ``inference/mrope.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def substituted(model: nn.Module, positions: Tensor, following: float) -> Iterator[None]:
    """While the block runs, ``model`` takes ``positions`` ``[3, L]`` for those of the one prompt
    that it is asked to continue, and goes on with ``following``."""
    delta = torch.tensor([[following - positions.shape[1]]], device=positions.device)
    found = positions[:, None], delta.to(positions.dtype)

    def get_rope_index(*_args: Any, **_options: Any) -> tuple[Tensor, Tensor]:
        return found

    with ExitStack() as stack:
        for module in model.modules():
            if hasattr(module, "get_rope_index"):
                module.get_rope_index = get_rope_index
                stack.callback(delattr, module, "get_rope_index")
        yield
