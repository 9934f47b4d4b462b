"""Answering: many pictures, many questions, and what is done to a picture before."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from . import models
from .figures import Figure, compare


def _picture(side: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    small = torch.rand(1, 3, side // 16, side // 16, generator=generator)
    smooth = torch.nn.functional.interpolate(small, size=(side, side), mode="bilinear")
    return smooth[0].mul(255).to(torch.uint8)


class Plain:
    """One request after the other through plain ``generate`` with the official processor."""

    def __init__(self, backend: Any, folder: Path):
        from transformers import AutoImageProcessor

        self.backend, self.model = backend, backend.model
        self.processor = AutoImageProcessor.from_pretrained(folder)

    def ask(self, request: Any) -> list[int]:
        pixels = self.processor(images=list(request.images), return_tensors="pt")
        tokens = [int(grid.prod()) // 4 for grid in pixels["image_grid_thw"]]
        template = self.backend.template
        ids = torch.tensor([template.encode(request, tokens)])
        out = self.model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == template.image_id).long(),
            **pixels,
            max_new_tokens=request.sampling.max_new_tokens,
            do_sample=False,
            eos_token_id=None,
        )
        return out[0, ids.shape[1] :].tolist()


def _model(model_type: str) -> tuple[Any, Path]:
    """A backend whose answers all have the length asked for (random weights would end some
    early), and the folder of its checkpoint."""
    backend, folder = models.make(model_type)
    backend.template.eos_ids = frozenset()
    return backend, folder


def _tokens(backend: Any, requests: Sequence[Any]) -> list[list[int]]:
    """What the model answers, token by token: texts may hide differences."""
    said: dict[int, list[int]] = {}
    made = backend.response

    def response(row: Any, prompt: Any) -> Any:
        said[row.index] = list(row.ids)
        return made(row, prompt)

    backend.response = response
    try:
        backend.generate(requests)
    finally:
        del backend.response
    return [said[index] for index in range(len(requests))]


def batch(model_type: str, pictures: int = 16, side: int = 256, tokens: int = 48) -> Figure:
    """Many pictures at once against one by one."""
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    backend, folder = _model(model_type)
    plain = Plain(backend, folder)
    asked = [
        Request((_picture(side, seed),), "What is it?", sampling=Sampling(tokens))
        for seed in range(pictures)
    ]

    def ours() -> list[list[int]]:
        backend.weights.seen.clear()  # every picture is new
        return _tokens(backend, asked)

    def theirs() -> list[list[int]]:
        with torch.no_grad():
            return [plain.ask(request) for request in asked]

    return compare(
        f"{pictures} pictures of {side}x{side}, {tokens} tokens each, {model_type}",
        ours,
        theirs,
        wanted=2.5,
        repeats=3,
        note="against plain generate with the official processor, one by one",
    )


def second_question(model_type: str, side: int = 1024) -> Figure:
    """The first token of another answer about a picture that was already looked at."""
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    backend, _ = _model(model_type)
    shown = _picture(side, 0)
    first = Request((shown,), "What is it?", sampling=Sampling(1))
    second = Request((shown,), "Where is it?", sampling=Sampling(1))

    def ours() -> list[list[int]]:
        return _tokens(backend, [second])

    def theirs() -> list[list[int]]:
        backend.weights.seen.clear()
        return _tokens(backend, [second])

    backend.generate([first])
    return compare(
        f"second question about a {side}x{side} picture, first token, {model_type}",
        ours,
        theirs,
        wanted=5,
        note="against reading it anew",
    )


def three_tasks(model_type: str, side: int = 1024, tokens: int = 32) -> Figure:
    """Describe, read and find on one picture, against three separate runs."""
    from qwen_vl_suite.qwenvl.tasks.describe import describe
    from qwen_vl_suite.qwenvl.tasks.ground import ground
    from qwen_vl_suite.qwenvl.tasks.ocr import ocr
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    backend, _ = _model(model_type)
    shown = _picture(side, 0)
    asked = [
        Request((shown,), task.prompt, system=task.system, sampling=Sampling(tokens))
        for task in (describe("short"), ocr("plain"), ground("cat"))
    ]

    def ours() -> list[list[int]]:
        backend.weights.seen.clear()
        return [_tokens(backend, [request])[0] for request in asked]

    def theirs() -> list[list[int]]:
        said = []
        for request in asked:
            backend.weights.seen.clear()
            said += _tokens(backend, [request])
        return said

    return compare(
        f"three tasks on one {side}x{side} picture, {tokens} tokens each, {model_type}",
        ours,
        theirs,
        wanted=2,
        repeats=3,
        note="against three separate runs",
    )


def growth(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The exponent of a power law through the points, by least squares of the logarithms."""
    xs, ys = [math.log(x) for x in sizes], [math.log(y) for y in seconds]
    mx, my = statistics.mean(xs), statistics.mean(ys)
    return sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / sum(
        (x - mx) ** 2 for x in xs
    )


def batch_growth(model_type: str = "qwen3_vl") -> dict[str, Any]:
    """Cost of a batch from 1 to 64 pictures."""
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    backend, _ = _model(model_type)
    sizes, seconds = [1, 4, 16, 64], []
    for count in sizes:
        asked = [
            Request((_picture(256, seed),), "What is it?", sampling=Sampling(16))
            for seed in range(count)
        ]
        backend.weights.seen.clear()
        start = time.perf_counter()
        backend.generate(asked)
        seconds.append(time.perf_counter() - start)
    return {"sizes": sizes, "seconds": seconds, "exponent": growth(sizes, seconds), "wanted": 1.1}


def picture_growth(model_type: str = "qwen3_vl") -> dict[str, Any]:
    """Cost of the first token as a picture's pixels grow."""
    from qwen_vl_suite.qwenvl.types import Request, Sampling

    backend, _ = _model(model_type)
    sides, seconds = [256, 512, 1024], []
    for side in sides:
        asked = [Request((_picture(side, 0),), "What is it?", sampling=Sampling(1))]
        times = []
        for _ in range(3):
            backend.weights.seen.clear()
            start = time.perf_counter()
            backend.generate(asked)
            times.append(time.perf_counter() - start)
        seconds.append(min(times))
    sizes = [side * side for side in sides]
    return {"sizes": sizes, "seconds": seconds, "exponent": growth(sizes, seconds), "wanted": 1.1}
