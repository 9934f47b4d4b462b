"""Ask the engine about drawn pictures, in float32 on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import model_cache, run, score, types

_PORTION = 64  # pictures that are held at once
LENGTH = 160  # tokens: longer replies have lost their thread


@contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """The checkpoint in `folder` as the engine's backend."""
    spec = types.LocalSpec(str(folder), precision="fp32", device="cpu")
    with model_cache.CACHE.lease(spec) as backend:
        yield backend


def answers(backend: Any, asked: Sequence[tuple[Any, types.Task]]) -> list[types.Result]:
    """The result of each (PIL picture or video, task), in order. What is no answer is a result with
    `error`."""
    found: list[types.Result] = []
    for at in range(0, len(asked), _PORTION):
        queries = [
            run.Query(task, shown(picture), sampling=types.Sampling(LENGTH), keep_unreadable=True)
            for picture, task in asked[at : at + _PORTION]
        ]
        found += run.answer_all(backend, queries)
    return found


def scores(backend: Any, pairs: Sequence[score.Pair]) -> list[float]:
    """The score of each pair, in order. Raises the error of one that has none."""
    found: list[float] = []
    for value in score.score_all(backend, pairs):
        if isinstance(value, Exception):
            raise value
        found.append(value)
    return found


def shown(picture: Any) -> Any:
    """A PIL picture, or a video, as a query takes it."""
    return picture if isinstance(picture, types.Video) else pixels(picture)


def pixels(picture: Any) -> Any:
    """A PIL picture as the engine takes it."""
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(picture).copy()).movedim(-1, 0)
