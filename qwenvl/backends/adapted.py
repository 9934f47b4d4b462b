"""Adapted backend: a local model with LoRA adapters on. It is a view of the model's own backend, so
that all requests to one model, with whatever adapters, share one copy of its weights."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ..checkpoints.adapters import check_adapters
from ..errors import QwenVLError
from ..observer import Observer
from ..source import Source
from ..types import Adapter, Family, Place, Request, Response
from .base import Backend, Continuous, Embedder, Planner, Resident, Scorer, Vocabulary


class Switched(Backend, Continuous, Planner, Resident, Scorer, Embedder, Vocabulary, Protocol):
    """A local model whose adapters can be switched."""

    @property
    def name(self) -> str: ...

    def adapted(
        self, adapters: Sequence[Adapter], observer: Observer
    ) -> AbstractContextManager[None]:
        """While the block runs, the turn is this thread's, and its calls are answered with
        ``adapters`` on."""
        ...


class AdaptedBackend:
    """``backend`` with ``adapters`` on for as long as a call lasts: a call with others waits its
    turn, as all calls of one model do, and finds its own on when that comes. Raises ``BadOption``
    for adapters that cannot be put on together; what is wrong with one of them, a call raises, as
    ``CheckpointError``, before it answers anything."""

    def __init__(self, backend: Switched, adapters: Sequence[Adapter]):
        check_adapters(adapters)
        self._backend, self.adapters = backend, tuple(adapters)

    @property
    def base(self) -> Switched:
        """The model itself."""
        return self._backend

    @property
    def name(self) -> str:
        return self._backend.name

    @property
    def family(self) -> Family:
        return self._backend.family

    @property
    def max_pixels(self) -> int | None:
        return self._backend.max_pixels

    @property
    def nbytes(self) -> int:
        return self._backend.nbytes

    @property
    def place(self) -> Place:
        return self._backend.place

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        return self._backend.thinks(wish, effort)

    def media_tokens(self, request: Request) -> int:
        return self._backend.media_tokens(request)

    def reads(self, ids: Sequence[int], text: str) -> bool:
        return self._backend.reads(ids, text)

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        """See ``Backend.generate``."""
        observer = observer or Observer()
        with self._backend.adapted(self.adapters, observer):
            return self._backend.generate(requests, observer)

    def generate_from(self, source: Source, observer: Observer) -> None:
        """See ``Continuous.generate_from``."""
        with self._backend.adapted(self.adapters, observer):
            self._backend.generate_from(source, observer)

    def score(
        self,
        requests: Sequence[Request],
        candidates: Sequence[str],
        observer: Observer | None = None,
    ) -> list[list[float] | QwenVLError]:
        """See ``Scorer.score``."""
        observer = observer or Observer()
        with self._backend.adapted(self.adapters, observer):
            return self._backend.score(requests, candidates, observer)

    def embed(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[list[float] | QwenVLError]:
        """See ``Embedder.embed``."""
        observer = observer or Observer()
        with self._backend.adapted(self.adapters, observer):
            return self._backend.embed(requests, observer)

    def offload(self) -> None:
        self._backend.offload()

    def release(self) -> None:
        self._backend.release()

    def close(self) -> None:
        self._backend.close()
