"""OpenAI server backend: a model behind servers that speak the OpenAI chat protocol.

Requests run in the backend's own event loop, many at once; the caller waits in its own thread,
where its observer is called.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from ..errors import QwenVLError, Unavailable
from ..inference.repetition import text_loop_start
from ..observer import Observer
from ..retrieval import check_writes
from ..servers.answering import Answering
from ..servers.client import Client
from ..servers.client_thread import ClientThread
from ..servers.dispatch import Progress, ask_all, ask_from
from ..servers.keys import KEYS, Keys
from ..servers.kinds import ServerKind
from ..servers.picture_sizes import pixel_bounds, planned_size
from ..servers.scoring import scored
from ..servers.served_model import ServedModel
from ..servers.server_request import ServerRequest
from ..source import Begun, Source
from ..types import Family, Request, Response, ServerSpec, Size
from .base import check_candidates


class OpenAIServerBackend:
    """The model of ``spec``, as a ``backends.base.Backend``, ``Continuous``, ``Resizer``,
    ``Remote`` and ``Scorer``. No server is asked before it has to be. ``keys``: where the servers'
    keys are found."""

    def __init__(self, spec: ServerSpec, keys: Keys = KEYS):
        self.spec = spec
        self._client = ClientThread(spec, keys)
        self._model = ServedModel(spec, self._client)
        self._answering = Answering(self._model, text_loop_start)

    @property
    def name(self) -> str:
        """See ``ServedModel.find_name``."""
        return self._model.name

    @property
    def family(self) -> Family:
        """See ``ServedModel.family``."""
        return self._model.family

    @property
    def kind(self) -> ServerKind:
        """See ``ServedModel.find_kind``."""
        return self._model.kind

    @property
    def max_pixels(self) -> int | None:
        return None

    def shown_size(self, size: Size, min_pixels: int | None, max_pixels: int | None) -> Size:
        """See ``Resizer.shown_size``. Raises ``ServerError`` too, where the kind of server is
        asked for first."""
        bounds = pixel_bounds(min_pixels, max_pixels, self.family, self.kind)
        return planned_size(size, bounds, self.family, self.kind.pictures)

    def list_models(self, observer: Observer | None = None) -> list[str]:
        """What the server calls its models. Raises ``ServerError``."""
        return self._model.list_names(observer or Observer())

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        """See ``Backend.thinks``."""
        return self._model.thinks(wish, effort)

    def prepare(self, observer: Observer) -> None:
        """See ``Remote.prepare``."""
        if self._model.prepare(observer):
            self._answering.forget()

    def close(self) -> None:
        self._client.close()

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        """See ``Backend.generate``. A request that cannot be asked (``BadOption``, ``BadImage``,
        ``UnsuitableModel``, ``Unavailable``) has the error in its response; where there is no
        other, or an option lies outside its range, that is raised before any work is done."""
        observer = observer or Observer()
        for request in requests:
            request.sampling.validate()
        check_writes(self.family, self._model.find_name(observer))
        found = ask_all(
            requests,
            self._answering.answer,
            lambda response: response,
            self._model,
            self._client,
            observer,
        )
        return [Response.failed(one) if isinstance(one, QwenVLError) else one for one in found]

    def generate_from(self, source: Source, observer: Observer) -> None:
        """See ``Continuous.generate_from``, and ``generate``."""
        begun = Begun.of(source)
        if begun is None:
            return
        check_writes(self.family, self._model.find_name(observer))
        self._model.find_kind(observer)
        ask_from(begun, self._answering.answer, self._model, self._client, observer)

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
                f"{self._model.find_name(observer)} is asked in its makers' own form, for which "
                "servers have no request here. Choose a model on this machine."
            )

        async def ask(asked: ServerRequest, client: Client, progress: Progress) -> list[float]:
            return await self._answering.score(asked, client, progress, candidates)

        first_tokens = [scored(request) for request in requests]
        return ask_all(
            first_tokens, ask, lambda _: Response(""), self._model, self._client, observer
        )


def list_models(spec: ServerSpec, keys: Keys = KEYS) -> list[str]:
    """What the server of ``spec`` calls its models; nothing else of the spec than its addresses
    matters. Raises ``ServerError``, ``BadOption`` and ``Unavailable``."""
    backend = OpenAIServerBackend(spec, keys)
    try:
        return backend.list_models()
    finally:
        backend.close()


def with_model(spec: ServerSpec, observer: Observer | None = None) -> ServerSpec:
    """``spec`` with the model's name; where it has none, the server is asked. Raises as
    ``ServedModel.find_name``."""
    if spec.model:
        return spec
    client = ClientThread(spec, KEYS)
    try:
        name = ServedModel(spec, client).find_name(observer or Observer())
        return dataclasses.replace(spec, model=name)
    finally:
        client.close()
