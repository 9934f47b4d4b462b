"""Continuous-batching scheduler: admits requests as others finish, and preempts them where memory
runs out."""

from __future__ import annotations

import dataclasses
import logging
import time
import traceback
from collections import deque
from collections.abc import Sequence
from typing import Any

from ..observer import Observer
from ..prompting.prompt import Prompt
from . import prefix_cache
from .active_request import ActiveRequest
from .batch import Batch, NewRow
from .executor import Executor, More
from .loaded_model import LoadedModel, model_runner
from .logits import Drafts, can_verify
from .memory_model import MemoryModel
from .prefill import Prefiller
from .sequence import SampledToken
from .speculative.adaptive import AdaptiveSpeculation
from .speculative.verify import MAX_DRAFT_TOKENS

log = logging.getLogger(__name__)

_MEMORY_SHARE = 0.9  # of the free memory; the rest is left to others
_MAX_SPECULATIVE_ROWS = 4  # with more rows a pass has enough to do without drafts


class Scheduler(Executor):
    """Answers prompts together, as many at once as the limits allow."""

    def __init__(
        self,
        loaded: LoadedModel,
        prompts: dict[int, Prompt],
        memory_model: MemoryModel,
        observer: Observer,
        more: More | None = None,
    ):
        super().__init__(loaded, prompts, memory_model, observer, more)
        self._slots: list[ActiveRequest | None] = []  # None where a slot is free
        self._prefilled: list[tuple[ActiveRequest, NewRow]] = []  # not yet in a slot
        self._in_flight: deque[list[ActiveRequest | None]] = deque()  # ``_slots`` at each launch
        self._prefilling: int | None = None  # the request whose prompt is being prefilled
        self._forced = loaded.adaptive_forced
        self._lookup, self._mtp = loaded.adaptive_lookup, loaded.adaptive_mtp
        self._draft_source = self._lookup  # of the last drafts
        self._batch: Any = None
        self._prefiller: Any = None

    def _run(self) -> None:
        try:
            self._set_up()
            while self._take_in() or self._slots:
                if not self._step_within_memory():
                    self._preempt_all()
        finally:
            self._tear_down()

    def _set_up(self) -> None:
        """All memory that is free now counts, claimed or not."""
        loaded = self._loaded
        free = int(min(map(loaded.memory.free, loaded.weights.shares)) * _MEMORY_SHARE)
        loaded.prefix_cache.limit(min(prefix_cache.MAX_BYTES, free // 4))
        nbytes = free if self._limits.nbytes is None else min(free, self._limits.nbytes)
        self._limits = dataclasses.replace(self._limits, nbytes=nbytes)
        runner = model_runner(loaded)
        self._batch = Batch(runner)
        self._prefiller = Prefiller(loaded, runner, self._prompts, self._observer)
        self._prefiller.schedule(self._waiting)

    def _forget(self, index: int) -> None:
        self._prefiller.forget(index)
        super()._forget(index)

    def _tear_down(self) -> None:
        """An error's frames may hold this object for long, and it must not hold tensors."""
        if self._batch:
            self._batch.close()
        if self._prefiller:
            self._prefiller.close()
        self._batch = self._prefiller = None
        self._slots, self._prefilled = [], []
        self._in_flight.clear()

    def _step_within_memory(self) -> bool:
        """Admits requests and runs a step; False where memory ran out."""
        try:
            self._observer.check()
            self._admit()
            self._step()
        except BaseException as error:
            # Its frames hold tensors for as long as somebody looks at the error.
            traceback.clear_frames(error.__traceback__)
            if not self._is_out_of_memory(error) or not self._concurrency:
                raise
            log.warning("Memory ran out with %d requests at once: %s", self._concurrency, error)
            return False
        return True

    @property
    def _concurrency(self) -> int:
        return len(self._admitted()) + (self._prefilling is not None)

    def _active(self) -> list[ActiveRequest]:
        """Requests in slots."""
        return [active for active in self._slots if active is not None]

    def _admitted(self) -> list[ActiveRequest]:
        return [*self._active(), *(active for active, _ in self._prefilled)]

    # Admission

    def _admit(self) -> None:
        """Prefills waiting requests, as many as the limits allow, and gives them slots."""
        if not self._waiting:
            return
        needs = [self._needs[active.row.index] for active in self._admitted()]
        while self._waiting:
            needs.append(self._needs[self._waiting[0]])
            if len(needs) > 1 and not self._limits.admit(needs, self._memory_model.peak_bytes):
                break
            self._prefilling = self._waiting.popleft()
            self._prefiller.schedule(self._waiting)
            self._check_ram(self._least_bytes(self._prefilling))
            active, row = self._prefiller.prefill(self._prefilling)
            self._append(active, row.token)
            if active.row.finish_reason is None:
                self._prefilled.append((active, row))
            else:
                needs.pop()
            self._prefilling = None
        self._assign_slots()

    def _assign_slots(self) -> None:
        """Free slots first, then new ones. Free slots beyond those are dropped: they would grow
        with the others."""
        free = [slot for slot, active in enumerate(self._slots) if active is None]
        if spare := set(free[len(self._prefilled) :]):
            self._keep([slot for slot in range(len(self._slots)) if slot not in spare])
        for slot, active in enumerate(self._slots):
            if active is None and self._prefilled:
                self._slots[slot], row = self._prefilled.pop(0)
                self._batch.replace(slot, row)
        if self._prefilled:
            self._batch.add([row for _, row in self._prefilled])
            self._slots += [active for active, _ in self._prefilled]
            self._prefilled = []

    def _least_bytes(self, index: int) -> int:
        """Bytes that a request takes however short its answer is."""
        return self._memory_model.peak_bytes([dataclasses.replace(self._needs[index], answer=1)])

    # Steps

    def _step(self) -> None:
        """A decode step or a verification of drafts."""
        self._compact()
        if not self._slots:
            return
        self._check_ram(self._batch.kv_cache.growth_bytes(1 + MAX_DRAFT_TOKENS))
        start = time.perf_counter()
        if self._batch.needs_host or self._drafts_on_host() or self._may_speculate(self._mtp):
            self._collect(drain=True)  # tokens in flight may change what comes next
        sources = (self._forced, self._lookup, self._mtp)
        if drafts := self._drafts():
            tokens_a_row = self._verify(drafts)
            if self._batch.steady:
                self._draft_source.record_verify(time.perf_counter() - start, tokens_a_row)
            for source in sources:
                if source is not self._draft_source:
                    source.record_skip()
        elif self._active():
            self._batch.launch()
            self._in_flight.append(list(self._slots))
            self._collect()
            if self._batch.steady:
                for source in sources:
                    source.record_decode(time.perf_counter() - start)

    def _collect(self, drain: bool = False) -> None:
        """Takes note of the tokens of steps that are over."""
        while (tokens := self._batch.collect(drain)) is not None:
            for active, token in zip(self._in_flight.popleft(), tokens, strict=True):
                self._extend(active, [token])

    def _verify(self, drafts: Drafts) -> float:
        """Gives the tokens that each row got, on average."""
        pairs = list(zip(self._slots, self._batch.verify(drafts), strict=True))
        for active, tokens in pairs:
            self._extend(active, tokens)
        counts = [len(tokens) for active, tokens in pairs if active]
        return sum(counts) / len(counts)

    def _drafts(self) -> Drafts:
        """What to verify now; nothing where that would not pay. Sets ``_draft_source``."""
        if drafts := self._drafts_on_host():
            return drafts
        if self._may_speculate(self._mtp):
            self._draft_source = self._mtp
            return self._batch.draft_by_mtp()
        return [[] for _ in self._slots] if self._batch.has_deferred else []

    def _drafts_on_host(self) -> Drafts:
        """Of tokens that a grammar forces, or else by prompt lookup."""
        for source, draft in (
            (self._forced, ActiveRequest.forced),
            (self._lookup, ActiveRequest.draft),
        ):
            if self._may_speculate(source):
                drafts = [draft(active) if active else [] for active in self._slots]
                if any(drafts):
                    self._draft_source = source
                    return drafts
        return []

    def _may_speculate(self, source: AdaptiveSpeculation) -> bool:
        """Whether drafts of ``source`` can be verified now, and pay as far as is known."""
        active = self._active()
        return (
            source.pays
            and 0 < len(active) <= _MAX_SPECULATIVE_ROWS
            and self._batch.can_verify
            and (source is not self._mtp or self._batch.has_mtp_draft)
            and all(can_verify(request.row) for request in active)
        )

    def _compact(self) -> None:
        """Drops free slots, which cost time, where they are many and no request waits."""
        free = sum(active is None for active in self._slots)
        if free > self._batch.policy.max_free * len(self._slots):
            self._keep([slot for slot, active in enumerate(self._slots) if active])

    def _keep(self, slots: list[int]) -> None:
        if not slots:
            self._reset()
            return
        self._batch.keep(slots)
        self._slots = [self._slots[slot] for slot in slots]

    def _reset(self) -> None:
        self._slots, self._prefilled = [], []
        self._in_flight.clear()
        self._batch.clear()

    # Tokens

    def _extend(self, active: ActiveRequest | None, tokens: Sequence[SampledToken]) -> None:
        for token in tokens:
            if active is not None and active.row.finish_reason is None:
                self._append(active, token)

    def _append(self, active: ActiveRequest, token: SampledToken) -> None:
        """Appends a token to a row; where that finishes it, its slot is free."""
        finished = self._take(active, token)
        slot = self._slots.index(active) if active in self._slots else None
        if slot is None:
            return
        if finished:
            if self._keeps_answer(active):
                self._keep_answer(slot, active)
            self._slots[slot] = None
            self._batch.free(slot)
            return
        self._batch.accept(slot, token.id)
        if active.row.thought_repeats and active.row.thinking:
            self._batch.close_thought(slot)

    @staticmethod
    def _keeps_answer(active: ActiveRequest) -> bool:
        """Whether the next turn of a conversation will begin with this answer as it stands. A
        thought drops out unless it is preserved, and so does what was cut off."""
        row, request = active.row, active.prompt.request
        stays = request.preserve_thinking or not row.thought_length
        return request.continues and stays and row.finish_reason in ("stop", "length")

    def _keep_answer(self, slot: int, active: ActiveRequest) -> None:
        """Caches a conversation up to its answer, unless memory does not suffice for a copy."""
        most = len(active.prompt.ids) + len(active.row.output_ids)
        try:
            self._prefiller.store_answer(active, self._batch.snapshot(slot, most))
        except Exception as error:
            if not self._is_out_of_memory(error):
                raise
            log.warning("An answer is not kept for the next turn: %s", error)

    # Preemption

    def _preempt_all(self) -> None:
        """After memory ran out: all admitted requests start again, half as many at once. One that
        was alone is shown smaller images, or given up."""
        count = self._concurrency
        preempted = sorted(active.row.index for active in self._admitted())
        if self._prefilling is not None:
            preempted.append(self._prefilling)
        self._prefilling = None
        self._reset()
        self._loaded.prefix_cache.clear()
        self._loaded.recover_memory()
        for index in preempted:
            self._observer.restart(index)
        if count > 1:
            self._lower_limits(preempted)
        else:
            preempted = [index for index in preempted if self._shrink(index)]
        self._waiting.extendleft(reversed(preempted))

    def _lower_limits(self, preempted: Sequence[int]) -> None:
        """Half as many at once as ``preempted``; and for as long as the model stays loaded, no more
        bytes than half of them would take."""
        rows = (len(preempted) + 1) // 2
        self._limits = dataclasses.replace(self._limits, rows=rows)
        nbytes = self._memory_model.peak_bytes([self._needs[index] for index in preempted[:rows]])
        learnt = self._loaded.batch_limits
        nbytes = nbytes if learnt.nbytes is None else min(nbytes, learnt.nbytes)
        self._loaded.batch_limits = dataclasses.replace(learnt, nbytes=nbytes)
