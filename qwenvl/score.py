"""Scores: how well pictures fit texts, by a local model's own probabilities or vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .backends.base import Backend, Scorer
from .errors import BadImage, QwenVLError, Unavailable
from .observer import Observer, PartialObserver
from .run import least_thinking
from .tasks import score as task
from .types import Image, Request, Response, Sampling

if TYPE_CHECKING:
    from torch import Tensor

Score = float | QwenVLError
"""A number, or why there is none."""

_NO_ANSWER = Sampling(max_new_tokens=1)


@dataclass(frozen=True, eq=False)
class Pair:
    """A picture (uint8 ``[3, H, W]``), or the error of one that no model can be shown, and the text
    that it is compared with. ``instruction``: own words in place of the model's usual ones, see
    ``tasks.score``. The pixel bounds and ``may_shrink`` are those of ``Request``."""

    picture: Tensor | BadImage
    text: str
    instruction: str = ""
    min_pixels: int | None = None
    max_pixels: int | None = None
    may_shrink: bool = False


def score_all(
    backend: Backend, pairs: Sequence[Pair], observer: Observer | None = None
) -> list[Score]:
    """For each of ``pairs``, in order, its score: 0 to 1, the probability that the model answers
    yes and not no when it is asked whether the picture shows the text (as VQAScore, Lin et al.
    2024). A pair that fails has its error there.

    Raises ``BadOption`` for an empty text or an instruction that cannot be used, ``Unavailable``
    for a backend that cannot tell probabilities, and what loading raises."""
    asked = {at: pair for at, pair in enumerate(pairs) if not isinstance(pair.picture, BadImage)}
    scores: dict[int, Score] = {
        at: pair.picture for at, pair in enumerate(pairs) if isinstance(pair.picture, BadImage)
    }
    observer = observer or Observer()
    if scores:
        failed = {
            at: Response("", finish_reason="error", error=error)
            for at, error in scores.items()
            if isinstance(error, QwenVLError)
        }
        observer = PartialObserver(observer, failed, len(pairs))
    if asked:
        found = _by_question(backend, list(asked.values()), observer)
        scores |= zip(asked, found, strict=True)
    return [scores[at] for at in range(len(pairs))]


def _by_question(backend: Backend, pairs: Sequence[Pair], observer: Observer) -> list[Score]:
    """Probability of yes against no."""
    if not isinstance(backend, Scorer):
        raise Unavailable(
            "This model cannot tell how likely an answer is. Choose a model on this machine."
        )
    thinking = least_thinking(backend)
    requests = [
        Request(
            task.question(Image(pair.picture), pair.text, pair.instruction),
            _NO_ANSWER,
            min_pixels=pair.min_pixels,
            max_pixels=pair.max_pixels,
            thinking=thinking,
            may_shrink=pair.may_shrink,
        )
        for pair in pairs
    ]
    found = backend.score(requests, (*task.YES, *task.NO), observer)
    return [
        row if isinstance(row, QwenVLError) else math.fsum(row[: len(task.YES)]) for row in found
    ]


def best(scores: Sequence[Score], count: int = 1) -> list[int]:
    """Indices of the ``count`` highest of ``scores``, the best first; of equal ones the first.
    What has no score is left out."""
    there = [(-score, at) for at, score in enumerate(scores) if not isinstance(score, QwenVLError)]
    return [at for _, at in sorted(there)[:count]]
