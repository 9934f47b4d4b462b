"""GGUF backend: a model in llama.cpp's format, answered by a llama-server that runs as long as its
weights are wanted in memory. Where weights of other models are moved, this process is started and
stopped."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..checkpoints import gguf
from ..errors import QwenVLError
from ..models.devices import pick_device
from ..models.load_progress import Progress
from ..models.memory import Memory, acquired
from ..observer import Observer
from ..servers import llama_server
from ..servers.addresses import parse
from ..servers.keys import Keys, variable
from ..servers.kinds import kind
from ..servers.llama_program import PROGRAM, find_program
from ..servers.llama_server import LlamaServer
from ..source import Begun, Source
from ..types import Family, GgufSpec, Request, Response, ServerSpec, Size
from .base import check_candidates
from .openai_server import OpenAIServerBackend
from .resident import ResidentBackend
from .served_weights import BatchWatch, ServedWeights, ServerEnded, ServerWatch, SourceWatch

log = logging.getLogger(__name__)

KIND = "llama.cpp"
_WORK = 1 << 30  # bytes beside weights and KV cache: compute buffers and the vision tower's work
_starts = itertools.count(1)
_NOWHERE = "http://127.0.0.1:9/v1"  # never asked


def open_gguf(spec: GgufSpec, memory: Memory | None = None) -> GgufBackend:
    """The model of ``spec``, ready to answer; its server is started when it is first needed. Raises
    ``Unavailable`` where there is no llama-server."""
    program = find_program(spec.program)
    return GgufBackend(spec, program, memory or Memory())


class GgufBackend(ResidentBackend):
    """One GGUF model, as a ``backends.base.Backend``. Calls queue behind a lock. Its ``nbytes`` are
    an estimate: the process does not tell."""

    def __init__(self, spec: GgufSpec, program: Path, memory: Memory):
        weights = ServedWeights(self._start, {pick_device(spec.device): expected_bytes(spec)})
        super().__init__(weights, memory)
        self.spec = spec
        self._program = program
        # Answers about the model while no server runs.
        self._idle = OpenAIServerBackend(self._server_spec(_NOWHERE))
        self.family: Family = self._idle.family
        # What asks the server that runs now, and that server.
        self._asking: tuple[LlamaServer, OpenAIServerBackend] | None = None
        self._started_from: list[tuple[int, int]] = []

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def max_pixels(self) -> int | None:
        return self._idle.max_pixels

    def shown_size(self, size: Size, min_pixels: int | None, max_pixels: int | None) -> Size:
        """See ``Resizer.shown_size``."""
        return self._idle.shown_size(size, min_pixels, max_pixels)

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        """See ``Backend.thinks``."""
        return self._idle.thinks(wish, effort)

    def offload(self) -> None:
        """As ``release``: llama-server cannot move its weights."""
        self.release()

    def release(self) -> None:
        """Ends the server; the next request starts it again."""
        super().release()
        self._stop_asking()

    def close(self) -> None:
        super().close()
        self._idle.close()

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        """See ``Backend.generate``, and ``OpenAIServerBackend.generate``. Raises ``Unavailable``
        and ``OutOfMemory`` where the server cannot be started."""
        observer = observer or Observer()
        for request in requests:
            request.sampling.validate()
        with self._asked(observer) as (server, backend):
            watch = BatchWatch(observer, server)
            try:
                return backend.generate(requests, watch)
            except ServerEnded:
                return watch.responses(len(requests))

    def generate_from(self, source: Source, observer: Observer) -> None:
        """See ``Continuous.generate_from``, and ``generate``. A server that ends costs what it was
        asked then."""
        begun = Begun.of(source)
        if begun is None:
            return
        with self._asked(observer) as (server, backend):
            watch = SourceWatch(observer, server, begun)
            try:
                backend.generate_from(watch, watch)
            except ServerEnded:
                watch.fail()

    def score(
        self,
        requests: Sequence[Request],
        candidates: Sequence[str],
        observer: Observer | None = None,
    ) -> list[list[float] | QwenVLError]:
        """See ``Scorer.score``, and ``OpenAIServerBackend.score``. Raises as ``generate``."""
        check_candidates(candidates)
        observer = observer or Observer()
        with self._asked(observer) as (server, backend):
            try:
                return backend.score(requests, candidates, ServerWatch(observer, server))
            except ServerEnded:
                raise server.failure() from None

    @contextmanager
    def _asked(self, observer: Observer) -> Iterator[tuple[LlamaServer, OpenAIServerBackend]]:
        """The running server, and what asks it, for this thread alone."""
        with (
            acquired(self._turn, observer.check),
            self._held(lambda: self._bring(observer), observer),
        ):
            server = self.weights.model
            yield server, self._backend_of(server)

    def _bring(self, observer: Observer) -> None:
        """Starts the server where none runs, and where its files were replaced."""
        if self.weights.model is not None and self._started_from != _states(self.spec):
            self.release()
        if self.weights.place == "disk":
            observer.loading(0, 1)
        self.memory.bring(self.weights, _WORK, observer.loading)
        # Of a host that found it loaded, and does not know that it has crashed.
        self.weights.load(observer.loading)

    def _start(self, progress: Progress | None) -> LlamaServer:
        def check() -> None:
            if progress:
                progress(0, 1)  # by which a caller stops a load

        log.info("Starting %s for %s", PROGRAM, self.name)
        self._started_from = _states(self.spec)
        folder = Path(self.spec.log_folder or ".")
        llama_server.remove_old_logs(folder)
        # Of this start alone: two ComfyUI may serve one model, and one with two settings at once.
        log_file = folder / f"{PROGRAM}-{self.name}-{os.getpid()}-{next(_starts)}.log"
        server = llama_server.start(self._program, arguments(self.spec), log_file, check)
        if progress:
            progress(1, 1)
        return server

    def _backend_of(self, server: LlamaServer) -> OpenAIServerBackend:
        if self._asking is None or self._asking[0] is not server:
            self._stop_asking()
            keys = Keys(environ={variable(parse(server.url)): server.key})
            self._asking = server, OpenAIServerBackend(self._server_spec(server.url), keys)
        return self._asking[1]

    def _stop_asking(self) -> None:
        asking, self._asking = self._asking, None
        if asking is not None:
            asking[1].close()

    def _server_spec(self, url: str) -> ServerSpec:
        spec = self.spec
        return ServerSpec(
            (url,), spec.name, spec.family, KIND, spec.concurrency, timeout=spec.timeout
        )


def arguments(spec: GgufSpec) -> list[str]:
    """The command line of llama-server for ``spec``; where it listens is left out. Pictures take
    as many tokens as the engine foresees for this kind of server."""
    limits = kind(KIND).pictures
    return [
        *("-m", spec.model),
        *("--mmproj", spec.mmproj),
        *("-c", str(spec.context * spec.concurrency)),
        *("-np", str(spec.concurrency)),
        *("--image-min-tokens", str(limits.least_tokens)),
        *("--image-max-tokens", str(limits.most_tokens)),
        "--jinja",
        "--no-webui",
        *spec.options,
    ]


def expected_bytes(spec: GgufSpec) -> int:
    """Bytes that the server of ``spec`` will take: its files, and the KV cache of all contexts."""
    weights = sum(size for _, size in _states(spec))
    cache = gguf.cache_bytes(gguf.header(Path(spec.model)))
    return weights + cache * spec.context * spec.concurrency


def _states(spec: GgufSpec) -> list[tuple[int, int]]:
    """The time and bytes of each of its files."""
    return gguf.states([*gguf.parts(Path(spec.model)), Path(spec.mmproj)])
