"""Sampler: the next tokens of all rows of a batch at once, without leaving the device.

What a row needs for that (sampling parameters, random numbers, the state of its logits stages) lies
in tensors with a line for each row. A row's token depends on its own line alone, so equal seeds
give equal text in a batch and alone. Pure torch; no step waits for the device.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import NumericalError
from .logits import STAGES, Drafts, LogitsStage, RowTensors, ThoughtCloser
from .sequence import Row

BUFFERED_NUMBERS = 256
"""Random numbers that are generated at once for a row."""

_OFF = 2.0  # as top_p: sums that round up to 1 must not cut off the least likely token


class Sampled(NamedTuple):
    """Chosen ``tokens``, -1 where logits were NaN or infinite, and their ``logprobs``, natural
    logarithms of the model's own probabilities; None where no row asked for them."""

    tokens: Tensor
    logprobs: Tensor | None


class Sampler(RowTensors):
    """Sampling state of ``rows``, on ``device``, for ``vocabulary`` tokens. All rows are of one
    model."""

    def __init__(self, rows: Sequence[Row], device: torch.device, vocabulary: int):
        self.rows = list(rows)
        self._vocabulary = vocabulary
        self._generators = [torch.Generator() for _ in rows]
        self._used_numbers = [0 for _ in rows]
        for generator, row in zip(self._generators, rows, strict=True):
            # On the CPU whatever the device: the same seed then means the same text.
            generator.manual_seed(row.sampling.seed % 2**63)
        given = [row.sampling for row in rows]
        super().__init__(
            device,
            greedy=[s.temperature == 0 for s in given],
            temperature=[float(s.temperature) or 1.0 for s in given],
            top_k=[s.top_k or vocabulary for s in given],
            top_p=[float(s.top_p) if s.top_p < 1 else _OFF for s in given],
            min_p=[float(s.min_p) for s in given],
            uniform=torch.zeros(len(rows), BUFFERED_NUMBERS),
            uniform_index=[0 for _ in rows],
        )
        self._stages: dict[type[LogitsStage], LogitsStage] = {}
        self._update()

    def _update(self) -> None:
        """What any row needs; the rest costs nothing. A stage stays once it was made: a captured
        step may go on reading its tensors."""
        given = [row.sampling for row in self.rows]
        self._any_random = any(s.temperature for s in given)
        self._max_top_k = min(max(s.top_k or self._vocabulary for s in given), self._vocabulary)
        self.any_logprobs = any(row.logprobs for row in self.rows)
        wanted = [stage for stage in STAGES if any(map(stage.is_wanted, self.rows))]
        self._active = [self._stage(stage) for stage in wanted]
        self._verifying = [stage for stage in self._active if stage.can_verify]
        self._stateful = [stage for stage in self._active if not stage.can_verify]

    def _stage(self, kind: type[LogitsStage]) -> LogitsStage:
        if kind not in self._stages:
            self._stages[kind] = kind(self.rows, self._device, self._vocabulary)
        return self._stages[kind]

    @property
    def needs_host(self) -> bool:
        """Whether a stage must know each token on the host before the next step."""
        return any(stage.needs_host for stage in self._active)

    @property
    def graph_key(self) -> Hashable:
        """Equal where ``sample`` runs the same operations, so that one CUDA graph serves."""
        top_k = self._max_top_k if self._any_random else 0
        stages = tuple(map(type, self._active))
        return self._any_random, top_k, stages, self.any_logprobs

    @property
    def verify_key(self) -> Hashable:
        """The same of ``verify``."""
        return self.any_logprobs, tuple(map(type, self._verifying))

    def add(self, others: Sequence[Sampler]) -> None:
        """Appends the rows of ``others``."""
        for kind in {kind for part in (self, *others) for kind in part._stages}:
            self._stage(kind).add([other._stage(kind) for other in others])
        super().add(others)
        self.rows = [row for part in (self, *others) for row in part.rows]
        self._generators += [generator for other in others for generator in other._generators]
        self._used_numbers += [used for other in others for used in other._used_numbers]
        self._update()

    def replace(self, slot: int, other: Sampler) -> None:
        """Puts the one row of ``other`` in place of a finished one."""
        for kind in {*self._stages, *other._stages}:
            self._stage(kind).replace(slot, other._stage(kind))
        super().replace(slot, other)
        self.rows[slot], self._generators[slot] = other.rows[0], other._generators[0]
        self._used_numbers[slot] = other._used_numbers[0]
        self._update()

    def keep(self, slots: Sequence[int]) -> None:
        """Drops all rows but those at ``slots``, which then have this order."""
        for stage in self._stages.values():
            stage.keep(slots)
        super().keep(slots)
        self.rows = [self.rows[slot] for slot in slots]
        self._generators = [self._generators[slot] for slot in slots]
        self._used_numbers = [self._used_numbers[slot] for slot in slots]
        self._update()

    def close_thought(self, slot: int) -> None:
        """The row there closes its thought with its next tokens."""
        stage = self._stages[ThoughtCloser]
        assert isinstance(stage, ThoughtCloser)
        stage.close(slot)

    def accept(self, slot: int, token: int) -> None:
        """The host knows a token of the row there."""
        for stage in self._active:
            stage.accept(slot, token)

    def prepare(self) -> None:
        """Before each ``sample``: random numbers for rows that have used up theirs."""
        for stage in self._active:
            stage.prepare()
        for slot, row in enumerate(self.rows):
            if not row.sampling.temperature:
                continue
            if self._used_numbers[slot] % BUFFERED_NUMBERS == 0:
                generator = self._generators[slot]
                numbers = torch.rand(BUFFERED_NUMBERS, generator=generator, dtype=torch.float64)
                self.state["uniform"][slot] = numbers.float().to(self._device)
            self._used_numbers[slot] += 1

    def prepare_drafts(self, drafts: Drafts, skip: int) -> Drafts:
        """Before each ``verify``: what of ``drafts``, behind so many other tokens of their rows,
        can be accepted at all."""
        for stage in self._verifying:
            drafts = stage.prepare_drafts(drafts, skip)
        return drafts

    def sample(self, logits: Tensor) -> Sampled:
        """The next token of each row for ``logits`` ``[rows, V]``. Counts them as generated.
        Changes tensors in place only, and reads none back to the host."""
        raw, scores = self._scores(logits)
        best, tokens = scores.max(-1)
        if self._stateful:
            for stage in self._stateful:
                scores = stage(scores)
            tokens = scores.argmax(-1)
        if self._any_random:
            tokens = torch.where(self.state["greedy"], tokens, self._draw(scores))
        for stage in self._stateful:
            stage.observe(tokens)
        return self._sampled(raw, best, tokens)

    def verify(self, logits: Tensor) -> Sampled:
        """``[rows, new]`` for ``logits`` ``[rows, new, V]``: what ``sample`` gives for rows whose
        drafts can be verified, behind several tokens at once."""
        raw, scores = self._scores(logits)
        best, tokens = scores.max(-1)
        return self._sampled(raw, best, tokens)

    def _scores(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The model's own scores, and what stages that can verify make of them."""
        raw = scores = logits.float()
        if self._active and (self.any_logprobs or raw is logits):
            scores = raw.clone()
        for stage in self._verifying:
            scores = stage(scores)
        return raw, scores

    def _sampled(self, raw: Tensor, best: Tensor, tokens: Tensor) -> Sampled:
        logprobs = None
        if self.any_logprobs:
            logprobs = raw.log_softmax(-1).gather(-1, tokens[..., None])[..., 0]
        return Sampled(torch.where(torch.isfinite(best), tokens, -1), logprobs)

    def _draw(self, scores: Tensor) -> Tensor:
        """Temperature, top-k, top-p and min-p, then one draw a row."""
        state = self.state
        scores = scores / state["temperature"][:, None]
        if self._max_top_k < self._vocabulary:
            scores, tokens = scores.topk(self._max_top_k)
        else:
            scores, tokens = scores.sort(descending=True)
        rank = torch.arange(scores.shape[1], device=scores.device)
        scores = scores.masked_fill(rank >= state["top_k"][:, None], -torch.inf)
        probabilities = scores.softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        # The likeliest always stays.
        stays = (before < state["top_p"][:, None]) | (rank == 0)
        stays &= probabilities >= state["min_p"][:, None] * probabilities[:, :1]
        probabilities = probabilities * stays
        # One uniform number a token, whatever the number of candidates, looked up in the sorted
        # cumulative sum: tiny numeric differences between batches rarely change the token.
        total = probabilities.cumsum(-1)
        uniform = state["uniform"].gather(1, state["uniform_index"][:, None] % BUFFERED_NUMBERS)
        state["uniform_index"] += 1
        index = torch.searchsorted(total, uniform * total[:, -1:], right=True)
        last = probabilities.count_nonzero(-1)[:, None] - 1
        return tokens.gather(1, torch.minimum(index, last))[:, 0]


def numerical_error() -> NumericalError:
    """The error of a row whose logits are NaN or infinite."""
    return NumericalError(
        "The model computed NaN or infinity instead of an answer. In fp16 these models can "
        "overflow: set precision to bf16, or fp32 where the card has no bf16."
    )
