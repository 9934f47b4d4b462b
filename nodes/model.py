"""What travels on the QWEN_VL socket: a light handle; the weights stay in the engine's cache."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..qwenvl import run
from ..qwenvl.backends.base import Backend
from ..qwenvl.checkpoints import library
from ..qwenvl.media import images
from ..qwenvl.model_cache import CACHE
from ..qwenvl.types import LocalSpec, Result, Size, Task
from . import host, sockets

Report = Callable[[Sequence[Result]], None]

KEEP, OFFLOAD, UNLOAD = "keep", "offload to RAM", "unload"
AFTER_USE = (KEEP, OFFLOAD, UNLOAD)
"""What becomes of a model's weights when a node is done with them."""

_ADVICE = "To go on with the answers that are there, set when_unreadable to keep going."


def put_away(backend: Backend, where: str) -> None:
    """Does with a model's weights what ``where`` of ``AFTER_USE`` says."""
    if where == OFFLOAD:
        backend.offload()
    elif where == UNLOAD:
        backend.release()


class _Hold:
    """Shared by all handles of one spec; its end is the end of the last of them."""


_holds: weakref.WeakValueDictionary[LocalSpec, _Hold] = weakref.WeakValueDictionary()


def _hold(spec: LocalSpec) -> _Hold:
    found = _holds.get(spec)
    if found is None:
        found = _holds.setdefault(spec, _Hold())
        weakref.finalize(found, _let_go, spec).atexit = False
    return found


def _let_go(spec: LocalSpec) -> None:
    """Unloads a model that no handle names any more: ComfyUI drops the handle when the Loader's
    settings change, when its graph is gone, and on "Free model and node cache"."""
    if spec not in _holds:
        CACHE.discard(spec)


@dataclasses.dataclass(frozen=True, repr=False)
class ModelHandle:
    """Which model, the bounds in pixels on what it sees of a picture (None: its own), whether a
    picture may be shown smaller where memory runs out, and what becomes of the weights
    ``after_use``. The model stays loaded for as long as a handle of it lives."""

    spec: LocalSpec
    min_pixels: int | None = None
    max_pixels: int | None = None
    shrink_to_fit: bool = False
    after_use: str = KEEP

    def __post_init__(self) -> None:
        object.__setattr__(self, "_held", _hold(self.spec))

    def __repr__(self) -> str:
        """The model's name, without where it lies: what a node that shows any value prints."""
        return library.name_of(Path(self.spec.checkpoint))

    def answer(
        self, questions: Sequence[Question], report: Report | None = None
    ) -> list[list[Result]]:
        """For each of ``questions`` about this model one result a picture, all in one batched run.

        Before an answer that is missing is raised as an error, ``report`` is called with what
        there is. Raises the engine's errors and, within one token, ComfyUI's interrupt.
        """
        batches = _pictures(questions)
        with self._leased() as backend:
            queries = [
                self._query(backend, question, picture)
                for question, batch in zip(questions, batches, strict=True)
                for picture in batch
            ]
            will_think = [run.will_think(backend, query.task, query.thinking) for query in queries]
            results = iter(
                run.answer_all(
                    backend,
                    queries,
                    observer=host.NodeWatch({at for at, thinks in enumerate(will_think) if thinks}),
                    report=report,
                    advice=_ADVICE,
                )
            )
        return [[next(results) for _ in batch] for batch in batches]

    def _query(self, backend: Backend, question: Question, picture: Any) -> run.Query:
        own = run.sampling_for(backend, question.task, question.thinking)
        least = backend.family.patch_factor**2
        low, high = self._bounds(
            picture.shape[-2:], question.longest_side, (least, backend.max_pixels)
        )
        return run.Query(
            question.task,
            picture,
            sampling=dataclasses.replace(own, **question.sampling),
            min_pixels=low,
            max_pixels=high,
            thinking=question.thinking,
            may_shrink=self.shrink_to_fit,
            keep_unreadable=question.keep_unreadable,
        )

    @contextmanager
    def _leased(self) -> Iterator[Backend]:
        with CACHE.lease(self.spec) as backend:
            try:
                yield backend
            finally:
                put_away(backend, self.after_use)

    def _bounds(
        self, size: Size, longest_side: int, own: tuple[int, int]
    ) -> tuple[int | None, int | None]:
        """The bounds on pixels that also keep ``longest_side``. A bound on the area does it,
        since resizing keeps the shape, and the engine maps boxes back by itself. ``own``: one
        token's pixels, and the checkpoint's own bound, which a longest side is not meant to lift.
        """
        if not longest_side or max(size) <= longest_side:
            return self.min_pixels, self.max_pixels
        area = round(size[0] * size[1] * (longest_side / max(size)) ** 2)
        least, most = own
        high = max(least, min(area, self.max_pixels or most))
        return min(self.min_pixels, high) if self.min_pixels else None, high


@dataclasses.dataclass(frozen=True, eq=False)
class Question:
    """What one call of a node asks: ``task`` about each picture of an IMAGE.

    ``sampling`` changes single fields of the model's own values for this task. The model sees the
    pictures shrunk to ``longest_side`` pixels (0: as they are), and white where ``mask`` hides
    them; boxes are in pixels of the IMAGE.
    """

    model: ModelHandle
    task: Task
    images: Any
    sampling: Mapping[str, Any]
    thinking: bool | None = None
    longest_side: int = 0
    mask: Any = None
    keep_unreadable: bool = False

    def __post_init__(self) -> None:
        if getattr(self.images, "ndim", 0) == 3:  # a single picture, as some packs send it
            object.__setattr__(self, "images", self.images[None])


def answer_all(questions: Sequence[Question], draw: bool = False) -> list[list[Result]]:
    """For each question one result a picture, in order; each model is asked once.

    Where an answer is missing and the node is to stop, its page first shows what there is, with
    the pictures if it is to ``draw``. Raises what ``ModelHandle.answer`` raises.
    """
    answers: dict[int, list[Result]] = {}
    for model in dict.fromkeys(question.model for question in questions):
        places = [at for at, question in enumerate(questions) if question.model == model]
        own = [questions[at] for at in places]

        def report(results: Sequence[Result], own: Sequence[Question] = own) -> None:
            host.report(results, pictures(own) if draw else None)

        answers.update(zip(places, model.answer(own, report), strict=True))
    return [answers[at] for at in range(len(questions))]


def pictures(questions: Sequence[Question]) -> list[Any]:
    """Every picture ``[H, W, C]`` that is asked about, in order."""
    return [picture for question in questions for picture in question.images]


def _pictures(questions: Sequence[Question]) -> list[list[Any]]:
    """The pictures of each question as the engine takes them; those of an IMAGE that comes in
    several questions are made once."""
    made: dict[tuple[int, int], list[Any]] = {}
    first = 0
    for question in questions:
        key = id(question.images), id(question.mask)
        if key not in made:
            seen = sockets.without_hidden(question.images, question.mask)
            made[key] = images.pictures(seen, first)
        first += len(made[key])
    return [made[id(question.images), id(question.mask)] for question in questions]
