"""OpenAI server backend: a model behind servers that speak the OpenAI chat protocol.

Requests run in the backend's own event loop, many at once; the caller waits in its own thread,
where its observer is called.
"""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from ..errors import BadImage, BadOption, QwenVLError, UnsuitableModel
from ..families import FAMILIES, family_named
from ..fine_tunes import as_tuned
from ..inference.repetition import text_loop_start
from ..observer import Observer
from ..retrieval import check_writes
from ..servers import content
from ..servers.client import Chunks, Client
from ..servers.event_loop import EventLoopThread, Job
from ..servers.keys import KEYS, Keys
from ..servers.kinds import AUTO, ServerKind
from ..servers.kinds import kind as kind_named
from ..servers.sampling import sampling_fields, sampling_notes
from ..servers.streaming import Reply
from ..servers.thinking import thinking_fields, thinking_notes
from ..types import THINKING_TOKENS, Family, Request, Response, ServerSpec


class OpenAIServerBackend:
    """The model of ``spec``, as a ``backends.base.Backend``. No server is asked before it has to
    be. ``keys``: where the servers' keys are found."""

    def __init__(self, spec: ServerSpec, keys: Keys = KEYS):
        self.spec, self._keys = spec, keys
        self._loop = EventLoopThread("server requests")
        self._lock = threading.Lock()
        self._client: Client | None = None  # made and used in the loop
        self._model = spec.model
        self._sends_thoughts_apart = False
        self._kind: ServerKind | None = None
        self._closed = False

    @property
    def name(self) -> str:
        """What the server calls the model. Raises ``ServerError``, and ``BadOption`` where it lists
        several and the spec names none."""
        return self._named(Observer())

    def _named(self, observer: Observer) -> str:
        if not self._model:
            listed = self.list_models(observer)
            if len(listed) != 1:
                raise BadOption(
                    f"{self.spec.urls[0]} lists {len(listed)} models"
                    f"{': ' if listed else ''}{', '.join(listed[:20])}. Say which one is meant."
                )
            self._model = listed[0]
        return self._model

    def list_models(self, observer: Observer | None = None) -> list[str]:
        """What the server calls its models. Raises ``ServerError``."""
        return self._start(lambda _, client: client.models()).wait(observer or Observer())

    @property
    def family(self) -> Family:
        """By the spec, else by the model's name. Raises ``BadOption`` where neither tells it, and
        as ``name``."""
        if self.spec.family:
            if self.spec.family not in FAMILIES:
                raise BadOption(
                    f"The family {self.spec.family!r} is not known; use one of: "
                    f"{', '.join(FAMILIES)}."
                )
            return as_tuned(FAMILIES[self.spec.family], self._model)
        family = family_named(self.name)
        if family is None:
            raise BadOption(
                f"The name {self.name!r} does not tell which family the model is of, and boxes "
                "would be read wrongly by a guess. Choose the family (in the Server node, or by "
                "--family)."
            )
        return as_tuned(family, self.name)

    @property
    def kind(self) -> ServerKind:
        """Of the server: by the spec, else by what it says of itself. Raises ``BadOption`` for a
        kind that is not known, and ``ServerError``."""
        return self._kind_of(Observer())

    def _kind_of(self, observer: Observer) -> ServerKind:
        if self._kind is None:
            name = self.spec.kind
            if name == AUTO:
                name = self._start(lambda _, client: client.kind()).wait(observer)
            self._kind = kind_named(name)
        return self._kind

    @property
    def max_pixels(self) -> int | None:
        return None

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        """See ``Backend.thinks``."""
        return bool(wish)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._loop.close(self._close_client)

    async def _close_client(self) -> None:
        if self._client:
            await self._client.close()

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        """See ``Backend.generate``. A request that cannot be asked (``BadOption``, ``BadImage``,
        ``UnsuitableModel``) has the error in its response; where there is no other, or an option
        lies outside its range, that is raised before any work is done."""
        observer = observer or Observer()
        for request in requests:
            request.sampling.validate()
        name = self._named(observer)
        check_writes(self.family, name)
        self._kind_of(observer)
        plans, refused = self._plans(requests)
        if not plans:
            return []
        observer.check()
        observer.start(*self._lengths(requests, plans))
        for index, response in refused.items():
            observer.done(index, response)
        asked = {index: requests[index] for index in plans}
        answered = self._start(lambda job, client: self._ask_all(job, client, asked, plans))
        responses = answered.wait(observer) | refused
        return [responses[index] for index in range(len(requests))]

    def _plans(
        self, requests: Sequence[Request]
    ) -> tuple[dict[int, content.Plan], dict[int, Response]]:
        """By the index of the request: what it shows, and the responses of those refused."""
        plans: dict[int, content.Plan] = {}
        refused: dict[int, QwenVLError] = {}
        for index, request in enumerate(requests):
            try:
                self.thinks(request.thinking, request.reasoning_effort)
                plans[index] = content.plan(request, self.family, self.kind, self._model)
            except (BadOption, BadImage, UnsuitableModel) as error:
                refused[index] = error
        if refused and not plans:
            raise next(iter(refused.values()))
        return plans, {index: _failed(error) for index, error in refused.items()}

    def _lengths(
        self, requests: Sequence[Request], plans: Mapping[int, content.Plan]
    ) -> tuple[list[int], list[int]]:
        """For ``Observer.start``. The tokens of a prompt's text are the server's to count."""
        shown = [plans[at].tokens if at in plans else 0 for at in range(len(requests))]
        limits = [self._limit(r) if at in plans else 0 for at, r in enumerate(requests)]
        return shown, limits

    def _limit(self, request: Request) -> int:
        """Tokens of thought and answer together, which servers count as one."""
        sampling = request.sampling
        if not self.thinks(request.thinking, request.reasoning_effort):
            return sampling.max_new_tokens
        thought = sampling.max_thinking_tokens
        return sampling.max_new_tokens + (THINKING_TOKENS if thought is None else thought)

    def _start(self, work: Any) -> Job[Any]:
        with self._lock:
            if self._closed:
                raise QwenVLError("This model was unloaded while requests were waiting.")

            async def run(job: Job[Any]) -> Any:
                if self._client is None:
                    self._client = Client(self.spec, self._keys)
                return await work(job, self._client)

            return self._loop.start(run)

    async def _ask_all(
        self,
        job: Job[Any],
        client: Client,
        requests: Mapping[int, Request],
        plans: Mapping[int, content.Plan],
    ) -> dict[int, Response]:
        async def ask(index: int) -> Response:
            try:
                response = await self._ask(job, client, index, requests[index], plans[index])
            except QwenVLError as error:
                response = _failed(error)
            job.events.put(partial(_tell_done, index=index, response=response))
            return response

        responses = await asyncio.gather(*(ask(index) for index in requests))
        return dict(zip(requests, responses, strict=True))

    async def _ask(
        self, job: Job[Any], client: Client, index: int, request: Request, planned: content.Plan
    ) -> Response:
        shown = False

        async def body() -> Mapping[str, Any]:
            messages = await asyncio.to_thread(planned.messages)
            return {**self._fields(request), **planned.fields, "messages": messages}

        async def read(chunks: Chunks) -> Response:
            nonlocal shown
            thinks = self.thinks(request.thinking, request.reasoning_effort)
            reply = Reply(thinks, self._sends_thoughts_apart, text_loop_start)
            async for chunk in chunks:
                if text := reply.add(chunk):
                    shown = True
                    job.events.put(partial(_tell_token, index=index, text=text))
                if reply.is_circling:
                    break
            self._sends_thoughts_apart |= bool(reply.thought)
            response = reply.response(planned.input_sizes, planned.tokens)
            return dataclasses.replace(
                response, notes=response.notes + self._notes(request, planned)
            )

        def restart() -> None:
            nonlocal shown
            if shown:
                job.events.put(partial(_tell_restart, index=index))
            shown = False

        return await client.chat(body, read, restart)

    def _fields(self, request: Request) -> dict[str, Any]:
        """The body of a request, without its messages."""
        fields = {
            "model": self._model,
            "max_tokens": self._limit(request),
            "stream_options": {"include_usage": True},
            **sampling_fields(self.kind, request.sampling),
            **thinking_fields(self.kind, request),
        }
        return {**fields, "logprobs": True} if request.logprobs else fields

    def _notes(self, request: Request, planned: content.Plan) -> tuple[str, ...]:
        """What of ``request`` this kind of server does in its own way."""
        sampling = sampling_notes(self.kind, request.sampling)
        return (*planned.notes, *sampling, *thinking_notes(self.kind, request))


def _tell_token(observer: Observer, index: int, text: str) -> None:
    observer.token(index, text)


def _tell_restart(observer: Observer, index: int) -> None:
    observer.restart(index)


def _tell_done(observer: Observer, index: int, response: Response) -> None:
    observer.done(index, response)


def _failed(error: QwenVLError) -> Response:
    return Response("", finish_reason="error", error=error)
