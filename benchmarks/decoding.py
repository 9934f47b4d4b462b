"""Decode steps of a single request, which are bound by memory bandwidth: each reads all weights."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from . import speed
from .figures import Figure, figure
from .models import Model


def bandwidth_floor(
    name: str, wanted: float | None, model: Model, tokens: int, repeats: int = 3
) -> Figure:
    """Seconds per token against the time to read the language model's weights once."""
    device = model.backend.device
    bandwidth = memory_bandwidth(device)
    nbytes = bytes_per_token(model.backend.model)
    least = nbytes / bandwidth
    token = decode_timer(model, tokens)
    token()
    return figure(
        name,
        [(token(), least) for _ in range(repeats)],
        wanted,
        f"theirs: {nbytes / 1e9:.2f} GB of weights at {bandwidth / 1e9:.0f} GB/s, measured",
    )


def prefill_timer(model: Model, side: int) -> Callable[[], float]:
    """Measures the seconds to the first token about a new image, a square of ``side`` pixels."""
    asked = speed.questions(1, side, 1)

    def seconds() -> float:
        model.backend.prefix_cache.clear()
        return _seconds(model, asked)

    return seconds


def decode_timer(model: Model, tokens: int) -> Callable[[], float]:
    """Measures the seconds of one decode step. The prompt comes from the prefix cache."""
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    def asked(count: int) -> list[Any]:
        # Sampled: greedy decoding with random weights soon repeats itself.
        sampling = Sampling(count, temperature=1.0, seed=5)
        return [Request.ask((speed.picture(256, 0),), "What is it?", sampling=sampling)]

    short, long = asked(1), asked(1 + tokens)

    def seconds() -> float:
        return (_seconds(model, long) - _seconds(model, short)) / tokens

    return seconds


def single_threaded(work: Callable[[], float]) -> Callable[[], float]:
    """``work`` on one thread."""

    def seconds() -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return work()
        finally:
            torch.set_num_threads(before)

    return seconds


def alternating(
    name: str,
    wanted: float | None,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    note: str = "",
    repeats: int = 3,
) -> Figure:
    """Compares two functions that return seconds, run in turns. The first turn is not counted."""
    ours(), theirs()
    return figure(name, [(ours(), theirs()) for _ in range(repeats)], wanted, note)


def _seconds(model: Model, asked: list[Any]) -> float:
    start = time.perf_counter()
    replies = speed.generated_ids(model.backend, asked)
    spent = time.perf_counter() - start
    assert [len(ids) for ids in replies] == [request.sampling.max_new_tokens for request in asked]
    return spent


def bytes_per_token(model: Any) -> int:
    """Bytes of weights that a decode step reads: all of the language model's but the embeddings,
    of which it reads one row, unless ``lm_head`` shares them."""
    read = [*model.model.language_model.layers.parameters(), model.lm_head.weight]
    return sum(weight.nbytes for weight in read)


def memory_bandwidth(device: torch.device, nbytes: int = 1 << 30) -> float:
    """Bytes per second that ``device`` moves at best: the faster of a large copy, which reads and
    writes, and a large sum, which only reads."""
    source = torch.zeros(nbytes // 4, device=device)
    target = torch.empty_like(source)

    def rate(work: Callable[[], Any], moved: int) -> float:
        times = []
        for _ in range(6):
            _synchronize(device)
            start = time.perf_counter()
            work()
            _synchronize(device)
            times.append(time.perf_counter() - start)
        return moved / min(times)

    return max(rate(lambda: target.copy_(source), 2 * nbytes), rate(source.sum, nbytes))


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
