"""Truth: what a model says of scenes, compared with what is in them; of a model that reads text
only, what it answers to questions in words.

Asks through the tasks and ``run``, as everything else does, and reads the boxes' own numbers from
the same replies for the coordinate fit.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .. import run
from ..backends.base import Backend
from ..errors import UnreadableReply
from ..fine_tunes import FineTune
from ..observer import Observer, Relay
from ..replies import read_items
from ..types import Response, Result, Sampling
from .coordinate_fit import CoordinateFit, RawReply, fit, space_of
from .questions import (
    KINDS,
    Kind,
    Question,
    Score,
    as_asked,
    doctor_scene,
    pixel_bound,
    pixels,
    questions_about,
    score,
)
from .text_questions import TEXT_KINDS, TextKind, TextQuestion, text_questions
from .text_questions import score as score_text
from .time_limit import TimeIsUp

if TYPE_CHECKING:
    from torch import Tensor

NEED_PICTURES = (*KINDS, "coordinates")
"""What of a model that reads text only does not apply."""

LEAST_RECALL = 0.5
_SCENES_AT_ONCE = 6
_MAX_NEW_TOKENS = 512  # a scene holds four shapes at most
_MAX_EXAMPLES = 4
_MAX_EXCERPT = 300  # characters of a reply


@dataclass(frozen=True)
class Example:
    """A reply that missed something. ``expected``: what is there, boxes and points in pixels of the
    picture."""

    scene: int
    kind: Kind | TextKind
    expected: str
    reply: str
    error: str


@dataclass
class TaskTruth:
    """Of all questions of one kind. ``failed``: those without an answer that can be read."""

    asked: int = 0
    failed: int = 0
    hits: int = 0
    total: int = 0
    extra: int | None = None
    ious: list[float] = field(default_factory=list)

    @property
    def recall(self) -> float | None:
        """Share of what is there that was found; None where nothing was asked."""
        return self.hits / self.total if self.total else None

    @property
    def precision(self) -> float | None:
        """Share of the found boxes or points that are at something."""
        found = 0 if self.extra is None else self.hits + self.extra
        return self.hits / found if found else None

    @property
    def mean_iou(self) -> float | None:
        return statistics.fmean(self.ious) if self.ious else None

    def add(self, one: Score, failed: bool) -> None:
        self.asked += 1
        self.failed += failed
        self.hits, self.total = self.hits + one.hits, self.total + one.total
        if one.extra is not None:
            self.extra = (self.extra or 0) + one.extra
        self.ious += one.ious


@dataclass
class Truth:
    """``scenes``: how many were asked about, to the end, of those ``wanted``; of a model that reads
    text only, sets of questions. ``seconds``: of answering ``questions``, which took ``tokens`` new
    tokens. ``not_applicable``: what such a model has no use for."""

    wanted: int
    scenes: int = 0
    questions: int = 0
    seconds: float = 0.0
    tokens: int = 0
    tasks: dict[Kind | TextKind, TaskTruth] = field(default_factory=dict)
    coordinates: CoordinateFit | None = None
    examples: list[Example] = field(default_factory=list)
    not_applicable: tuple[str, ...] = ()

    @property
    def is_partial(self) -> bool:
        return self.scenes < self.wanted


def ask(
    backend: Backend,
    scenes: int,
    observer: Observer,
    progress: Callable[[str], None],
    fine_tune: FineTune | None = None,
) -> Truth:
    """Asks about so many scenes, a ``fine_tune`` in its own words. ``progress`` is told after every
    few.

    ``TimeIsUp`` of ``observer`` ends it early, with what was answered until then. Raises what the
    backend raises as a whole; a request that fails by itself is counted.
    """
    sees = backend.family.sees
    truth = Truth(scenes, tasks={kind: TaskTruth() for kind in (KINDS if sees else TEXT_KINDS)})
    truth.not_applicable = () if sees else NEED_PICTURES
    raw: list[RawReply] = []
    start = time.monotonic()
    with suppress(TimeIsUp):  # ``is_partial`` tells
        for first in range(0, scenes, _SCENES_AT_ONCE):
            numbers = range(first, min(scenes, first + _SCENES_AT_ONCE))
            asked = _questions(numbers, sees, fine_tune, observer)
            _ask_about(backend, asked, truth, raw, observer)
            truth.scenes = numbers.stop
            progress(f"{truth.scenes} of {scenes} {'scenes' if sees else 'sets of questions'}")
    truth.seconds = time.monotonic() - start
    truth.coordinates = fit(raw, space_of(backend.family)) if sees else None
    return truth


def _questions(
    numbers: range, sees: bool, fine_tune: FineTune | None, observer: Observer
) -> Iterator[tuple[int, Question | TextQuestion]]:
    """About the scenes of these numbers, or in words alone, each with its number."""
    for number in numbers:
        observer.check()
        if sees:
            for question in questions_about(doctor_scene(number), fine_tune):
                yield number, question
        else:
            for in_words in text_questions(number):
                yield number, in_words


def _ask_about(
    backend: Backend,
    numbered: Iterable[tuple[int, Question | TextQuestion]],
    truth: Truth,
    raw: list[RawReply],
    observer: Observer,
) -> None:
    asked = list(numbered)
    pictures = {n: pixels(one.scene) for n, one in asked if isinstance(one, Question)}
    queries = [_query(backend, question, pictures.get(number)) for number, question in asked]
    responses = _Responses(observer)

    def on_result(index: int, result: Result) -> None:
        number, question = asked[index]
        response = responses[index]
        truth.questions += 1
        truth.tokens += response.usage.new_tokens
        one = _score(question, result)
        truth.tasks[question.kind].add(one, bool(result.error))
        if one.hits < one.total and len(truth.examples) < _MAX_EXAMPLES:
            expected, excerpt = question.expected, response.text[:_MAX_EXCERPT]
            truth.examples.append(Example(number, question.kind, expected, excerpt, result.error))
        if isinstance(question, Question) and question.kind == "boxes" and response.input_sizes:
            raw.append(_raw_reply(question, response))

    run.answer_each(backend, queries, on_result, responses)


class _Responses(Relay):
    """Keeps the response of each request, by its index."""

    def __init__(self, inner: Observer):
        super().__init__(inner)
        self._responses: dict[int, Response] = {}

    def __getitem__(self, index: int) -> Response:
        return self._responses[index]

    def done(self, index: int, response: Response) -> None:
        self._responses[index] = response
        super().done(index, response)


def _score(question: Question | TextQuestion, result: Result) -> Score:
    if isinstance(question, TextQuestion):
        return score_text(question, result)
    return score(question, result)


def _query(
    backend: Backend, question: Question | TextQuestion, picture: Tensor | None
) -> run.Query:
    """Greedy and without a thought where the model can do without, so that equal weights give an
    equal report."""
    thinking = run.least_thinking(backend)
    sampling = run.sampling_for(backend, question.task, thinking, text_only=picture is None)
    if not run.will_think(backend, question.task, thinking):
        sampling = Sampling(max_new_tokens=min(question.task.max_new_tokens, _MAX_NEW_TOKENS))
    if isinstance(question, TextQuestion):
        return run.Query(question.task, None, sampling=sampling, thinking=thinking)
    bound = pixel_bound(question.scene, backend.max_pixels)
    return run.Query(
        question.task, picture, sampling=sampling, max_pixels=bound, thinking=thinking,
        may_shrink=True,
    )  # fmt: skip


def _raw_reply(question: Question, response: Response) -> RawReply:
    width, height = question.scene.picture.size
    try:
        items = read_items(response.text, "boxes", question.names)
    except UnreadableReply:  # counted as failed
        items = []
    found = [(as_asked(item.label, question.names), item.box) for item in items if item.box]
    return RawReply(question.truth, found, (height, width), response.input_sizes[0])
