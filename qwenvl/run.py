"""One road from pictures and a task to results: ask, answer, read."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .backends.base import Backend
from .errors import BadOption, QwenVLError, UnreadableReply
from .observer import Observer
from .types import ReplyContext, Request, Response, Result, Sampling, Task

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)


def sampling_for(backend: Backend, task: Task, thinking: bool | None = None) -> Sampling:
    """How ``task`` is answered where the caller set nothing.

    Reading and finding are greedy without penalties. Free text takes the makers' values for the
    family; so does anything that begins with a thought, since greedy thoughts tend to circle.
    """
    if will_think(backend, task, thinking):
        base = backend.family.thinking_sampling
    else:
        base = Sampling() if task.greedy else backend.family.sampling
    return dataclasses.replace(base, max_new_tokens=task.max_new_tokens)


def will_think(backend: Backend, task: Task, thinking: bool | None = None) -> bool:
    """Whether the replies to ``task`` begin with a thought. Raises ``BadOption`` where the model
    cannot do as wished."""
    return backend.thinks(_wish(backend, task, thinking))


def _wish(backend: Backend, task: Task, thinking: bool | None) -> bool | None:
    """Reading and finding gain nothing from a thought: who has the choice answers at once."""
    if thinking is not None or not task.greedy:
        return thinking
    try:
        return backend.thinks(False)
    except BadOption:  # this one always thinks
        return None


@dataclass(frozen=True, eq=False)
class Ask:
    """One task about one picture (uint8 ``[3, H, W]``). ``sampling``: None for that of
    ``sampling_for``. The bounds on pixels, ``thinking`` and ``may_shrink`` are those of
    ``Request``. ``keep_unreadable``: what cannot be read or answered gives a result with
    ``error`` and what text there is, and no exception."""

    task: Task
    picture: Tensor
    system: str = ""
    sampling: Sampling | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    thinking: bool | None = None
    may_shrink: bool = False
    keep_unreadable: bool = False


def answer(
    backend: Backend,
    task: Task,
    pictures: Sequence[Tensor],
    *,
    observer: Observer | None = None,
    **how: Any,
) -> list[Result]:
    """``answer_all`` for one task about each of ``pictures``. ``how``: the other fields of
    ``Ask``, the same for all."""
    return answer_all(backend, [Ask(task, picture, **how) for picture in pictures], observer)


def answer_all(
    backend: Backend,
    asks: Sequence[Ask],
    observer: Observer | None = None,
    report: Callable[[Sequence[Result]], object] | None = None,
    advice: str = "",
) -> list[Result]:
    """Asks everything in one batched run.

    One result each, in order, boxes in pixels of its own picture. After all are answered, raises
    ``OutOfMemory`` for pictures that memory did not suffice for and ``UnreadableReply`` for
    replies that could not be read, naming the pictures; before that, ``report`` is called with
    the results, those without an answer among them. ``advice``: a sentence for these errors on
    how the caller's other answers can be kept.
    """
    requests = [_request(backend, ask) for ask in asks]
    responses = backend.generate(requests, observer) if requests else []
    results = [_read(backend, *pair) for pair in zip(asks, requests, responses, strict=True)]
    for number, result in enumerate(results, 1):
        if result.notes:
            log.warning("Picture %d of %d: %s", number, len(results), " ".join(result.notes))
    try:
        _raise_unanswered(asks, responses, advice)
        _raise_unreadable(asks, results, advice)
    except QwenVLError:
        if report:
            report(results)
        raise
    return results


def answer_each(backend: Backend, asks: Sequence[Ask], each: Callable[[int, Result], None]) -> None:
    """As ``answer_all``, with ``each(index, result)`` for every result as soon as it is there, in
    any order. Failures are results with ``error``; telling of notes is the caller's. What ``each``
    raises ends the run and comes out of here unchanged."""
    requests = [_request(backend, ask) for ask in asks]
    if requests:
        backend.generate(requests, _Reading(backend, asks, requests, each))


class _Reading(Observer):
    """Reads each reply when it is there."""

    def __init__(
        self,
        backend: Backend,
        asks: Sequence[Ask],
        requests: Sequence[Request],
        each: Callable[[int, Result], None],
    ):
        self._backend, self._asks, self._requests, self._each = backend, asks, requests, each

    def done(self, index: int, response: Response) -> None:
        ask, request = self._asks[index], self._requests[index]
        self._each(index, _read(self._backend, ask, request, response))


def _request(backend: Backend, ask: Ask) -> Request:
    return Request(
        images=(ask.picture,),
        prompt=ask.task.prompt,
        system=ask.system or ask.task.system,
        sampling=ask.sampling or sampling_for(backend, ask.task, ask.thinking),
        min_pixels=ask.min_pixels,
        max_pixels=ask.max_pixels,
        thinking=_wish(backend, ask.task, ask.thinking),
        may_shrink=ask.may_shrink,
    )


def _read(backend: Backend, ask: Ask, request: Request, response: Response) -> Result:
    if response.error:
        return Result(text="", finish_reason="error", error=str(response.error))
    height, width = ask.picture.shape[-2:]
    cut = response.finish_reason != "stop"
    context = ReplyContext(backend.family, (height, width), response.input_sizes[0], cut)
    try:
        result = ask.task.parse(response.text, context)
    except UnreadableReply as error:
        result = Result(text=error.raw, error=str(error))
    return dataclasses.replace(
        result,
        thinking=response.thinking,
        finish_reason=response.finish_reason,
        notes=(*_early_end(request, response), *result.notes),
    )


def _early_end(request: Request, response: Response) -> tuple[str, ...]:
    """The note of a reply that did not come to its own end."""
    if response.notes:
        return response.notes
    if response.finish_reason == "length":
        limit = request.sampling.max_new_tokens
        return (f"The reply was cut at {limit} tokens: raise max_new_tokens for the rest.",)
    if response.finish_reason == "repetition":
        return ("The reply repeated itself and was cut there.",)
    return ()


def _raise_unanswered(asks: Sequence[Ask], responses: Sequence[Response], advice: str) -> None:
    failed = [
        (number, response.error)
        for number, (ask, response) in enumerate(zip(asks, responses, strict=True), 1)
        if response.error and not ask.keep_unreadable
    ]
    if failed:
        which = _which([number for number, _ in failed], len(responses)).capitalize()
        error = failed[0][1]
        raise type(error)(_joined(f"{which}: {error}", advice)) from error


def _raise_unreadable(asks: Sequence[Ask], results: Sequence[Result], advice: str) -> None:
    failed = [
        (number, result)
        for number, (ask, result) in enumerate(zip(asks, results, strict=True), 1)
        if result.error and not ask.keep_unreadable
    ]
    if not failed:
        return
    which, first = _which([number for number, _ in failed], len(results)), failed[0][1]
    said = f"The reply for {which} could not be read. {first.error}"
    raise UnreadableReply(_joined(said, *first.notes, advice), first.text)


def _joined(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _which(numbers: Sequence[int], count: int) -> str:
    shown = ", ".join(str(number) for number in numbers[:8])
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"picture{'s' if len(numbers) > 1 else ''} {shown}{more} of {count}"
