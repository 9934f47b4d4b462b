"""Local backend: runs checkpoints through transformers, imported only when a model is loaded."""

from __future__ import annotations

import dataclasses
import gc
import logging
import threading
import traceback
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from .. import makers_prompts
from ..checkpoints import inspection
from ..checkpoints.files import readable_size
from ..errors import (
    BadImage,
    BadOption,
    OutOfMemory,
    QwenVLError,
    UnsuitableModel,
    unloaded,
    without_frames,
)
from ..families import check_sees
from ..inference import fast_path_check
from ..inference.constraints import matcher
from ..inference.fast_path_check import FastPathCheck
from ..inference.generic import PlainExecutor
from ..inference.memory_model import BatchLimits, MemoryModel, TokenNeed, token_need
from ..inference.prefix_cache import PrefixCache
from ..inference.scheduler import Scheduler
from ..inference.scoring import CandidateScorer, PromptEmbedder, PromptReader
from ..inference.speculative.adaptive import AdaptiveSpeculation
from ..media.spans import plan_all
from ..models import adapters as lora
from ..models.devices import pick_devices
from ..models.footprint import estimated_bytes
from ..models.load_progress import Progress
from ..models.loading import load_model, skeleton
from ..models.memory import MEMORY_LOCK, Memory, acquired, is_out_of_memory
from ..models.speech import require_voice
from ..models.weights import RAM, Place, Weights
from ..observer import GuardedObserver, Observer
from ..prompting.prompt import Prompt
from ..retrieval import check_writes
from ..types import Adapter, LocalSpec, Message, Request, Response
from .adapted import AdaptedBackend
from .base import check_candidates
from .definition import Definition, read_definition

log = logging.getLogger(__name__)

_LOADING = threading.Lock()

_FAST_PATHS: dict[Hashable, dict[str, str]] = {}
"""What the checks of this process found, by checkpoint, options and device."""


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

    weights = Weights(read, _expected_shares(path, spec))
    backend = LocalBackend(weights, definition, memory or Memory())
    backend.watch_files(spec, state)
    return backend


def _expected_shares(path: Path, spec: LocalSpec, speaks: bool = False) -> dict[torch.device, int]:
    """Bytes on each device before the weights have been read; the first takes the inputs.
    ``speaks``: with the speaking half."""
    devices = pick_devices(spec.device)
    return dict.fromkeys(devices, estimated_bytes(path, spec, speaks) // len(devices))


def load(spec: LocalSpec, memory: Memory | None = None) -> LocalBackend:
    """As ``open_checkpoint``, with the weights read. Raises as it does, and ``Unavailable`` for an
    explicit precision, quantization or attention this machine lacks."""
    backend = open_checkpoint(spec, memory)
    backend.load_weights(0, Observer())
    return backend


class LocalBackend:
    """One checkpoint, as a ``backends.base.Backend``. Calls queue behind a lock. ``plain_reason``:
    why transformers' own ``generate`` answers and not the scheduler; empty while that does.
    ``speaks``: the weights are, or will be, those of the whole model, its speaking half included;
    then ``model`` is the half that writes."""

    def __init__(self, weights: Weights, definition: Definition, memory: Memory):
        self.weights = weights
        self.prefix_cache = PrefixCache()
        weights.attach(self.prefix_cache)
        self.adapters = lora.Adapters()
        weights.attach(self.adapters)
        self._wanted: tuple[Adapter, ...] = ()  # adapters of the call that is being served
        self._define(definition)
        self.memory = memory
        self.batch_limits = BatchLimits()
        # What was measured of drafts stays true from call to call.
        self.adaptive_forced = AdaptiveSpeculation()
        self.adaptive_lookup, self.adaptive_mtp = AdaptiveSpeculation(), AdaptiveSpeculation()
        self._memory_model: MemoryModel | None = None
        # The model whose fast paths have been checked, and the adapters on it.
        self._checked: tuple[Any, object] = (None, None)
        self._closed = False
        # Of the call that is being served; others wait for it without MEMORY_LOCK.
        self._turn = threading.RLock()
        self._files: tuple[LocalSpec, object] | None = None

    def _define(self, definition: Definition) -> None:
        self.has_failed = False  # whether a fast path has, for good
        self.speaks, self._silent_reason = False, ""
        self.chat_template = definition.chat_template
        self.family = definition.family
        self.image_processor = definition.image_processor
        self.video_processor = definition.video_processor
        self.audio_processor = definition.audio_processor
        self.context_length = definition.context_length
        self.plain_reason = definition.plain_reason

    def watch_files(self, spec: LocalSpec, state: object) -> None:
        """From now on the checkpoint is read again before an answer if its files are no longer in
        ``state`` (see ``inspection.fingerprint``)."""
        self._files = spec, state

    def _refresh(self, observer: Observer) -> None:
        """Reads the checkpoint again where its files have changed. Raises ``CheckpointError`` where
        they cannot be used any more."""
        if self._files is None:
            return
        spec, before = self._files
        path = Path(spec.checkpoint)
        if (now := inspection.fingerprint(path)) in (before, None):
            return
        with acquired(self._turn, observer.check), acquired(MEMORY_LOCK, observer.check):
            if self._files != (spec, before):  # another thread was quicker
                return
            log.info("%s has changed on disk and is read again.", path.name)
            self.release()
            self._define(read_definition(path, spec))
            self._files = spec, now

    @property
    def name(self) -> str:
        """The checkpoint's folder."""
        return Path(self._files[0].checkpoint).name if self._files else self.family.title

    @property
    def model(self) -> Any:
        """The transformers model; None while its weights are only on disk."""
        model = self.weights.model
        return model.thinker if self.speaks and model is not None else model

    @property
    def nbytes(self) -> int:
        return self.weights.nbytes + self.adapters.nbytes

    @property
    def place(self) -> Place:
        return self.weights.place

    @property
    def max_pixels(self) -> int:
        return self.image_processor.max_pixels

    @property
    def device(self) -> torch.device:
        return self.weights.device

    def offload(self) -> None:
        self.weights.offload()
        self.memory.empty_cache()

    def release(self) -> None:
        self.weights.release()
        self._memory_model, self.batch_limits = None, BatchLimits()
        self._checked = (None, None)
        self.memory.empty_cache()

    def close(self) -> None:
        with self.weights.lock:
            self._closed = True
            self.release()
            self.memory.forget(self.weights)

    def with_adapters(self, adapters: Sequence[Adapter]) -> AdaptedBackend:
        """See ``Adaptable.with_adapters``."""
        return AdaptedBackend(self, adapters)

    @contextmanager
    def adapted(self, adapters: Sequence[Adapter], observer: Observer) -> Iterator[None]:
        """While the block runs, the turn is this thread's, and its calls are answered with
        ``adapters`` on, put on as the weights are needed. They stay on until a call with others."""
        with acquired(self._turn, observer.check):
            before, self._wanted = self._wanted, tuple(adapters)
            try:
                yield
            finally:
                self._wanted = before

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
        prompts, refused = self._prompts(requests)
        if not prompts:
            return []
        observer.check()
        with acquired(self._turn, observer.check):
            self._turn_speech(any(p.request.voice is not None for p in prompts.values()))
            memory_model = self.load_weights(0, observer)
            observer.start(*self._lengths(prompts, len(requests)))
            for index, response in refused.items():
                observer.done(index, response)
            responses = self._run(prompts, memory_model, observer) | refused
        return [responses[index] for index in range(len(requests))]

    def _run(
        self, prompts: dict[int, Prompt], memory_model: MemoryModel, observer: Observer
    ) -> dict[int, Response]:
        """By the scheduler if that can run this model. Where it fails, what is left is answered the
        plain way, as is all that comes later."""
        if not self.plain_reason and fast_path_check.is_needed(self):
            self._check_fast_paths(memory_model, observer)
        if self.plain_reason:
            return PlainExecutor(self, prompts, memory_model, observer).run()
        guarded = GuardedObserver(observer)
        scheduler = Scheduler(self, prompts, memory_model, guarded)
        try:
            return scheduler.run()
        except (QwenVLError, MemoryError):
            raise
        except Exception as error:  # whatever the library, a kernel or a driver raises
            if error is guarded.error or is_out_of_memory(error):
                raise
            self._fall_back(error)
        left = {index: prompts[index] for index in prompts if index not in scheduler.responses}
        for index in left:
            observer.restart(index)
        return scheduler.responses | self._run(left, self.load_weights(0, observer), observer)

    def check_fast_paths(self, observer: Observer) -> None:
        """Compares the fast paths with the plain one where no answer needs that, too: not on CUDA.
        What does not agree is off from then on; ``fast_path_problems`` tells."""
        with acquired(self._turn, observer.check):
            memory_model = self.load_weights(0, observer)
            if not self.plain_reason:
                self._check_fast_paths(memory_model, observer)
            self.load_weights(0, observer)  # where they were put aside, as the library has them

    def _check_fast_paths(self, memory_model: MemoryModel, observer: Observer) -> None:
        """Once for each checkpoint, options and device in a process; what did not agree then is
        turned off whenever the weights have been read again."""
        model, key = self._checked
        if model is not None and model() is self.model and key == self._fast_path_key:
            return
        key = self._fast_path_key
        if key not in _FAST_PATHS:
            _FAST_PATHS[key] = FastPathCheck(self, memory_model, observer).run()
            for name, problem in _FAST_PATHS[key].items():
                if problem:
                    log.warning(
                        "Left off for this model, since it did not agree with transformers' own "
                        "generate on %s: %s (%s)",
                        self.device,
                        name,
                        problem,
                    )
        fast_path_check.turn_off(self, _FAST_PATHS[key])
        if problem := _FAST_PATHS[key][fast_path_check.SCHEDULER]:
            self.plain_reason = f"the scheduler did not agree with it ({problem})"
            self.has_failed = True
            self.release()  # to be read again without patches
        self._checked = weakref.ref(self.model) if self.model is not None else None, key

    @property
    def _fast_path_key(self) -> Hashable:
        """What a check of the fast paths holds for; not the strengths of adapters, whose layers
        are the same with each."""
        return self._files, self.device, tuple(entry[:2] for entry in self.adapters.scope)

    @property
    def fast_path_problems(self) -> Mapping[str, str] | None:
        """What the check of the fast paths found, by the name of each path: why it is off, empty
        where it agreed. None where none was needed yet."""
        return _FAST_PATHS.get(self._fast_path_key)

    def _fall_back(self, error: Exception) -> None:
        """From now on the model runs as it comes. Its weights are read again, without patches."""
        self.plain_reason = f"a fast path failed ({type(error).__name__}: {error})"
        self.has_failed = True
        log.warning(
            "A fast path failed for this model, which is run by transformers' own generate from "
            "now on, more slowly: %s",
            "".join(traceback.format_exception(error)).rstrip(),
        )
        traceback.clear_frames(error.__traceback__)
        self.release()

    def _turn_speech(self, on: bool) -> None:
        """Sees to it that the speaking half is in memory while it is needed, and not longer: it
        takes the memory of a batch, and the whole model does not run by the fast paths. The weights
        are read again at each turn."""
        if on == self.speaks:
            return
        assert self._files is not None, "voices are read from a checkpoint's files"
        self.release()
        self.speaks, spec = on, self._files[0]
        if on:
            self._silent_reason, self.plain_reason = self.plain_reason, "its speaking half is used"
        else:
            self.plain_reason = self._silent_reason
        self.weights.shares = _expected_shares(Path(spec.checkpoint), spec, on)

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
        prompts, refused = self._prompts([self._without_thought(r) for r in requests])
        if not prompts:
            return []
        observer.check()
        with acquired(self._turn, observer.check):
            self._turn_speech(False)
            memory_model = self.load_weights(0, observer)
            observer.start(*self._lengths(prompts, len(requests)))
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

    @staticmethod
    def _lengths(prompts: Mapping[int, Prompt], count: int) -> tuple[list[int], list[int]]:
        """Tokens of the prompt and of the longest answer of each of ``count`` requests; 0 of those
        without a prompt."""
        nothing = TokenNeed(0, 0)
        needs = [token_need(prompts[at]) if at in prompts else nothing for at in range(count)]
        return [need.prompt for need in needs], [need.answer for need in needs]

    def reads(self, ids: Sequence[int], text: str) -> bool:
        """See ``Vocabulary.reads``."""
        return self.chat_template.reads(ids, text)

    def _text_ids(self, text: str) -> list[int]:
        return self.chat_template.tokenize(self.chat_template.escaped(text))

    def _without_thought(self, request: Request) -> Request:
        """With thinking turned off, where the model leaves the choice."""
        if not self.thinks(request.thinking, request.reasoning_effort):
            return request
        try:
            return dataclasses.replace(request, thinking=self.thinks(False))
        except BadOption:
            return dataclasses.replace(request, thinking=None)

    def _prompts(
        self, requests: Sequence[Request]
    ) -> tuple[dict[int, Prompt], dict[int, Response]]:
        """By the index of the request: prompts, and the responses of requests that were refused."""
        prompts: dict[int, Prompt] = {}
        refused: dict[int, QwenVLError] = {}
        for index, request in enumerate(requests):
            try:
                prompts[index] = self.prompt(request)
            except (BadOption, BadImage, UnsuitableModel) as error:
                refused[index] = without_frames(error)
        if refused and not prompts:
            raise refused.pop(0)
        return prompts, {index: Response.failed(error) for index, error in refused.items()}

    def prompt(self, request: Request) -> Prompt:
        """Raises ``BadOption`` and ``BadImage``, see ``Prompt``; and where the request's constraint
        cannot be enforced, see ``constraints.matcher``; ``UnsuitableModel`` for pictures that the
        model cannot be shown, and for speech that it cannot give."""
        if request.media:
            check_sees(self.family, self.name)
        if request.voice is not None:
            request = self._spoken(request, request.voice)
        if request.constraint:
            matcher(request.constraint, self.chat_template, request.sampling.max_new_tokens)
        return Prompt(
            request,
            self.chat_template,
            self.image_processor,
            self.context_length,
            self.video_processor,
            self.audio_processor,
        )

    def _spoken(self, request: Request, wish: str) -> Request:
        """``request`` with a voice of the checkpoint, and with the system prompt that its speech
        was trained with, unless it has its own. Raises as ``speech.require_voice``, and
        ``BadOption`` for videos that it cannot speak about together."""
        if self._files is None:
            raise UnsuitableModel("This model was not loaded from files, and cannot speak.")
        if len({video.audio is None for video in request.videos}) > 1:
            raise BadOption(
                "The answer cannot be spoken: the model is shown videos some with their sound and "
                "some without, and its speaking half takes them all alike. Ask about them one "
                "after the other, or turn speech off."
            )
        spec = self._files[0]
        voice = require_voice(Path(spec.checkpoint), spec, self.family, wish)
        speech, messages = self.family.speech, request.messages
        if speech and speech.prompt and not request.system:
            system = makers_prompts.words(speech.prompt, "speech")
            messages = (Message("system", (system,)), *messages)
        return dataclasses.replace(request, voice=voice, messages=messages)

    def media_tokens(self, request: Request) -> int:
        """See ``Planner.media_tokens``."""
        if request.media:
            check_sees(self.family, self.name)
        images = self.image_processor.bounded(request.min_pixels, request.max_pixels)
        videos = self.video_processor and self.video_processor.bounded(
            request.frame_pixels,
            request.video_tokens,
            self.context_length,
            request.least_frame_pixels,
        )
        spans = plan_all(request.media, images, videos, self.family.watching, self.audio_processor)
        return sum(span.tokens for span in spans)

    def load_weights(self, nbytes: int, observer: Observer) -> MemoryModel:
        """Gets the weights onto their device, with room for ``nbytes`` beside them as far as that
        can be had, and tells what inference takes. Raises ``OutOfMemory`` for weights that do not
        fit, and what loading raises."""
        with self.on_device(nbytes, observer):
            self._memory_model = self._memory_model or MemoryModel.from_model(self.model)
            return self._memory_model

    @contextmanager
    def on_device(self, nbytes: int, observer: Observer) -> Iterator[None]:
        """The weights are on their device while the block runs, loaded as by ``load_weights``."""
        while True:
            with acquired(self._turn, observer.check), acquired(MEMORY_LOCK, observer.check):
                self._load(nbytes, observer)
                self.weights.lock.acquire()  # at most held by somebody who moves them
            try:
                self._check_open()
                if self.weights.place == "device":  # nobody has moved them out in between
                    yield
                    return
            finally:
                self.weights.lock.release()

    def _load(self, nbytes: int, observer: Observer) -> None:
        self._check_open()
        if self.weights.place == "disk":
            observer.loading(0, 1)  # importing the libraries alone takes seconds
        self._check_adapters()
        nbytes += self.adapters.coming_bytes(self._wanted)
        try:
            self._check_ram()
            self.memory.bring(self.weights, nbytes, observer.loading)
            self._switch_adapters()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
        else:
            return
        self.recover_memory()
        raise OutOfMemory(
            f"The weights need {readable_size(self.weights.size)} on {self.device}, and only "
            f"{readable_size(self.memory.free(self.device))} is free there. Choose 4bit or "
            f"8bit in the Loader, or a smaller model. ({reason})"
        )

    @property
    def _has_new_adapters(self) -> bool:
        return lora.wanted_scope(self._wanted) != self.adapters.scope

    def _check_adapters(self) -> None:
        """What is wrong with an adapter should not be told after minutes of loading. For one that
        changes a layer which a patch replaces, the weights are read (again) without patches."""
        unread = self.weights.place == "disk"
        if self._files is None or not (unread or self._has_new_adapters):
            return
        unpatch = not self.plain_reason and lora.change_patched(self._wanted)
        if self._wanted and (unread or unpatch):
            spec = self._files[0]
            lora.check_fit(self._wanted, skeleton(spec, self.family), self.name)
        if unpatch:
            self.plain_reason = "an adapter changes its patch embedding"
            log.info("%s is run by transformers' own generate: %s.", self.name, self.plain_reason)
            self.release()

    def _switch_adapters(self) -> None:
        with self.weights.lock:
            if self.weights.place == "device":  # nobody has moved them out in between
                try:
                    self.adapters.switch(self.model, self._wanted, self.name)
                finally:
                    self.prefix_cache.scope = self.adapters.scope

    def _check_open(self) -> None:
        if self._closed:
            self.release()  # closed while they were brought
            raise unloaded()

    def _check_ram(self) -> None:
        """Raises where a CPU's memory would not suffice: the kernel would end the process."""
        weights = self.weights
        reads = weights.place == "disk" and self.device.type == "cpu"
        if reads and weights.size > self.memory.free(RAM):
            raise MemoryError("RAM does not suffice")

    def recover_memory(self) -> None:
        """After memory ran out: gives back all that is not in use. Does not wait for a thread that
        is making room: it may wait for the very weights that this thread computes with."""
        if MEMORY_LOCK.acquire(blocking=False):
            try:
                self.memory.evict_others(self.weights)
            finally:
                MEMORY_LOCK.release()
        else:
            gc.collect()
            self.memory.empty_cache()
