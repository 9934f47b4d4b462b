"""Local model: a checkpoint's definition, its weights with adapters, and the memory around them."""

from __future__ import annotations

import gc
import logging
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..checkpoints import inspection
from ..checkpoints.files import readable_size
from ..errors import OutOfMemory
from ..inference.memory_model import BatchLimits, MemoryModel
from ..inference.prefix_cache import PrefixCache
from ..inference.speculative.adaptive import AdaptiveSpeculation
from ..models import adapters as lora
from ..models.devices import pick_devices
from ..models.footprint import estimated_bytes
from ..models.loading import skeleton
from ..models.memory import MEMORY_LOCK, Memory, acquired, is_out_of_memory
from ..models.weights import RAM, Weights
from ..observer import Observer
from ..types import Adapter, LocalSpec
from .definition import Definition, read_definition
from .resident import ResidentBackend

log = logging.getLogger(__name__)


def expected_shares(path: Path, spec: LocalSpec, speaks: bool = False) -> dict[torch.device, int]:
    """Bytes on each device before the weights have been read; the first takes the inputs.
    ``speaks``: with the speaking half."""
    devices = pick_devices(spec.device)
    return dict.fromkeys(devices, estimated_bytes(path, spec, speaks) // len(devices))


class LocalModel(ResidentBackend):
    """One checkpoint as a ``LoadedModel``, whose weights are read when they are first needed.

    ``plain_reason``: why transformers' own ``generate`` answers and not the scheduler; empty while
    that does. ``has_failed``: whether a fast path has, for good. ``speaks``: the weights are, or
    will be, those of the whole model, its speaking half included; then ``model`` is the half that
    writes."""

    def __init__(self, weights: Weights, definition: Definition, memory: Memory):
        super().__init__(weights, memory)
        self.prefix_cache = PrefixCache()
        weights.attach(self.prefix_cache)
        self.adapters = lora.Adapters()
        weights.attach(self.adapters)
        self._wanted: tuple[Adapter, ...] = ()  # adapters of the call that is being served
        self._define(definition)
        self.batch_limits = BatchLimits()
        # What was measured of drafts stays true from call to call.
        self.adaptive_forced = AdaptiveSpeculation()
        self.adaptive_lookup, self.adaptive_mtp = AdaptiveSpeculation(), AdaptiveSpeculation()
        self._memory_model: MemoryModel | None = None
        self._files: tuple[LocalSpec, object] | None = None

    def _define(self, definition: Definition) -> None:
        self.has_failed = False
        self.speaks, self._reason_without_speech = False, ""
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
    def spec(self) -> LocalSpec | None:
        """What it was opened by; None of a model that was not read from files."""
        return self._files[0] if self._files else None

    @property
    def name(self) -> str:
        """The checkpoint's folder."""
        return Path(self.spec.checkpoint).name if self.spec else self.family.title

    @property
    def model(self) -> Any:
        """The transformers model; None while its weights are only on disk."""
        model = self.weights.model
        return model.thinker if self.speaks and model is not None else model

    @property
    def layers_key(self) -> Hashable:
        """What its layers depend on: the checkpoint, its options, the device and the adapters, but
        not their strengths."""
        return self._files, self.device, tuple(entry[:2] for entry in self.adapters.scope)

    @property
    def nbytes(self) -> int:
        """See ``Resident.nbytes``; with adapters."""
        return self.weights.nbytes + self.adapters.nbytes

    @property
    def max_pixels(self) -> int:
        return self.image_processor.max_pixels

    @property
    def device(self) -> torch.device:
        return self.weights.device

    def offload(self) -> None:
        """See ``Resident.offload``."""
        self.weights.offload()
        self.memory.empty_cache()

    def release(self) -> None:
        """See ``Resident.release``."""
        super().release()
        self._memory_model, self.batch_limits = None, BatchLimits()
        self.memory.empty_cache()

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
        with self._held(lambda: self._load(nbytes, observer), observer):
            yield

    def _load(self, nbytes: int, observer: Observer) -> None:
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
        spec, unread = self.spec, self.weights.place == "disk"
        if spec is None or not (unread or self._has_new_adapters):
            return
        unpatch = not self.plain_reason and lora.change_patched(self._wanted)
        if self._wanted and (unread or unpatch):
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

    def _switch_speech(self, on: bool) -> None:
        """Sees to it that the speaking half is in memory while it is needed, and not longer: it
        takes the memory of a batch, and the whole model does not run by the fast paths. The weights
        are read again at each turn."""
        if on == self.speaks:
            return
        spec = self.spec
        assert spec is not None, "voices are read from a checkpoint's files"
        self.release()
        self.speaks = on
        if on:
            self._reason_without_speech = self.plain_reason
            self.plain_reason = "its speaking half is used"
        else:
            self.plain_reason = self._reason_without_speech
        self.weights.shares = expected_shares(Path(spec.checkpoint), spec, on)

    def _run_plainly(self, reason: str) -> None:
        """From now on the model runs as it comes, for ``reason``, after a fast path has failed. Its
        weights are read again, without patches."""
        self.plain_reason, self.has_failed = reason, True
        self.release()

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
