"""Model handle: what travels on the QWEN_VL socket. The weights stay in the engine's cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ..qwenvl import folders, run, score
from ..qwenvl.backends.base import Backend, Remote, Resident
from ..qwenvl.chat import Ask, Reply, ask_all, will_think
from ..qwenvl.checkpoints import library
from ..qwenvl.errors import BadImage, BadOption
from ..qwenvl.media import images
from ..qwenvl.media.pixel_bounds import PixelBounds, with_longest_side
from ..qwenvl.model_cache import CACHE
from ..qwenvl.query import Method, Query
from ..qwenvl.types import LocalSpec, Result, Spec, Task
from . import host, sockets

Report = Callable[[Sequence[Result]], None]

KEEP, OFFLOAD, UNLOAD = "keep", "offload to RAM", "unload"
AFTER_USE = (KEEP, OFFLOAD, UNLOAD)
"""What becomes of a model's weights when a node is done with them."""

_ADVICE = "To go on with the answers that are there, set when_unreadable to keep going."


def apply_after_use(backend: Backend, after_use: str) -> None:
    """Does with a model's weights what ``after_use``, one of ``AFTER_USE``, says. A model that runs
    elsewhere has none here to move."""
    if not isinstance(backend, Resident):
        return
    if after_use == OFFLOAD:
        backend.offload()
    elif after_use == UNLOAD:
        backend.release()


@dataclasses.dataclass(frozen=True, repr=False)
class ModelHandle:
    """Which model, the bounds in pixels on what it sees of a picture (None: its own), whether a
    picture may be shown smaller where memory runs out, and what becomes of the weights
    ``after_use``.

    The model is unloaded when its last handle is gone: ComfyUI drops the handle when the Loader's
    settings change, when its graph is gone, and on "Free model and node cache".
    """

    spec: Spec
    min_pixels: int | None = None
    max_pixels: int | None = None
    shrink_to_fit: bool = False
    after_use: str = KEEP

    def __post_init__(self) -> None:
        object.__setattr__(self, "_reference", CACHE.reference(self.spec))

    def __repr__(self) -> str:
        """What a node that shows any value prints."""
        return self.name

    @property
    def name(self) -> str:
        """The model's name without its folder."""
        if isinstance(self.spec, LocalSpec):
            return library.name_of(Path(self.spec.checkpoint))
        return self.spec.name

    def loaded(self) -> list[Backend]:
        """The model itself, where it is open."""
        return CACHE.loaded(self.spec)

    def answer(
        self, questions: Sequence[Question], report: Report | None = None
    ) -> list[list[Result]]:
        """For each of ``questions`` about this model one result a picture, or one for all of its
        pictures where they are asked about together; all in one batched run.

        Before a missing answer is raised as an error, ``report`` is called with the results so
        far. Raises the engine's errors and, within one token, ComfyUI's interrupt.
        """
        batches = [
            _shown_at_once(*pair) for pair in zip(questions, _pictures(questions), strict=True)
        ]

        def queries(backend: Backend) -> list[Query]:
            return [
                self._query(backend, question, shown, number)
                for question, batch in zip(questions, batches, strict=True)
                for number, shown in enumerate(batch)
            ]

        results = iter(self.run(queries, report))
        return [[next(results) for _ in batch] for batch in batches]

    def run(
        self,
        queries_of: Callable[[Backend], Sequence[Query]],
        report: Report | None = None,
        about: str = "picture",
    ) -> list[Result]:
        """One result for each query that ``queries_of`` gives for this model, all in one batched
        run; otherwise as ``answer``. ``about``: what errors call that which a query is about."""
        with self._leased() as backend:
            queries = queries_of(backend)
            thinking = {
                index
                for index, query in enumerate(queries)
                if run.will_think(backend, query.task, query.thinking, query.reasoning_effort)
            }
            return run.answer_all(
                backend,
                queries,
                observer=host.NodeObserver(thinking),
                report=report,
                advice=_ADVICE,
                about=about,
            )

    def score(self, comparisons: Sequence[Comparison]) -> list[list[score.Score]]:
        """For each of ``comparisons`` by this model one score a picture, or why it has none; all in
        one run. Raises what ``score.score_all`` raises and ComfyUI's interrupt."""
        batches = _pictures(comparisons)
        pairs = [
            score.Pair(
                picture,
                comparison.text,
                comparison.instruction,
                self.min_pixels,
                self.max_pixels,
                self.shrink_to_fit,
            )
            for comparison, batch in zip(comparisons, batches, strict=True)
            for picture in batch
        ]
        with self._leased() as backend:
            scores = iter(score.score_all(backend, pairs, host.NodeObserver()))
        return [[next(scores) for _ in batch] for batch in batches]

    def chat(self, asks: Sequence[Ask]) -> list[Reply]:
        """Replies in the order of ``asks``, all in one run; pictures as large as this model is to
        see them. Raises what ``chat.ask_all`` raises and ComfyUI's interrupt."""
        asks = [
            dataclasses.replace(
                ask,
                min_pixels=self.min_pixels,
                max_pixels=self.max_pixels,
                may_shrink=self.shrink_to_fit,
            )
            for ask in asks
        ]
        with self._leased() as backend:
            thinking = {at for at, ask in enumerate(asks) if will_think(backend, ask)}
            observer = host.NodeObserver(thinking, status="Reading the conversation")
            return ask_all(backend, asks, observer)

    def caption(self, job: folders.Job) -> folders.Summary:
        """Captions a folder. Raises what ``folders.caption_folder`` raises and ComfyUI's
        interrupt; captions that are written stay."""
        with self._leased() as backend:
            asking = job.asking
            thinking, effort = (asking.fields.get(n) for n in ("thinking", "reasoning_effort"))
            thinks = run.will_think(backend, asking.task, thinking, effort or "")
            progress = host.FolderProgress(thinks)
            return folders.caption_folder(backend, job, progress, progress)

    def _query(
        self, backend: Backend, question: Question, shown: Sequence[Any], number: int
    ) -> Query:
        picture, *others = shown or (None,)
        effort, text_only = question.reasoning_effort, picture is None
        own = run.sampling_for(backend, question.task, question.thinking, text_only, effort)
        min_pixels, max_pixels = self._pixel_bounds(backend, question, picture)
        return Query(
            question.task,
            picture,
            sampling=dataclasses.replace(own, **question.sampling),
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            thinking=question.thinking,
            may_shrink=self.shrink_to_fit,
            keep_unreadable=question.keep_unreadable,
            method=question.method_of(number) if question.method_of else None,
            others=tuple(others),
            reasoning_effort=effort,
        )

    def _pixel_bounds(self, backend: Backend, question: Question, picture: Any) -> PixelBounds:
        bounds = self.min_pixels, self.max_pixels
        if picture is None or isinstance(picture, BadImage):  # the model will not see it
            return bounds
        return with_longest_side(
            bounds,
            picture.shape[-2:],
            question.longest_side,
            token_pixels=backend.family.patch_factor**2,
            own_max=backend.max_pixels,
        )

    @contextmanager
    def _leased(self) -> Iterator[Backend]:
        with CACHE.lease(self.spec) as backend:
            try:
                if isinstance(backend, Remote):
                    backend.prepare(host.NodeObserver())
                yield backend
            finally:
                apply_after_use(backend, self.after_use)


class Shown(Protocol):
    """``images``, an IMAGE, white where ``mask`` hides it."""

    @property
    def images(self) -> Any: ...

    @property
    def mask(self) -> Any: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """What one call of a node asks: ``task`` about each picture of an IMAGE, or without one, where
    ``images`` is None.

    ``sampling`` overrides single fields of the model's own values for this task. The model sees
    the pictures shrunk to ``longest_side`` pixels (0: as they are), and white where ``mask`` hides
    them; boxes are in pixels of the IMAGE. ``method_of``: how a picture, by its number in the
    IMAGE, is asked about (see ``Query``); None: in one request. ``together``: the task is about all
    pictures at once, and about those of ``others``, behind them; see ``joined``. ``order``: what
    else makes it the same question as another.
    """

    model: ModelHandle
    task: Task
    images: Any
    sampling: Mapping[str, Any]
    thinking: bool | None = None
    longest_side: int = 0
    mask: Any = None
    keep_unreadable: bool = False
    method_of: Callable[[int], Method | None] | None = None
    together: bool = False
    others: tuple[Question, ...] = ()
    reasoning_effort: str = ""
    order: Hashable = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", _batch(self.images))


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """What one call of a node compares: each picture of an IMAGE with ``text``. ``instruction``:
    see ``score.Pair``; ``mask`` as in ``Question``."""

    model: ModelHandle
    images: Any
    text: str
    instruction: str = ""
    mask: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", _batch(self.images))


@dataclasses.dataclass(frozen=True, eq=False)
class ChatTurn:
    """What one call of the Chat node asks. ``keep_going``: where there is no answer, the others
    are still given; ``save_pictures``: its pictures are to be kept in files."""

    model: ModelHandle
    ask: Ask
    keep_going: bool = False
    save_pictures: bool = False


Asked = Question | BadOption
"""A question, or why it cannot be asked where the others are to go on; it has a place all the
same."""


def joined(questions: Sequence[Asked]) -> list[Asked]:
    """``questions``, those that are asked together and differ in nothing but their pictures as
    one, in the place of the first of them."""
    groups: dict[Hashable, list[Any]] = {}
    for number, question in enumerate(questions):
        key: Hashable = number
        if isinstance(question, Question) and question.together:
            key = _all_but_pictures(question)
        groups.setdefault(key, []).append(question)
    return [
        dataclasses.replace(first, others=tuple(others)) if isinstance(first, Question) else first
        for first, *others in groups.values()
    ]


def _all_but_pictures(question: Question) -> Hashable:
    task = question.task
    asked = (question.model, task.prompt, task.system, tuple(question.sampling.items()))
    how = (question.thinking, question.reasoning_effort, question.keep_unreadable)
    return (*asked, *how, question.order)


def _batch(images: Any) -> Any:
    """An IMAGE; some packs send a single picture ``[H, W, C]``."""
    return images[None] if getattr(images, "ndim", 0) == 3 else images


def score_all(comparisons: Sequence[Comparison]) -> list[list[score.Score]]:
    """For each comparison one score a picture, in order; each model is asked once. Raises what
    ``ModelHandle.score`` raises."""
    scores: dict[int, list[score.Score]] = {}
    for model in dict.fromkeys(comparison.model for comparison in comparisons):
        indices = [index for index, asked in enumerate(comparisons) if asked.model == model]
        found = model.score([comparisons[index] for index in indices])
        scores.update(zip(indices, found, strict=True))
    return [scores[index] for index in range(len(comparisons))]


def chat_all(turns: Sequence[ChatTurn]) -> list[Reply]:
    """A reply to each turn, in order; each model is asked once. Raises the first error of a turn
    that is not to keep going; its page first shows the others' answers."""
    replies: dict[int, Reply] = {}
    for model in dict.fromkeys(turn.model for turn in turns):
        indices = [index for index, turn in enumerate(turns) if turn.model == model]
        found = model.chat([turns[index].ask for index in indices])
        replies.update(zip(indices, found, strict=True))
    ordered = [replies[index] for index in range(len(turns))]
    for number, (turn, reply) in enumerate(zip(turns, ordered, strict=True), 1):
        if (error := reply.response.error) and not turn.keep_going:
            host.send_results([reply.as_result() for reply in ordered])
            where = f"Conversation {number} of {len(turns)}: " if len(turns) > 1 else ""
            raise type(error)(f"{where}{error}") from error
    return ordered


def answer_all(questions: Sequence[Asked], draw: bool = False) -> list[list[Result]]:
    """For each question one result a picture, in order; each model is asked once. A question that
    cannot be asked has one result, with the error, which is raised where there is no other.

    Where an answer is missing and the node is to stop, its page first shows the results so far,
    with the pictures if it is to ``draw``. Raises what ``ModelHandle.answer`` raises.
    """
    refused = {at: asked for at, asked in enumerate(questions) if isinstance(asked, BadOption)}
    if refused and len(refused) == len(questions):
        raise next(iter(refused.values()))
    answers = {
        at: [Result("", finish_reason="error", error=str(error))] for at, error in refused.items()
    }
    askable = {at: asked for at, asked in enumerate(questions) if isinstance(asked, Question)}
    for model in dict.fromkeys(question.model for question in askable.values()):
        indices = [at for at, question in askable.items() if question.model == model]
        own = [askable[at] for at in indices]

        def report(results: Sequence[Result], own: Sequence[Question] = own) -> None:
            host.send_results(results, pictures(own) if draw else None)

        answers.update(zip(indices, model.answer(own, report), strict=True))
    return [answers[index] for index in range(len(questions))]


def pictures(questions: Sequence[Shown]) -> list[Any]:
    """Every picture ``[H, W, C]`` that is asked about, in order."""
    return [picture for question in questions for picture in question.images]


def _shown_at_once(question: Question, pictures: Sequence[Any]) -> list[list[Any]]:
    """For each request of a question its pictures, of which ``pictures`` are its own."""
    if question.images is None:
        return [[]]
    if not question.together:
        return [[picture] for picture in pictures]
    found = [*pictures, *(picture for more in _pictures(question.others) for picture in more)]
    return [found] if found else []


def _pictures(questions: Sequence[Shown]) -> list[list[Any]]:
    """The pictures of each question as the engine takes them, or the error of one that no model
    can be shown; those of an IMAGE that occurs in several questions are converted once."""
    converted: dict[tuple[int, int], list[Any]] = {}
    first = 0
    for question in questions:
        key = id(question.images), id(question.mask)
        if question.images is None:
            converted[key] = []
        if key not in converted:
            masked = sockets.without_hidden(question.images, question.mask)
            converted[key] = images.pictures_or_errors(masked, first)
        first += len(converted[key])
    return [converted[id(question.images), id(question.mask)] for question in questions]
