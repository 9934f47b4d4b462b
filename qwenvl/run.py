"""One road from pictures and a task to results: ask, answer, read."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .backend import Backend, Watch
from .errors import BadOption, UnreadableReply
from .types import Request, Response, Result, Sampling, Seen, Task

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


def answer(
    backend: Backend,
    task: Task,
    pictures: Sequence[Tensor],
    *,
    system: str = "",
    sampling: Sampling | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    thinking: bool | None = None,
    may_shrink: bool = False,
    watch: Watch | None = None,
    keep_unreadable: bool = False,
) -> list[Result]:
    """Asks ``task`` about each of ``pictures`` (uint8 ``[3, H, W]``) in one batched run.

    One result a picture, in order, boxes in pixels of that picture. After all are answered,
    raises ``OutOfMemory`` for pictures that memory did not suffice for and ``UnreadableReply`` for
    replies that could not be read, naming the pictures; with ``keep_unreadable`` such a result
    carries ``error`` and what text there is instead.
    """
    sampling = sampling or sampling_for(backend, task, thinking)
    thinking = _wish(backend, task, thinking)
    requests = [
        Request(
            images=(picture,),
            prompt=task.prompt,
            system=system or task.system,
            sampling=sampling,
            min_pixels=min_pixels,
            max_pixels=max_pixels,
            thinking=thinking,
            may_shrink=may_shrink,
        )
        for picture in pictures
    ]
    responses = backend.generate(requests, watch)
    results = [
        _read(task, backend, picture, request, response)
        for picture, request, response in zip(pictures, requests, responses, strict=True)
    ]
    for number, result in enumerate(results, 1):
        if result.notes:
            log.warning("Picture %d of %d: %s", number, len(results), " ".join(result.notes))
    if not keep_unreadable:
        _raise_unanswered(responses)
        _raise_unreadable(results)
    return results


def _read(
    task: Task, backend: Backend, picture: Tensor, request: Request, response: Response
) -> Result:
    if response.error:
        return Result(text="", finish_reason="error", error=str(response.error))
    height, width = picture.shape[-2:]
    cut = response.finish_reason != "stop"
    seen = Seen(backend.family, (height, width), response.input_sizes[0], cut)
    try:
        result = task.parse(response.text, seen)
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


def _raise_unanswered(responses: Sequence[Response]) -> None:
    failed = [number for number, response in enumerate(responses, 1) if response.error]
    if failed:
        error = responses[failed[0] - 1].error
        assert error is not None
        raise type(error)(f"{_which(failed, len(responses)).capitalize()}: {error}") from error


def _raise_unreadable(results: Sequence[Result]) -> None:
    failed = [number for number, result in enumerate(results, 1) if result.error]
    if not failed:
        return
    first = results[failed[0] - 1]
    cut = (
        " The reply was cut at max_new_tokens: raise it." if first.finish_reason == "length" else ""
    )
    raise UnreadableReply(
        f"The reply for {_which(failed, len(results))} could not be read. {first.error}{cut}",
        first.text,
    )


def _which(numbers: Sequence[int], count: int) -> str:
    shown = ", ".join(str(number) for number in numbers[:8])
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"picture{'s' if len(numbers) > 1 else ''} {shown}{more} of {count}"
