"""Batch: rows that decode together, one more token for each at every step, all on the device.

A decode step reads nothing back before it begins: its tokens go from one step into the next on the
device. So on CUDA the host can lag a step behind, taking note of tokens while the next ones are
computed, and a step can be captured in a CUDA graph and replayed from then on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..media.image_processor import pinned
from ..models.patches import mtp_head
from .cuda_graphs import CudaGraphs
from .model_runner import ModelRunner, Prefill
from .sampler import Sampled, Sampler
from .sequence import SampledToken
from .speculative.mtp import MTPDraft
from .speculative.verify import MAX_DRAFT_TOKENS, accepted_tokens


@dataclass(frozen=True)
class NewRow:
    """A row that is about to join: its ``prefill``, its sampler, its first ``token`` and the M-RoPE
    ``position`` of that. ``max_length``: tokens that it can grow to, prompt included.
    ``mtp_draft``: drafts by the model's MTP head, if it has one."""

    prefill: Prefill
    sampler: Sampler
    token: SampledToken
    position: float
    max_length: int
    mtp_draft: MTPDraft | None = None


@dataclass(frozen=True)
class StepPolicy:
    """How steps run on a device. ``lag``: steps that may be in flight while the host takes note of
    an earlier one. ``static``: slots have room in advance and attention widths change rarely, so
    that tensors stay where they are. ``max_free``: share of slots that may be free before the batch
    is compacted. ``graphs`` captures and replays steps."""

    lag: int = 0
    static: bool = False
    max_free: float = 0.25
    graphs: CudaGraphs | None = None


def step_policy(runner: ModelRunner) -> StepPolicy:
    """On one CUDA device the host stays out of the way; elsewhere it waits for every step."""
    if runner.device.type != "cuda" or runner.is_split:
        return StepPolicy()
    return StepPolicy(
        lag=1, static=True, max_free=0.5, graphs=CudaGraphs(runner.device, runner.model)
    )


class Batch:
    """Rows in the slots of a ``kv_cache``. Free slots take part in steps; their tokens mean
    nothing."""

    def __init__(self, runner: ModelRunner):
        self.policy = step_policy(runner)
        self.steady = True  # whether the last pass took as long as most will
        self._runner = runner
        self.clear()

    def clear(self) -> None:
        """Drops all rows and what is in flight."""
        self.kv_cache = self._runner.new_kv_cache(self.policy.static)
        self._sampler: Any = None
        self._logits: Any = None
        self._tokens = torch.empty(0, dtype=torch.long, device=self._runner.device)
        self._sampled = self._drafts = self._targets = self._tokens
        self._positions = self._tokens.to(self._runner.position_rule.dtype)
        self._logprobs = self._target_logprobs = torch.empty(0, device=self._runner.device)
        self._in_flight: deque[_HostCopy] = deque()
        self._deferred: list[int] = []
        self._mtp_draft: MTPDraft | None = None
        self._hidden = torch.empty(0)
        self._forget_graphs()

    def close(self) -> None:
        """No more steps. Graphs go now and not with an error's frames: other captures may use the
        same memory."""
        self._in_flight.clear()
        self._forget_graphs()

    def add(self, rows: Sequence[NewRow]) -> None:
        """Adds slots for ``rows``."""
        self._commit_deferred()
        self.kv_cache.add(
            [row.prefill.cache for row in rows],
            [row.prefill.length for row in rows],
            [row.max_length for row in rows],
        )
        first, *others = [row.sampler for row in rows]
        if self._sampler is None:
            self._sampler = first
        else:
            others = [first, *others]
        self._sampler.add(others)
        self._set_mtp_draft(rows[0])
        device = self._runner.device
        tokens = torch.tensor([row.token.id for row in rows], device=device)
        at = [row.position for row in rows]
        positions = torch.tensor(at, device=device, dtype=self._positions.dtype)
        self._set_inputs(torch.cat([self._tokens, tokens]), torch.cat([self._positions, positions]))

    def replace(self, slot: int, row: NewRow) -> None:
        """Gives a free slot to ``row``."""
        self._commit_deferred()
        prefill = row.prefill
        if self.kv_cache.replace(slot, prefill.cache, prefill.length, row.max_length):
            self._forget_graphs()
        self._sampler.replace(slot, row.sampler)
        self._set_mtp_draft(row)
        self._tokens[slot], self._positions[slot] = row.token.id, row.position

    def keep(self, slots: Sequence[int]) -> None:
        """Drops all slots but ``slots``, which then have this order."""
        self._commit_deferred()
        self.kv_cache.keep(slots)
        self._sampler.keep(slots)
        at = torch.tensor(slots, device=self._runner.device)
        self._set_inputs(self._tokens[at], self._positions[at])

    def free(self, slot: int) -> None:
        """The row of ``slot`` is finished."""
        if self.kv_cache.active == [slot]:
            self._deferred = []
        self.kv_cache.free(slot)

    def snapshot(self, slot: int, most: int) -> Prefill:
        """A copy of what is cached of the row of ``slot``, ``most`` tokens if that can be had."""
        self._commit_deferred()
        return Prefill(*self.kv_cache.snapshot(slot, most), self._logprobs.new_empty(0))

    def close_thought(self, slot: int) -> None:
        """The row of ``slot`` closes its thought with its next tokens."""
        self._sampler.close_thought(slot)

    def launch(self) -> None:
        """Starts the next decode step."""
        self._commit_deferred()
        if self.kv_cache.reserve():
            self._forget_graphs()
        self._run((self.kv_cache.width, self.has_mtp_draft), self._forward_step)
        steady = self.steady
        self._sampler.prepare()  # on a card, while the model runs
        self._run(self._sampler.graph_key, self._sample_step)
        self.steady &= steady
        self.kv_cache.advance()
        if self._mtp_draft:
            self._mtp_draft.append(self._hidden[:1].clone(), self._tokens.clone())
        logprobs = self._logprobs if self._sampler.any_logprobs else None
        self._in_flight.append(_HostCopy(Sampled(self._sampled, logprobs)))

    def collect(self, drain: bool = False) -> list[SampledToken] | None:
        """The tokens of the oldest step in flight, one a slot. None where nothing is in flight, or,
        unless ``drain``, no more than the policy's lag."""
        if len(self._in_flight) <= (0 if drain else self.policy.lag):
            return None
        return self._in_flight.popleft().tokens()

    @property
    def needs_host(self) -> bool:
        """Whether the next step depends on tokens that the host has taken note of."""
        return self._sampler is not None and self._sampler.needs_host

    def accept(self, slot: int, token: int) -> None:
        """The host has taken note of a token of ``slot``."""
        self._sampler.accept(slot, token)

    @property
    def can_verify(self) -> bool:
        """Whether drafts can be verified: the caches must be able to drop rejected tokens. States
        of linear attention only go back to before a verification, which is enough for one row."""
        return self.kv_cache.can_roll_back or len(self.kv_cache.active) == 1

    @property
    def has_deferred(self) -> bool:
        """Whether a row has accepted tokens that its states do not contain. They become the first
        tokens of its next verification, with or without drafts; any other way costs a pass."""
        return bool(self._deferred)

    @property
    def has_mtp_draft(self) -> bool:
        """Whether the model's MTP head drafts for the only row: one that was alone from its
        beginning."""
        return self._mtp_draft is not None

    def draft_by_mtp(self) -> list[list[int]]:
        """The MTP head's drafts, one list a slot. All earlier steps have been collected."""
        assert self._mtp_draft is not None
        return [self._mtp_draft.draft()]

    def verify(self, drafts: Sequence[Sequence[int]]) -> list[list[SampledToken]]:
        """One pass over each row's draft: the tokens that it gets by that, at least one. For rows
        whose drafts can be verified; all earlier steps have been collected."""
        room = MAX_DRAFT_TOKENS - len(self._deferred)
        drafts = [draft[:room] for draft in drafts]
        drafts = self._sampler.prepare_drafts(drafts, len(self._deferred))
        if not self.kv_cache.can_roll_back:
            return self._verify_single(drafts)
        # All of one length. A captured step has one shape, and a few more tokens cost it nothing.
        length = MAX_DRAFT_TOKENS if self.policy.graphs else max(map(len, drafts))
        padded = [[*draft, *[0] * (length - len(draft))] for draft in drafts]
        targets = self._forward(padded)
        accepted = [accepted_tokens(*pair) for pair in zip(drafts, targets, strict=True)]
        self._advance(accepted)
        return [self._sampled_tokens(slot, tokens) for slot, tokens in enumerate(accepted)]

    def _sampled_tokens(self, slot: int, tokens: list[int], start: int = 0) -> list[SampledToken]:
        """``tokens`` of the last verification, the first of which was the ``start``-th target,
        with their log-probabilities."""
        if not self._sampler.any_logprobs:
            return [SampledToken(token) for token in tokens]
        logprobs = self._target_logprobs[slot, start : start + len(tokens)].tolist()
        return [SampledToken(*pair) for pair in zip(tokens, logprobs, strict=True)]

    def _verify_single(self, drafts: Sequence[Sequence[int]]) -> list[list[SampledToken]]:
        """With states that cannot roll back. Where a draft token is rejected, they are restored to
        before the pass, and the row's accepted tokens are deferred: the next verification runs them
        again, before new drafts. So a rejection costs no pass of its own."""
        (slot,) = self.kv_cache.active
        deferred = self._deferred
        draft = list(drafts[slot])
        targets = self._forward(self._only(slot, [*deferred, *draft]))[slot]
        tokens = accepted_tokens(draft, targets[len(deferred) :])
        if self._mtp_draft:
            hidden = self._hidden[len(deferred) : len(deferred) + len(tokens)].clone()
            self._mtp_draft.append(hidden, torch.tensor(tokens, device=hidden.device).clamp(min=0))
        if len(tokens) > len(draft):
            self._deferred = []
            self._advance(self._only(slot, [*deferred, *tokens], [0]))
        else:
            self.kv_cache.restore_states()
            self._deferred = [*deferred, *tokens]
        sampled = self._sampled_tokens(slot, tokens, len(deferred))
        return [sampled if at == slot else [SampledToken(0)] for at in range(len(self.kv_cache))]

    def _commit_deferred(self) -> None:
        """Runs deferred tokens, before anything that is not a verification."""
        if self._deferred:
            (slot,) = self.kv_cache.active
            deferred, self._deferred = self._deferred, []
            self._forward(self._only(slot, deferred[:-1]))
            self._advance(self._only(slot, deferred, [0]))

    def _only(
        self, slot: int, tokens: list[int], others: list[int] | None = None
    ) -> list[list[int]]:
        """``tokens`` for ``slot``, ``others`` (else as many zeros) for the free ones."""
        others = [0] * len(tokens) if others is None else others
        return [tokens if at == slot else others for at in range(len(self.kv_cache))]

    def _forward(self, drafts: list[list[int]]) -> list[list[int]]:
        """The model's greedy token behind each row's last token and behind each of its ``drafts``,
        equally many a row."""
        rows, self._draft_length = len(drafts), len(drafts[0])
        if len(self._drafts) != rows:
            self._drafts = self._tokens.new_empty(rows, MAX_DRAFT_TOKENS)
            self._targets = self._tokens.new_empty(rows, 1 + MAX_DRAFT_TOKENS)
            self._target_logprobs = self._logprobs.new_empty(self._targets.shape)
        self._drafts[:, : self._draft_length] = torch.tensor(drafts, dtype=torch.long)
        if self.kv_cache.reserve(1 + self._draft_length):
            self._forget_graphs()
        shape = self.kv_cache.width, self.has_mtp_draft, self._draft_length
        key = ("verify", *shape, self._sampler.verify_key)
        self._run(key, self._verify_step)
        return self._targets[:, : 1 + self._draft_length].tolist()

    def _advance(self, accepted: Sequence[Sequence[int]]) -> None:
        counts = [len(tokens) for tokens in accepted]
        self.kv_cache.advance_by(counts)
        self._positions.add_(torch.tensor(counts).to(self._positions.device))
        self._tokens.copy_(torch.tensor([max(tokens[-1], 0) for tokens in accepted]))

    def _forward_step(self) -> None:
        logits = self._runner.step(self.kv_cache, self._tokens[:, None], self._positions)[:, -1]
        self._take_hidden(1)
        if self._logits is None or not self.policy.graphs:
            self._logits = logits
        else:  # a captured step leaves no tensor that it made
            self._logits.copy_(logits)

    def _sample_step(self) -> None:
        tokens, logprobs = self._sampler.sample(self._logits)
        self._sampled.copy_(tokens)
        if logprobs is not None:
            self._logprobs.copy_(logprobs)
        self._tokens.copy_(tokens.clamp(min=0))  # a row with NaN must not stop the others
        self._positions.add_(1)
        self.kv_cache.device_lengths.add_(1)

    def _verify_step(self) -> None:
        if not self.kv_cache.can_roll_back:
            self.kv_cache.save_states()
        tokens = torch.cat([self._tokens[:, None], self._drafts[:, : self._draft_length]], 1)
        logits = self._runner.step(self.kv_cache, tokens, self._positions)
        targets, logprobs = self._sampler.verify(logits)
        self._targets[:, : 1 + self._draft_length] = targets
        if logprobs is not None:
            self._target_logprobs[:, : 1 + self._draft_length] = logprobs
        self._take_hidden(1 + self._draft_length)

    def _run(self, key: Hashable, step: Callable[[], None]) -> None:
        if self.policy.graphs:
            self.steady = self.policy.graphs.run(key, step)
        else:
            step()

    def _set_inputs(self, tokens: Tensor, positions: Tensor) -> None:
        self._tokens, self._positions = tokens, positions
        self._sampled = tokens.clone()
        self._logits = None
        self._logprobs = self._logprobs.new_empty(len(tokens))
        self._forget_graphs()

    def _forget_graphs(self) -> None:
        """Tensors are no longer where steps were captured with them."""
        if self.policy.graphs:
            self.policy.graphs.forget()

    def _set_mtp_draft(self, row: NewRow) -> None:
        """The MTP head drafts for a row that is alone from its beginning."""
        self._mtp_draft = row.mtp_draft if len(self.kv_cache) == 1 else None
        if self._mtp_draft and not len(self._hidden):
            self._hidden = self._mtp_draft.new_hidden_states(1 + MAX_DRAFT_TOKENS)

    def _take_hidden(self, new: int) -> None:
        """The hidden states of the pass, for the MTP draft of the single row, if there is one."""
        if head := mtp_head.of(self._runner.model):
            states = head.pop_hidden_states()
            if self._mtp_draft:
                self._hidden[:new] = states[0]


class _HostCopy:
    """Sampled tokens on their way to the host."""

    def __init__(self, sampled: Sampled):
        self._event: Any = None
        self._parts: list[Any]
        if not sampled.tokens.is_cuda:
            self._parts = [None if part is None else part.clone() for part in sampled]
            return
        self._parts = [None if part is None else _host_copy(part) for part in sampled]
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(sampled.tokens.device))

    def tokens(self) -> list[SampledToken]:
        if self._event is not None:
            self._event.synchronize()
        tokens, logprobs = self._parts
        if logprobs is None:
            return [SampledToken(token) for token in tokens.tolist()]
        pairs = zip(tokens.tolist(), logprobs.tolist(), strict=True)
        return [SampledToken(*pair) for pair in pairs]


def _host_copy(tensor: Tensor) -> Tensor:
    """A copy of a CUDA ``tensor`` in pinned memory, under way."""
    copied = pinned(torch.empty_like(tensor, device="cpu"), tensor.device)
    return copied.copy_(tensor, non_blocking=True)
