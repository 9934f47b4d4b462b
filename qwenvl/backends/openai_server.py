"""OpenAI server backend: a model behind servers that speak the OpenAI chat protocol.

Requests run in the backend's own event loop, many at once; the caller waits in its own thread,
where its observer is called.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from ..errors import (
    BadImage,
    BadOption,
    QwenVLError,
    ServerError,
    Unavailable,
    UnsuitableModel,
)
from ..families import FAMILIES, family_named
from ..fine_tunes import as_tuned
from ..inference.repetition import text_loop_start
from ..observer import Observer
from ..retrieval import as_retrieval, check_writes
from ..servers.addresses import Address
from ..servers.calibration import Calibration
from ..servers.client import Chunks, Client
from ..servers.event_loop import EventLoopThread, Job, in_parallel
from ..servers.form_history import REFUSALS, FormHistory
from ..servers.keys import KEYS, Keys
from ..servers.kinds import AUTO, ServerKind
from ..servers.kinds import kind as kind_named
from ..servers.scoring import TOP_TOKENS, candidate_scores
from ..servers.server_request import ServerRequest
from ..servers.streaming import Reply, token_count, usage_of
from ..servers.thinking import style, thinks
from ..types import Family, Request, Response, Sampling, ServerSpec
from .base import check_candidates

log = logging.getLogger(__name__)

T = TypeVar("T")

_AHEAD = 4
"""Requests whose pictures are made ready before there is a place for them; each keeps megabytes."""


_LOST = (0, 404)
"""HTTP statuses after which another server may be there: none at all, and of an unknown model."""


def list_models(spec: ServerSpec, keys: Keys = KEYS) -> list[str]:
    """What the server of ``spec`` calls its models; nothing else of the spec than its addresses
    matters. Raises ``ServerError``, ``BadOption`` and ``Unavailable``."""
    backend = OpenAIServerBackend(spec, keys)
    try:
        return backend.list_models()
    finally:
        backend.close()


class OpenAIServerBackend:
    """The model of ``spec``, as a ``backends.base.Backend`` and ``Scorer``. No server is asked
    before it has to be. ``keys``: where the servers' keys are found."""

    def __init__(self, spec: ServerSpec, keys: Keys = KEYS):
        self.spec, self._keys = spec, keys
        self._loop = EventLoopThread("server requests")
        self._lock = threading.Lock()
        self._client: Client | None = None  # made and used in the loop
        self._client_loop: asyncio.AbstractEventLoop | None = None
        self._model = spec.model
        self._family: Family | None = None
        self._kind: ServerKind | None = None
        self._sends_thoughts_apart = False
        self._is_in_doubt = False  # whether the same server is still there
        # Used in the loop.
        self._calibration = Calibration()
        self._forms = FormHistory()
        self._closed = False

    # What is asked

    @property
    def name(self) -> str:
        """What the server calls the model. Raises ``ServerError``, and ``BadOption`` where it lists
        several and the spec names none."""
        return self._named(Observer())

    def _named(self, observer: Observer) -> str:
        self._model = self._model or self._only_one(observer)
        return self._model

    def _only_one(self, observer: Observer) -> str:
        listed = self.list_models(observer)
        if len(listed) != 1:
            named = f" ({', '.join(listed[:20])})" if listed else ""
            raise BadOption(
                f"{self.spec.urls[0]} lists {len(listed)} models{named}. Say which one is meant."
            )
        return listed[0]

    def list_models(self, observer: Observer | None = None) -> list[str]:
        """What the server calls its models. Raises ``ServerError``."""
        return self._run(lambda _, client: client.models(), observer or Observer())

    @property
    def family(self) -> Family:
        """By the spec, else by the model's name. Raises ``BadOption`` where neither tells it, and
        as ``name``."""
        self._family = self._family or self._find_family(self.name)
        return self._family

    def _find_family(self, name: str) -> Family:
        family = FAMILIES.get(self.spec.family) if self.spec.family else family_named(name)
        if family is None and self.spec.family:
            known = ", ".join(FAMILIES)
            raise BadOption(f"There is no family {self.spec.family!r}; use one of: {known}.")
        if family is None:
            raise BadOption(
                f"The name {name!r} does not tell which family the model is of, and by a guess "
                "boxes would be read wrongly. Choose the family (in the Server node, or by "
                "--family)."
            )
        return as_retrieval(as_tuned(family, name), name)

    @property
    def kind(self) -> ServerKind:
        """Of the server: by the spec, else by what it says of itself. Raises ``BadOption`` for a
        kind that is not known, and ``ServerError``."""
        return self._kind_of(Observer())

    def _kind_of(self, observer: Observer) -> ServerKind:
        self._kind = self._kind or self._found_kind(observer)
        return self._kind

    def _found_kind(self, observer: Observer) -> ServerKind:
        name = self.spec.kind
        if name == AUTO:
            name = self._run(lambda _, client: client.kind(), observer)
        return kind_named(name)

    @property
    def max_pixels(self) -> int | None:
        return None

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        """See ``Backend.thinks``. By the model's name, since its chat template is the server's."""
        found = style(self.name, self.family)
        is_told = wish is not None and found not in ("never", "always")
        return thinks(self.name, found, self.kind if is_told else None, wish, effort)

    def prepare(self, observer: Observer) -> None:
        """See ``Remote.prepare``."""
        if self._is_in_doubt:
            self._model = self.spec.model or self._only_one(observer)
            self._family, self._kind = None, self._found_kind(observer)
            self._calibration, self._forms = Calibration(), FormHistory()
            self._is_in_doubt = False
        self._named(observer)
        self._kind_of(observer)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._loop.close()

    def _run(self, work: Callable[[Job[T], Client], Awaitable[T]], observer: Observer) -> T:
        """What ``work`` comes to in the event loop, while ``observer`` is told of it here."""

        async def run(job: Job[T]) -> T:
            client = self._client_here()
            client.try_again()
            return await work(job, client)

        with self._lock:
            if self._closed:
                raise QwenVLError("This model was unloaded while requests were waiting.")
            job = self._loop.start(run)
        return job.wait(observer)

    def _client_here(self) -> Client:
        """Of the loop that runs, with all that belongs to it: another than before in a process that
        was forked off."""
        loop = asyncio.get_running_loop()
        if self._client is None or self._client_loop is not loop:
            self._client, self._client_loop = Client(self.spec, self._keys), loop
            self._calibration = Calibration()
            self._loop.at_end(self._client.close)
        return self._client

    # Answers

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        """See ``Backend.generate``. A request that cannot be asked (``BadOption``, ``BadImage``,
        ``UnsuitableModel``, ``Unavailable``) has the error in its response; where there is no
        other, or an option lies outside its range, that is raised before any work is done."""
        observer = observer or Observer()
        for request in requests:
            request.sampling.validate()
        check_writes(self.family, self._named(observer))
        found = self._ask_all(requests, self._answer, lambda response: response, observer)
        return [_failed(one) if isinstance(one, QwenVLError) else one for one in found]

    def score(
        self,
        requests: Sequence[Request],
        candidates: Sequence[str],
        observer: Observer | None = None,
    ) -> list[list[float] | QwenVLError]:
        """See ``Scorer.score``. Raises ``Unavailable`` for a reranker, and for a kind of server
        that tells no log-probabilities. Of one that might and does not, and for a candidate that is
        more than one token, each request has an error."""
        check_candidates(candidates)
        observer = observer or Observer()
        if self.family.retrieval:
            raise Unavailable(
                f"{self._named(observer)} is asked in its makers' own form, for which servers have "
                "no request here. Choose a model on this machine."
            )
        # At temperature 1, without penalties, probabilities are the model's own in any server.
        alike = Sampling(max_new_tokens=1, temperature=1.0)
        first = [
            dataclasses.replace(request, sampling=alike, logprobs=True, constraint=None)
            for request in requests
        ]

        async def ask(told: _Told, client: Client, asked: ServerRequest) -> list[float]:
            more = {"top_logprobs": TOP_TOKENS, "max_tokens": 1}
            asked = dataclasses.replace(asked, fields={**asked.fields, **more})
            reply, _ = await self._reply(told, client, asked, lambda reply: reply)
            return candidate_scores(reply.logprobs, candidates)

        return self._ask_all(first, ask, lambda _: Response(""), observer)

    def _ask_all(
        self,
        requests: Sequence[Request],
        ask: Callable[[_Told, Client, ServerRequest], Awaitable[T]],
        response: Callable[[T], Response],
        observer: Observer,
    ) -> list[T | QwenVLError]:
        """What ``ask`` makes of each of ``requests``, or why there is nothing; ``response``: what
        ``observer`` is told of it. As many are asked at once as there are places, and a few wait
        for one with their pictures ready, so that none stays empty while these are compressed."""
        self._kind_of(observer)
        prepared = [self._prepared(request) for request in requests]
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
            observer.done(index, _failed(error))
        found: dict[int, T | QwenVLError] = {**refused}

        async def work(job: Job[None], client: Client) -> None:
            async def one(index: int) -> None:
                told = _Told(job, index)
                try:
                    answer = found[index] = await ask(told, client, asked[index])
                    told.done(response(answer))
                except QwenVLError as error:
                    if isinstance(error, ServerError) and error.status in _LOST:
                        self._is_in_doubt = True
                    found[index] = error
                    told.done(_failed(error))
                except Exception as error:  # whatever a server says costs only its own request
                    log.exception("An answer of %s cannot be read", self.spec.urls)
                    found[index] = unread = ServerError(
                        f"The server's answer cannot be read ({type(error).__name__}: {error})."
                    )
                    told.done(_failed(unread))

            ahead = min(client.places, _AHEAD)
            await in_parallel([partial(one, index) for index in asked], client.places + ahead)

        if asked:
            self._run(work, observer)
        return [found[index] for index in range(len(requests))]

    def _prepared(self, request: Request) -> ServerRequest | QwenVLError:
        """What is to be sent, or why it cannot be."""
        try:
            thinks = self.thinks(request.thinking, request.reasoning_effort)
            return ServerRequest.of(request, self.family, self.kind, self._model, thinks)
        except (BadOption, BadImage, UnsuitableModel, Unavailable) as error:
            return error

    async def _answer(self, told: _Told, client: Client, asked: ServerRequest) -> Response:
        fields = asked.form.fields
        # Servers differ in what forms they can hold: the answer is free, and its reader checks.
        refusal = self._forms.refusal(fields)
        if refusal is None:
            try:
                response = await self._verified(told, client, asked)
                self._forms.was_held(fields)
                return asked.finished(response)
            except ServerError as error:
                if error.status not in REFUSALS or not fields:
                    raise
                refusal = error
        asked = asked.unheld(refusal)
        response = await self._verified(told, client, asked)
        self._forms.was_refused(fields, refusal)
        return asked.finished(response)

    async def _verified(self, told: _Told, client: Client, asked: ServerRequest) -> Response:
        """The answer, with the sizes in which the model saw the pictures; see ``calibration``."""

        def read(reply: Reply) -> Response:
            return reply.response(asked.plan.input_sizes, asked.plan.tokens)

        async def count(request: Request) -> int | None:
            question = self._prepared(request)
            if isinstance(question, QwenVLError):
                raise question
            body = {**await question.body(), "max_tokens": 1}
            usage = await client.ask_once(address, body, usage_of)
            return token_count(usage.get("prompt_tokens")) or None

        response, address = await self._reply(told, client, asked, read)
        server = address.url, self._model
        return await self._calibration.verified(
            response, asked.request, self.family, self.kind, server, count
        )

    async def _reply(
        self, told: _Told, client: Client, asked: ServerRequest, use: Callable[[Reply], T]
    ) -> tuple[T, Address]:
        """Asks until there is a whole reply, of which ``use`` makes something, and the address that
        gave it."""

        async def read(chunks: Chunks) -> T:
            reply = Reply(asked.thinks, self._sends_thoughts_apart, text_loop_start)
            async for chunk in chunks:
                if text := reply.add(chunk):
                    told.token(text)
                if reply.is_circling:
                    break
            self._sends_thoughts_apart |= bool(reply.thought)
            return use(reply)

        final = self._forms.final(asked.form.fields)
        return await client.chat(await asked.body(), read, told.restart, final)


def with_model(spec: ServerSpec, observer: Observer | None = None) -> ServerSpec:
    """``spec`` with the model's name; where it has none, the server is asked. Raises as
    ``OpenAIServerBackend.name``."""
    if spec.model:
        return spec
    backend = OpenAIServerBackend(spec)
    try:
        return dataclasses.replace(spec, model=backend._named(observer or Observer()))
    finally:
        backend.close()


class _Told:
    """What an observer is told of request ``index`` by a job."""

    def __init__(self, job: Job[Any], index: int):
        self._job, self._index = job, index
        self._has_text = False

    def token(self, text: str) -> None:
        self._has_text = True
        self._job.events.put(lambda observer: observer.token(self._index, text))

    def restart(self) -> None:
        if self._has_text:
            self._job.events.put(lambda observer: observer.restart(self._index))
        self._has_text = False

    def done(self, response: Response) -> None:
        self._job.events.put(lambda observer: observer.done(self._index, response))


def _failed(error: QwenVLError) -> Response:
    return Response("", finish_reason="error", error=error)
