"""Word after word for a single request, which is bound by reading all weights for each."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from . import speed
from .figures import Figure, figure
from .models import Model


def floor(name: str, wanted: float | None, model: Model, tokens: int, repeats: int = 3) -> Figure:
    """Seconds for a token against those that reading the language model's weights once takes."""
    device = model.backend.device
    bandwidth = memory_bandwidth(device)
    nbytes = bytes_a_token(model.backend.model)
    least = nbytes / bandwidth
    token = decoder(model, tokens)
    token()
    return figure(
        name,
        [(token(), least) for _ in range(repeats)],
        wanted,
        f"theirs: {nbytes / 1e9:.2f} GB of weights at {bandwidth / 1e9:.0f} GB/s, measured",
    )


def reader(model: Model, side: int) -> Callable[[], float]:
    """Tells how long the first token about a new picture takes."""
    asked = speed.questions(1, side, 1)

    def seconds() -> float:
        model.backend.prefix_cache.clear()
        return _seconds(model, asked)

    return seconds


def decoder(model: Model, tokens: int) -> Callable[[], float]:
    """Tells how long one token behind the first takes. What comes before is known already."""
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    def asked(count: int) -> list[Any]:
        # Drawn at random: the likeliest tokens of random weights soon turn in circles.
        sampling = Sampling(count, temperature=1.0, seed=5)
        return [Request((speed.picture(256, 0),), "What is it?", sampling=sampling)]

    short, long = asked(1), asked(1 + tokens)

    def seconds() -> float:
        return (_seconds(model, long) - _seconds(model, short)) / tokens

    return seconds


def alone(work: Callable[[], float]) -> Callable[[], float]:
    """The same on one thread."""

    def seconds() -> float:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return work()
        finally:
            torch.set_num_threads(before)

    return seconds


def in_turns(
    name: str,
    wanted: float | None,
    ours: Callable[[], float],
    theirs: Callable[[], float],
    note: str = "",
    repeats: int = 3,
) -> Figure:
    """Both tell their seconds. The first turn is not counted."""
    ours(), theirs()
    return figure(name, [(ours(), theirs()) for _ in range(repeats)], wanted, note)


def _seconds(model: Model, asked: list[Any]) -> float:
    start = time.perf_counter()
    said = speed.answered(model.backend, asked)
    spent = time.perf_counter() - start
    assert [len(ids) for ids in said] == [request.sampling.max_new_tokens for request in asked]
    return spent


def bytes_a_token(model: Any) -> int:
    """Bytes of weights that decoding a token reads: all of the language model's but the table of
    embeddings, of which it reads a row, unless the head is that table too."""
    read = [*model.model.language_model.layers.parameters(), model.lm_head.weight]
    return sum(weight.nbytes for weight in read)


def memory_bandwidth(device: torch.device, nbytes: int = 1 << 30) -> float:
    """Bytes that ``device`` moves in a second at best: a large copy, which reads and writes, or a
    sum, which only reads."""
    source = torch.zeros(nbytes // 4, device=device)
    target = torch.empty_like(source)

    def rate(work: Callable[[], Any], moved: int) -> float:
        times = []
        for _ in range(6):
            _settle(device)
            start = time.perf_counter()
            work()
            _settle(device)
            times.append(time.perf_counter() - start)
        return moved / min(times)

    return max(rate(lambda: target.copy_(source), 2 * nbytes), rate(source.sum, nbytes))


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
