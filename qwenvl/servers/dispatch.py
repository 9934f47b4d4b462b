"""Dispatch: requests are under way at once, as many as the server has places, and one that fails
costs only its own answer."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from ..errors import BadImage, BadOption, QwenVLError, ServerError, Unavailable, UnsuitableModel
from ..observer import Observer, Relay
from ..source import Source
from ..types import Request, Response
from .client import Client
from .client_thread import ClientThread
from .event_loop import Job, in_parallel
from .served_model import ServedModel
from .server_request import ServerRequest

log = logging.getLogger(__name__)

T = TypeVar("T")

_AHEAD = 4
"""Requests whose pictures are made ready before there is a place for them; each keeps megabytes."""


class Progress:
    """Progress of request ``index``, told by ``job`` from its event loop to an observer."""

    def __init__(self, job: Job[Any], index: int):
        self._job, self._index = job, index
        self._has_text = False

    def token(self, text: str) -> None:
        """See ``Observer.token``."""
        self._has_text = True
        self._job.events.put(lambda observer: observer.token(self._index, text))

    def restart(self) -> None:
        """See ``Observer.restart``."""
        if self._has_text:
            self._job.events.put(lambda observer: observer.restart(self._index))
        self._has_text = False

    def done(self, response: Response) -> None:
        """See ``Observer.done``."""
        self._job.events.put(lambda observer: observer.done(self._index, response))


Ask = Callable[[ServerRequest, Client, Progress], Awaitable[T]]
"""Asks a server one request. Raises ``QwenVLError`` where there is no answer."""


def ask_all(
    requests: Sequence[Request],
    ask: Ask[T],
    response: Callable[[T], Response],
    model: ServedModel,
    client: ClientThread,
    observer: Observer,
) -> list[T | QwenVLError]:
    """What ``ask`` makes of each of ``requests`` to ``model``, in order, or the error of one that
    failed. ``response``: what ``observer`` is told of it.

    Raises the first error where no request can be sent."""
    model.find_kind(observer)
    prepared = [_prepared(model, request) for request in requests]
    refused = {at: one for at, one in enumerate(prepared) if not isinstance(one, ServerRequest)}
    if refused and len(refused) == len(requests):
        raise refused[0]
    observer.check()
    asked = {at: one for at, one in enumerate(prepared) if isinstance(one, ServerRequest)}
    observer.start(
        [asked[at].plan.tokens if at in asked else 0 for at in range(len(requests))],
        [asked[at].limit if at in asked else 0 for at in range(len(requests))],
    )
    for index, error in refused.items():
        observer.done(index, Response.failed(error))
    found: dict[int, T | QwenVLError] = {**refused}

    async def work(job: Job[None], client: Client) -> None:
        async def one(index: int) -> None:
            progress = Progress(job, index)
            answer = found[index] = await _answer(ask(asked[index], client, progress), model)
            progress.done(
                Response.failed(answer) if isinstance(answer, QwenVLError) else response(answer)
            )

        await in_parallel([partial(one, index) for index in asked], _at_once(client))

    if asked:
        client.run(work, observer)
    return [found[index] for index in range(len(requests))]


def ask_from(
    source: Source, ask: Ask[Response], model: ServedModel, client: ClientThread, observer: Observer
) -> None:
    """What ``ask`` makes of all requests that ``source`` gives, told to ``observer``, which is not
    told of a ``start``. A few more than the server has places are taken from it. Raises
    ``UnsuitableModel`` where the model can be asked nothing of the kind."""
    intake = _Intake(source, model, observer)

    async def work(job: Job[None], client: Client) -> None:
        waiting = asyncio.Queue[_Numbered | None]()

        async def worker() -> None:
            while asked := await waiting.get():
                progress = Progress(job, asked[0])
                answer = await _answer(ask(asked[1], client, progress), model)
                if isinstance(answer, QwenVLError):
                    answer = Response.failed(answer)
                progress.done(answer)
            waiting.put_nowait(None)  # for the next worker

        most = _at_once(client)
        hand_over = partial(job.call_soon, waiting.put_nowait)
        job.events.put(lambda _: intake.begin(hand_over, most))
        await in_parallel([worker] * most, most)

    client.run(work, intake)


_Numbered = tuple[int, ServerRequest]
"""A request and its number among all."""


class _Intake(Relay):
    """Observer of a job, for ``inner``, that takes requests in, in the caller's thread."""

    def __init__(self, source: Source, model: ServedModel, inner: Observer):
        super().__init__(inner)
        self._source, self._model = source, model
        self._count = self._open = 0
        self._most = 0  # may be open; none before ``begin``
        self._hand_over: Callable[[_Numbered | None], None]

    def begin(self, hand_over: Callable[[_Numbered | None], None], most: int) -> None:
        """From now on requests are handed over, as long as fewer than ``most`` are open; at the end
        None."""
        self._hand_over, self._most = hand_over, most

    def check(self) -> None:
        super().check()
        while self._open < self._most:
            given = self._source.more(wait=not self._open)
            if given is None:
                self._most = 0
                self._hand_over(None)
                return
            for request in given:
                self._take(request)
            if not given:
                return

    def _take(self, request: Request) -> None:
        request.sampling.validate()
        index, self._count = self._count, self._count + 1
        prepared = _prepared(self._model, request)
        if isinstance(prepared, UnsuitableModel):
            raise prepared
        if isinstance(prepared, QwenVLError):
            super().done(index, Response.failed(prepared))
            return
        self._open += 1
        self._hand_over((index, prepared))

    def done(self, index: int, response: Response) -> None:
        self._open -= 1
        super().done(index, response)


def _at_once(client: Client) -> int:
    """Requests that are made ready: a few more than the server has places, so that no place stays
    empty while their pictures are compressed."""
    return client.places + min(client.places, _AHEAD)


def _prepared(model: ServedModel, request: Request) -> ServerRequest | QwenVLError:
    """What is to be sent, or why it cannot be."""
    try:
        return model.request(request)
    except (BadOption, BadImage, UnsuitableModel, Unavailable) as error:
        return error


async def _answer(answer: Awaitable[T], model: ServedModel) -> T | QwenVLError:
    """What ``answer`` comes to, or why there is none."""
    try:
        return await answer
    except QwenVLError as error:
        model.doubt(error)
        return error
    except Exception as error:  # whatever a server says costs only its own request
        log.exception("An answer of %s cannot be read", model.urls)
        return ServerError(f"The server's answer cannot be read ({type(error).__name__}: {error}).")
