"""Sampler: the next tokens of all rows of a batch at once, without leaving the device.

What a row needs for that (sampling parameters, penalties, random numbers, thinking state) lies in
tensors with a line for each row. A row's token depends on its own line alone, so equal seeds give
equal text in a batch and alone. Pure torch; no step waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import NumericalError
from .sequence import Row

BUFFERED_NUMBERS = 256
"""Random numbers that are generated at once for a row."""

_OFF = 2.0  # as top_p: sums that round up to 1 must not cut off the least likely token


class Sampler:
    """Sampling state of ``rows``, on ``device``, for ``vocabulary`` tokens. All rows are of one
    model: they end and close thoughts with the same tokens."""

    def __init__(self, rows: Sequence[Row], device: torch.device, vocabulary: int):
        self.rows = list(rows)
        self._device, self._vocabulary = device, vocabulary
        self._generators = [torch.Generator() for _ in rows]
        self._used_numbers = [0 for _ in rows]
        for generator, row in zip(self._generators, rows, strict=True):
            # On the CPU whatever the device: the same seed then means the same text.
            generator.manual_seed(row.sampling.seed % 2**63)
        given = [row.sampling for row in rows]
        self._state = {
            "greedy": self._tensor([s.temperature == 0 for s in given]),
            "temperature": self._tensor([float(s.temperature) or 1.0 for s in given]),
            "top_k": self._tensor([s.top_k or vocabulary for s in given]),
            "top_p": self._tensor([float(s.top_p) if s.top_p < 1 else _OFF for s in given]),
            "min_p": self._tensor([float(s.min_p) for s in given]),
            "presence": self._tensor([float(s.presence_penalty) for s in given]),
            "repetition": self._tensor([float(s.repetition_penalty) for s in given]),
            "uniform": torch.zeros(len(rows), BUFFERED_NUMBERS, device=device),
            "uniform_index": self._tensor([0 for _ in rows]),
            "thinking": self._tensor([row.thinking for row in rows]),
            "thinking_left": self._tensor(
                [row.thinking_limit - row.thought_length for row in rows]
            ),
            "closing": self._tensor([-1 for _ in rows]),  # index into think_end_ids, -1: not yet
            "closed": self._tensor([0 for _ in rows]),  # of think_end_ids, so many stand at the end
        }
        if any(_has_penalties(row) for row in rows):
            self._state |= self._token_masks()
        self._think_end_ids = self._tensor(list(rows[0].think_end_ids) or [-1])
        self._eos_ids = self._tensor(sorted(rows[0].eos_ids) or [-1])
        self._set_stages()

    def _tensor(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self._device)

    def _token_masks(self) -> dict[str, Tensor]:
        """Bool ``[rows, V]``: tokens that each row ``generated``, and those ``present`` in its
        prompt or output."""
        shape = (len(self.rows), self._vocabulary)
        masks = {name: torch.zeros(shape, dtype=torch.bool) for name in ("generated", "present")}
        for index, row in enumerate(self.rows):
            masks["generated"][index, row.output_ids] = True
            masks["present"][index, [*row.prompt_ids, *row.output_ids]] = True
        return {name: mask.to(self._device) for name, mask in masks.items()}

    def _set_stages(self) -> None:
        """Which stages of sampling any row needs; the others cost nothing."""
        given = [row.sampling for row in self.rows]
        self._any_random = any(s.temperature for s in given)
        self._max_top_k = min(max(s.top_k or self._vocabulary for s in given), self._vocabulary)
        self._any_thinking = any(row.thinking for row in self.rows)

    @property
    def graph_key(self) -> tuple[bool, int, bool, bool]:
        """Equal where ``sample`` runs the same operations, so that one CUDA graph serves."""
        top_k = self._max_top_k if self._any_random else 0
        return self._any_random, top_k, self._any_thinking, "generated" in self._state

    def add(self, others: Sequence[Sampler]) -> None:
        """Appends the rows of ``others``."""
        parts = [self, *others]
        if any("generated" in part._state for part in parts):
            for part in parts:
                if "generated" not in part._state:
                    part._state |= part._token_masks()
        for name in self._state:
            self._state[name] = torch.cat([part._state[name] for part in parts])
        self.rows = [row for part in parts for row in part.rows]
        self._generators = [generator for part in parts for generator in part._generators]
        self._used_numbers = [used for part in parts for used in part._used_numbers]
        self._set_stages()

    def replace(self, slot: int, other: Sampler) -> None:
        """Puts the one row of ``other`` in place of a finished one."""
        if "generated" in other._state and "generated" not in self._state:
            self._state |= self._token_masks()
        if "generated" in self._state and "generated" not in other._state:
            other._state |= other._token_masks()
        for name, held in self._state.items():
            held[slot] = other._state[name][0]
        self.rows[slot], self._generators[slot] = other.rows[0], other._generators[0]
        self._used_numbers[slot] = other._used_numbers[0]
        self._set_stages()

    def keep(self, slots: Sequence[int]) -> None:
        """Drops all rows but those at ``slots``, which then have this order."""
        for name, held in self._state.items():
            self._state[name] = held[self._tensor(slots)]
        self.rows = [self.rows[slot] for slot in slots]
        self._generators = [self._generators[slot] for slot in slots]
        self._used_numbers = [self._used_numbers[slot] for slot in slots]
        self._set_stages()

    def close_thought(self, slot: int) -> None:
        """The row there closes its thought with its next tokens."""
        self._state["thinking_left"][slot] = 0

    def prepare(self) -> None:
        """Before each ``sample``: random numbers for rows that have used up theirs."""
        for slot, row in enumerate(self.rows):
            if not row.sampling.temperature:
                continue
            if self._used_numbers[slot] % BUFFERED_NUMBERS == 0:
                generator = self._generators[slot]
                numbers = torch.rand(BUFFERED_NUMBERS, generator=generator, dtype=torch.float64)
                self._state["uniform"][slot] = numbers.float().to(self._device)
            self._used_numbers[slot] += 1

    def sample(self, logits: Tensor) -> Tensor:
        """The next tokens ``[rows]`` for ``logits`` ``[rows, V]``; -1 for a row whose logits are
        NaN or infinite. Counts them as generated. Changes tensors in place only, and reads none
        back to the host."""
        scores = logits.float()
        best, tokens = scores.max(-1)
        finite = torch.isfinite(best)
        if "generated" in self._state:
            scores = self._apply_penalties(scores)
            tokens = scores.argmax(-1)
        if self._any_random:
            tokens = torch.where(self._state["greedy"], tokens, self._draw(scores))
        if self._any_thinking:
            tokens = self._close_thoughts(tokens)
        if "generated" in self._state:
            for name in ("generated", "present"):
                self._state[name].scatter_(1, tokens[:, None], True)
        return torch.where(finite, tokens, -1)

    @staticmethod
    def greedy(logits: Tensor) -> Tensor:
        """``[rows, new]`` for ``logits`` ``[rows, new, V]``: what ``sample`` gives for greedy rows,
        behind several tokens at once."""
        best, tokens = logits.float().max(-1)
        return torch.where(torch.isfinite(best), tokens, -1)

    def _apply_penalties(self, scores: Tensor) -> Tensor:
        state = self._state
        scores = scores - state["generated"] * state["presence"][:, None]
        # Keskar et al. 2019, as in transformers: positive scores are divided and negative ones
        # multiplied, so that the penalty always makes a token less likely.
        penalty = state["repetition"][:, None]
        penalised = torch.where(scores > 0, scores / penalty, scores * penalty)
        return torch.where(state["present"], penalised, scores)

    def _draw(self, scores: Tensor) -> Tensor:
        """Temperature, top-k, top-p and min-p, then one draw a row."""
        state = self._state
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

    def _close_thoughts(self, tokens: Tensor) -> Tensor:
        """Replaces ``tokens`` by those that close a thought, where it has reached its limit or
        where the model would end inside it, before any answer."""
        state = self._state
        thinking, closing = state["thinking"], state["closing"]
        ends = torch.isin(tokens, self._eos_ids) | (state["thinking_left"] <= 0)
        closing.copy_(torch.where(thinking & (closing < 0) & ends, 0, closing))
        tokens = torch.where(closing >= 0, self._think_end_ids[closing.clamp(min=0)], tokens)
        closing.add_((closing >= 0).long())
        state["thinking_left"].sub_(thinking.long())
        # How much of the closing tokens stands at the end, the model's own included.
        goes_on = tokens == self._think_end_ids[state["closed"]]
        begins = tokens == self._think_end_ids[0]
        state["closed"].copy_(torch.where(goes_on, state["closed"] + 1, begins.long()))
        finished = state["closed"] == len(self._think_end_ids)
        thinking.logical_and_(~finished)
        closing.masked_fill_(finished, -1)
        state["closed"].masked_fill_(finished, 0)
        return tokens


def _has_penalties(row: Row) -> bool:
    return bool(row.sampling.presence_penalty) or row.sampling.repetition_penalty != 1


def check_finite(tokens: Sequence[int]) -> None:
    """Raises ``NumericalError`` where ``Sampler.sample`` marked logits as NaN or infinite."""
    if -1 in tokens:
        raise NumericalError(
            "The model computed NaN or infinity instead of an answer. In fp16 these models can "
            "overflow: set precision to bf16, or fp32 where the card has no bf16."
        )
