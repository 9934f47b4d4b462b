"""Local backend: runs checkpoints through transformers, imported only when a model is loaded."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..checkpoints import inspection
from ..errors import QwenVLError, UnsuitableModel
from ..inference import fast_path_check
from ..inference.executor import More
from ..inference.generic import PlainExecutor
from ..inference.memory_model import MemoryModel
from ..inference.scheduler import Scheduler
from ..inference.scoring import CandidateScorer, PromptEmbedder, PromptReader
from ..models.load_progress import Progress
from ..models.loading import load_model
from ..models.memory import Memory, acquired, is_out_of_memory
from ..models.weights import Weights
from ..observer import GuardedObserver, Observer
from ..prompting.prompt import Prompt
from ..retrieval import check_writes
from ..source import Source
from ..types import Adapter, LocalSpec, Request, Response
from .adapted import AdaptedBackend
from .base import check_candidates
from .definition import Definition, read_definition
from .local_fast_paths import FastPaths
from .local_model import LocalModel, expected_shares
from .local_prompts import Prompts, lengths

log = logging.getLogger(__name__)

_LOADING = threading.Lock()


def open_checkpoint(spec: LocalSpec, memory: Memory | None = None) -> LocalBackend:
    """The checkpoint of ``spec``, ready to answer; its weights are read when they are first needed.
    Its adapters are put on by ``LocalBackend.with_adapters``.

    Raises ``CheckpointError`` (missing, incomplete, unsupported, or needing remote code) and
    ``Unavailable`` (a device this machine lacks).
    """
    path, spec = Path(spec.checkpoint), dataclasses.replace(spec, adapters=())
    state = inspection.fingerprint(path)
    definition = read_definition(path, spec)

    def read(progress: Progress | None) -> Any:
        # One at a time in a process: transformers changes process-wide settings while it loads.
        with _LOADING:
            patched = not backend.plain_reason
            return load_model(path, spec, backend.family, progress, patched, backend.speaks)

    weights = Weights(read, expected_shares(path, spec))
    backend = LocalBackend(weights, definition, memory or Memory())
    backend.watch_files(spec, state)
    return backend


def load(spec: LocalSpec, memory: Memory | None = None) -> LocalBackend:
    """As ``open_checkpoint``, with the weights read. Raises as it does, and ``Unavailable`` for an
    explicit precision, quantization or attention this machine lacks."""
    backend = open_checkpoint(spec, memory)
    backend.load_weights(0, Observer())
    return backend


class LocalBackend(LocalModel):
    """A local model as a ``backends.base.Backend``, and all that ``base`` knows beside. Calls queue
    behind a lock."""

    def __init__(self, weights: Weights, definition: Definition, memory: Memory):
        super().__init__(weights, definition, memory)
        self._prompts = Prompts(self)
        self._fast_paths = FastPaths(self)

    def with_adapters(self, adapters: Sequence[Adapter]) -> AdaptedBackend:
        """See ``Adaptable.with_adapters``."""
        return AdaptedBackend(self, adapters)

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        """See ``Backend.thinks``."""
        return self.chat_template.thinks(wish, effort)

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        """See ``Backend.generate``. A request that cannot be asked (``BadOption``, ``BadImage``)
        has the error in its response; where there is no other, or an option lies outside its range,
        that is raised before any work is done. Raises what loading raises, and before any weight is
        read ``UnsuitableModel`` for a model that writes no text."""
        observer = observer or Observer()
        for request in requests:
            request.sampling.validate()
        self._refresh(observer)
        check_writes(self.family, self.name)
        prompts, refused = self._prompts.all_of(requests)
        if not prompts:
            return []
        observer.check()
        with acquired(self._turn, observer.check):
            self._switch_speech(any(p.request.voice is not None for p in prompts.values()))
            memory_model = self.load_weights(0, observer)
            observer.start(*lengths(prompts, len(requests)))
            for index, response in refused.items():
                observer.done(index, response)
            responses = self._run(prompts, memory_model, GuardedObserver(observer)) | refused
        return [responses[index] for index in range(len(requests))]

    def generate_from(self, source: Source, observer: Observer) -> None:
        """See ``Continuous.generate_from``. Raises as ``generate``."""
        self._refresh(observer)
        check_writes(self.family, self.name)
        guarded = GuardedObserver(observer)
        more = self._taker(source, guarded)
        with acquired(self._turn, observer.check):
            if prompts := more(True):
                self._switch_speech(False)
                self._run(prompts, self.load_weights(0, observer), guarded, more)

    def _taker(self, source: Source, observer: GuardedObserver) -> More:
        """Takes from ``source``, and tells of what cannot be asked. Raises ``UnsuitableModel``
        where the model can be asked nothing of the kind."""
        numbers = itertools.count()

        @observer.guarding()  # what is wrong here is no failure of a fast path
        def more(wait: bool) -> dict[int, Prompt] | None:
            prompts: dict[int, Prompt] = {}
            while not prompts:
                given = source.more(wait)
                if given is None:
                    return None
                for request in given:
                    request.sampling.validate()
                prompts, refused = self._prompts.each_of(
                    {next(numbers): dataclasses.replace(request, voice=None) for request in given}
                )
                for index, error in refused.items():
                    if isinstance(error, UnsuitableModel):
                        raise error
                    observer.done(index, Response.failed(error))
                if not wait:
                    break
            return prompts

        return more

    def _run(
        self,
        prompts: dict[int, Prompt],
        memory_model: MemoryModel,
        observer: GuardedObserver,
        more: More | None = None,
    ) -> dict[int, Response]:
        """By the scheduler if that can run this model. Where it fails, what is left is answered the
        plain way, as is all that comes later."""
        if not self.plain_reason and fast_path_check.is_needed(self):
            self._check_fast_paths(memory_model, observer)
        if self.plain_reason:
            return PlainExecutor(self, prompts, memory_model, observer, more).run()
        scheduler = Scheduler(self, prompts, memory_model, observer, more)
        try:
            return scheduler.run()
        except (QwenVLError, MemoryError):
            raise
        except Exception as error:  # whatever the library, a kernel or a driver raises
            if error is observer.error or is_out_of_memory(error):
                raise
            self._fall_back(error)
        for index in scheduler.responses:
            del prompts[index]
        for index in prompts:
            observer.restart(index)
        memory_model = self.load_weights(0, observer)
        return scheduler.responses | self._run(prompts, memory_model, observer, more)

    def check_fast_paths(self, observer: Observer) -> None:
        """Compares the fast paths with the plain one where no answer needs that, too: not on CUDA.
        What does not agree is off from then on; ``fast_path_problems`` tells."""
        with acquired(self._turn, observer.check):
            memory_model = self.load_weights(0, observer)
            if not self.plain_reason:
                self._check_fast_paths(memory_model, observer)
            self.load_weights(0, observer)  # where they were put aside, as the library has them

    def _check_fast_paths(self, memory_model: MemoryModel, observer: Observer) -> None:
        if problem := self._fast_paths.check(memory_model, observer):
            self._run_plainly(f"the scheduler did not agree with it ({problem})")

    @property
    def fast_path_problems(self) -> Mapping[str, str] | None:
        """See ``FastPaths.problems``."""
        return self._fast_paths.problems

    def _fall_back(self, error: Exception) -> None:
        """After ``error`` of a fast path."""
        log.warning(
            "A fast path failed for this model, which is run by transformers' own generate from "
            "now on, more slowly: %s",
            "".join(traceback.format_exception(error)).rstrip(),
        )
        traceback.clear_frames(error.__traceback__)
        self._run_plainly(f"a fast path failed ({type(error).__name__}: {error})")

    def score(
        self,
        requests: Sequence[Request],
        candidates: Sequence[str],
        observer: Observer | None = None,
    ) -> list[list[float] | QwenVLError]:
        """See ``Scorer.score``."""
        check_candidates(candidates)
        ids = [self._text_ids(text) for text in candidates]
        return self._read(requests, observer, partial(CandidateScorer, candidates=ids))

    def embed(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[list[float] | QwenVLError]:
        """See ``Embedder.embed``."""
        return self._read(requests, observer, PromptEmbedder)

    def _read(
        self,
        requests: Sequence[Request],
        observer: Observer | None,
        reader: Callable[..., PromptReader[list[float]]],
    ) -> list[list[float] | QwenVLError]:
        observer = observer or Observer()
        self._refresh(observer)
        asked = [self._prompts.without_thought(request) for request in requests]
        prompts, refused = self._prompts.all_of(asked)
        if not prompts:
            return []
        observer.check()
        with acquired(self._turn, observer.check):
            self._switch_speech(False)
            memory_model = self.load_weights(0, observer)
            observer.start(*lengths(prompts, len(requests)))
            for index, response in refused.items():
                observer.done(index, response)
            results = self._read_prompts(prompts, reader, memory_model, observer)
        errors = {index: response.error for index, response in refused.items() if response.error}
        results |= errors
        return [results[index] for index in range(len(requests))]

    def _read_prompts(
        self,
        prompts: dict[int, Prompt],
        reader: Callable[..., PromptReader[list[float]]],
        memory_model: MemoryModel,
        observer: Observer,
    ) -> dict[int, list[float] | QwenVLError]:
        """As ``_run``, for a reader."""
        if not self.plain_reason and fast_path_check.is_needed(self):
            self._check_fast_paths(memory_model, observer)
        guarded = GuardedObserver(observer)
        plain = bool(self.plain_reason)
        executor = reader(self, prompts, memory_model, guarded, plain=plain)
        try:
            executor.run()
        except (QwenVLError, MemoryError):
            raise
        except Exception as error:  # whatever the library, a kernel or a driver raises
            if plain or error is guarded.error or is_out_of_memory(error):
                raise
            self._fall_back(error)
        else:
            return executor.results
        left = {index: prompts[index] for index in prompts if index not in executor.results}
        memory_model = self.load_weights(0, observer)
        return executor.results | self._read_prompts(left, reader, memory_model, observer)

    def prompt(self, request: Request) -> Prompt:
        """See ``Prompts.of``."""
        return self._prompts.of(request)

    def media_tokens(self, request: Request) -> int:
        """See ``Planner.media_tokens``."""
        return self._prompts.media_tokens(request)

    def reads(self, ids: Sequence[int], text: str) -> bool:
        """See ``Vocabulary.reads``."""
        return self.chat_template.reads(ids, text)

    def _text_ids(self, text: str) -> list[int]:
        return self.chat_template.tokenize(self.chat_template.escaped(text))
