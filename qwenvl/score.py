"""Scores: how well pictures fit texts, by a model's own probabilities or vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .backends.base import Backend, Embedder, Scorer
from .errors import BadImage, QwenVLError, Unavailable
from .observer import Observer, PartialObserver, Relay
from .run import least_thinking
from .tasks import score as task
from .types import Image, Message, Request, Response, Retrieval, Sampling

if TYPE_CHECKING:
    from torch import Tensor

Score = float | QwenVLError
"""A number, or why there is none."""


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
    """For each of ``pairs``, in order, its score. A pair that fails has its error there.

    Of a model that writes: 0 to 1, the probability that it answers yes and not no when it is asked
    whether the picture shows the text (as VQAScore, Lin et al. 2024). Of a reranker: 0 to 1, its
    probability of yes, the sigmoid of the difference of the two logits. Of an embedding model: -1
    to 1, the cosine of the vectors of the text and of the picture.

    Raises ``BadOption`` for an empty text or an instruction that cannot be used, ``Unavailable``
    for a backend that cannot tell such numbers, and what loading raises."""
    asked = {at: pair for at, pair in enumerate(pairs) if not isinstance(pair.picture, BadImage)}
    scores: dict[int, Score] = {
        at: pair.picture for at, pair in enumerate(pairs) if isinstance(pair.picture, BadImage)
    }
    observer = observer or Observer()
    if scores:
        failed = {
            at: Response.failed(error)
            for at, error in scores.items()
            if isinstance(error, QwenVLError)
        }
        observer = PartialObserver(observer, failed, len(pairs))
    if asked:
        retrieval = backend.family.retrieval
        score = _METHODS[retrieval.kind if retrieval else ""]
        scores |= zip(asked, score(backend, list(asked.values()), observer), strict=True)
    elif scores:
        observer.start([], [])
    return [scores[at] for at in range(len(pairs))]


def _by_question(backend: Backend, pairs: Sequence[Pair], observer: Observer) -> list[Score]:
    """Probability of yes against no."""
    thinking = least_thinking(backend)
    requests = [
        _request(task.question(Image(pair.picture), pair.text, pair.instruction), pair, thinking)
        for pair in pairs
    ]
    found = _scorer(backend).score(requests, (*task.YES, *task.NO), observer)
    return [
        row if isinstance(row, QwenVLError) else math.fsum(row[: len(task.YES)]) for row in found
    ]


def _by_judgement(backend: Backend, pairs: Sequence[Pair], observer: Observer) -> list[Score]:
    """A reranker's probability of yes."""
    retrieval = _retrieval(backend)
    requests = [
        _request(task.judgement(retrieval, Image(pair.picture), pair.text, pair.instruction), pair)
        for pair in pairs
    ]
    found = _scorer(backend).score(requests, (task.YES[0], task.NO[0]), observer)
    return [row if isinstance(row, QwenVLError) else row[0] for row in found]


def _by_vectors(backend: Backend, pairs: Sequence[Pair], observer: Observer) -> list[Score]:
    """Cosine of an embedding model's vectors. Each text and each picture is embedded once."""
    if not isinstance(backend, Embedder):
        raise Unavailable(_ELSEWHERE)
    retrieval = _retrieval(backend)
    texts: dict[tuple[str, str], int] = {}
    pictures: dict[tuple[object, ...], int] = {}
    requests: list[Request] = []
    for pair in pairs:
        if (pair.text, pair.instruction) not in texts:
            texts[pair.text, pair.instruction] = len(requests)
            words = task.embedded_text(retrieval, pair.text, pair.instruction)
            requests.append(Request(words, _NO_ANSWER))
    for pair in pairs:
        if _shown(pair) not in pictures:
            pictures[_shown(pair)] = len(requests)
            requests.append(_request(task.embedded_picture(retrieval, Image(pair.picture)), pair))
    sides = [(texts[pair.text, pair.instruction], pictures[_shown(pair)]) for pair in pairs]
    users = {at: [i for i, side in enumerate(sides) if side[1] == at] for at in pictures.values()}
    found = backend.embed(requests, _PairObserver(observer, users, len(pairs)))
    return [_cosine(found[text], found[picture]) for text, picture in sides]


def _cosine(one: list[float] | QwenVLError, other: list[float] | QwenVLError) -> Score:
    """Of two vectors of length 1."""
    if isinstance(one, QwenVLError):
        return one
    if isinstance(other, QwenVLError):
        return other
    return max(-1.0, min(1.0, math.fsum(a * b for a, b in zip(one, other, strict=True))))


def _shown(pair: Pair) -> tuple[object, ...]:
    return id(pair.picture), pair.min_pixels, pair.max_pixels, pair.may_shrink


class _PairObserver(Relay):
    """Of a run that embeds texts and pictures, for ``inner``, which observes ``count`` pairs of
    them: a pair is done when its picture is. ``users``: the pairs by the request of their picture;
    no other request is told of."""

    def __init__(self, inner: Observer, users: Mapping[int, Sequence[int]], count: int):
        super().__init__(inner)
        self._users, self._count = users, count

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        lengths = [0] * self._count
        for request, pairs in self._users.items():
            for pair in pairs:
                lengths[pair] = prompt_tokens[request]
        self.inner.start(lengths, [1] * self._count)

    def restart(self, index: int) -> None:
        for pair in self._users.get(index, ()):
            self.inner.restart(pair)

    def done(self, index: int, response: Response) -> None:
        for pair in self._users.get(index, ()):
            self.inner.done(pair, response)


_METHODS: Mapping[str, Callable[[Backend, Sequence[Pair], Observer], list[Score]]] = {
    "": _by_question,
    "reranker": _by_judgement,
    "embedding": _by_vectors,
}
"""By the kind of a retrieval model; empty for one that writes."""

_NO_ANSWER = Sampling(max_new_tokens=1)
_ELSEWHERE = (
    "This model does not tell its numbers. Choose one that the Qwen-VL Loader runs on this machine."
)


def _request(messages: tuple[Message, ...], pair: Pair, thinking: bool | None = None) -> Request:
    return Request(
        messages,
        _NO_ANSWER,
        min_pixels=pair.min_pixels,
        max_pixels=pair.max_pixels,
        thinking=thinking,
        may_shrink=pair.may_shrink,
    )


def _scorer(backend: Backend) -> Scorer:
    if not isinstance(backend, Scorer):
        raise Unavailable(_ELSEWHERE)
    return backend


def _retrieval(backend: Backend) -> Retrieval:
    found = backend.family.retrieval
    assert found is not None
    return found


def best(scores: Sequence[Score], count: int = 1) -> list[int]:
    """Indices of the ``count`` highest of ``scores``, the best first; of equal ones the first.
    What has no score is left out."""
    there = [(-score, at) for at, score in enumerate(scores) if not isinstance(score, QwenVLError)]
    return [at for _, at in sorted(there)[:count]]
