"""Memory bandwidth of a device, measured by copying, and the floor that it sets for decoding.

A decode step of one row reads every weight of the language model once and computes little, so it
takes at least the time of reading them.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_BYTES = {"cpu": 128 << 20}  # more than caches hold
_BYTES_ON_DEVICE = 512 << 20
_REPEATS = 8
_EXPERTS = ".experts."


def measure_bandwidth(device: torch.device, free: int) -> float | None:
    """Bytes a second that ``device`` reads and writes while it copies a buffer, counting both; None
    where less than ``free`` bytes leave room for two buffers. The best of several runs."""
    import torch

    nbytes = min(_BYTES.get(device.type, _BYTES_ON_DEVICE), free // 4)
    if nbytes < 1 << 20:
        return None
    source = torch.zeros(nbytes, dtype=torch.uint8, device=device)
    target = torch.ones_like(source)
    times = []
    for _ in range(_REPEATS):
        _synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        _synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * nbytes / min(times)


def _synchronize(device: torch.device) -> None:
    import torch

    if device.type == "mps":
        torch.mps.synchronize()
    elif device.type != "cpu":
        getattr(torch, device.type).synchronize(device)


def bytes_a_step(model: Any) -> int:
    """Bytes of weights that a decode step of one row reads: the decoder's and the output layer's,
    of a mixture of experts those that a token is sent to. Of the embedding it reads one line."""
    text = model.config.get_text_config()
    experts = getattr(text, "num_experts", None) or getattr(text, "num_local_experts", None)
    active = getattr(text, "num_experts_per_tok", None)
    share = active / experts if experts and active else 1.0
    embedding = id(model.get_input_embeddings().weight)
    nbytes = 0.0
    for name, weight in model.get_decoder().named_parameters():
        if id(weight) != embedding:
            nbytes += weight.nbytes * (share if _EXPERTS in f".{name}" else 1.0)
    return int(nbytes) + model.get_output_embeddings().weight.nbytes
