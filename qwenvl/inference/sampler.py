"""How the rows of a batch choose their next tokens: all at once, and without leaving the device.

What a row needs for that (sampling, penalties, random numbers, the state of its thought) lies in
tensors with a line for each row. A row's choice depends on its own line alone, so equal seeds
give equal text in company and alone. Pure torch; no step waits for the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import NumericalError
from .sequence import Row

DRAWS = 256
"""Random numbers that are made ahead for a row."""

_ALL = 2.0  # as top_p: sums that round up to 1 must not cut what is least likely


class Sampler:
    """The state of choosing for ``rows``, on ``device``, among ``vocabulary`` tokens. Rows of one
    model: they end and close thoughts with the same tokens."""

    def __init__(self, rows: Sequence[Row], device: torch.device, vocabulary: int):
        self.rows = list(rows)
        self._device, self._vocabulary = device, vocabulary
        self._ahead = [torch.Generator() for _ in rows]
        self._used = [0 for _ in rows]
        for generator, row in zip(self._ahead, rows, strict=True):
            # On the CPU whatever the device: the same seed then means the same text.
            generator.manual_seed(row.sampling.seed % 2**63)
        given = [row.sampling for row in rows]
        self._state = {
            "greedy": self._tensor([s.temperature == 0 for s in given]),
            "temperature": self._tensor([float(s.temperature) or 1.0 for s in given]),
            "top_k": self._tensor([s.top_k or vocabulary for s in given]),
            "top_p": self._tensor([float(s.top_p) if s.top_p < 1 else _ALL for s in given]),
            "min_p": self._tensor([float(s.min_p) for s in given]),
            "presence": self._tensor([float(s.presence_penalty) for s in given]),
            "repetition": self._tensor([float(s.repetition_penalty) for s in given]),
            "uniform": torch.zeros(len(rows), DRAWS, device=device),
            "drawn": self._tensor([0 for _ in rows]),
            "thinking": self._tensor([row.thinking for row in rows]),
            "left": self._tensor([row.thinking_limit - row.thought for row in rows]),
            "closing": self._tensor([-1 for _ in rows]),
            "matched": self._tensor([0 for _ in rows]),
        }
        if any(_penalised(row) for row in rows):
            self._state |= self._marks()
        self._close_ids = self._tensor(list(rows[0].think_end_ids) or [-1])
        self._eos_ids = self._tensor(sorted(rows[0].eos_ids) or [-1])
        self._look()

    def _tensor(self, values: Sequence[float]) -> Tensor:
        return torch.tensor(values, device=self._device)

    def _marks(self) -> dict[str, Tensor]:
        """Bool ``[rows, V]``: what each row wrote, and what it wrote or read."""
        shape = (len(self.rows), self._vocabulary)
        marks = {name: torch.zeros(shape, dtype=torch.bool) for name in ("written", "seen")}
        for place, row in enumerate(self.rows):
            marks["written"][place, row.ids] = True
            marks["seen"][place, [*row.prompt_ids, *row.ids]] = True
        return {name: mark.to(self._device) for name, mark in marks.items()}

    def _look(self) -> None:
        """Which parts of choosing any row needs; the others cost nothing."""
        given = [row.sampling for row in self.rows]
        self._draws = any(s.temperature for s in given)
        self._widest = min(max(s.top_k or self._vocabulary for s in given), self._vocabulary)
        self._thinks = any(row.thinking for row in self.rows)

    @property
    def kind(self) -> tuple[bool, int, bool, bool]:
        """Equal where ``choose`` takes the same steps."""
        widest = self._widest if self._draws else 0
        return self._draws, widest, self._thinks, "written" in self._state

    def add(self, others: Sequence[Sampler]) -> None:
        """Adds their rows below these."""
        parts = [self, *others]
        if any("written" in part._state for part in parts):
            for part in parts:
                if "written" not in part._state:
                    part._state |= part._marks()
        for name in self._state:
            self._state[name] = torch.cat([part._state[name] for part in parts])
        self.rows = [row for part in parts for row in part.rows]
        self._ahead = [generator for part in parts for generator in part._ahead]
        self._used = [used for part in parts for used in part._used]
        self._look()

    def replace(self, place: int, other: Sampler) -> None:
        """Gives the place of a row that has left to the one of ``other``."""
        if "written" in other._state and "written" not in self._state:
            self._state |= self._marks()
        if "written" in self._state and "written" not in other._state:
            other._state |= other._marks()
        for name, held in self._state.items():
            held[place] = other._state[name][0]
        self.rows[place], self._ahead[place] = other.rows[0], other._ahead[0]
        self._used[place] = other._used[0]
        self._look()

    def keep(self, places: Sequence[int]) -> None:
        """Only the rows at ``places``, in this order."""
        for name, held in self._state.items():
            self._state[name] = held[self._tensor(places)]
        self.rows = [self.rows[place] for place in places]
        self._ahead = [self._ahead[place] for place in places]
        self._used = [self._used[place] for place in places]
        self._look()

    def end_thought(self, place: int) -> None:
        """The row there shall close its thought with its next tokens."""
        self._state["left"][place] = 0

    def prepare(self) -> None:
        """Before each ``choose``: random numbers for rows that have used up theirs."""
        for place, row in enumerate(self.rows):
            if not row.sampling.temperature:
                continue
            if self._used[place] % DRAWS == 0:
                fresh = torch.rand(DRAWS, generator=self._ahead[place], dtype=torch.float64)
                self._state["uniform"][place] = fresh.float().to(self._device)
            self._used[place] += 1

    def choose(self, logits: Tensor) -> Tensor:
        """The next tokens ``[rows]`` for ``logits`` ``[rows, V]``; -1 for a row whose numbers are
        NaN or infinite. Takes them as written. Changes tensors in place only, and reads none."""
        scores = logits.float()
        best, tokens = scores.max(-1)
        sound = torch.isfinite(best)
        if "written" in self._state:
            scores = self._penalise(scores)
            tokens = scores.argmax(-1)
        if self._draws:
            tokens = torch.where(self._state["greedy"], tokens, self._draw(scores))
        if self._thinks:
            tokens = self._closed(tokens)
        if "written" in self._state:
            for name in ("written", "seen"):
                self._state[name].scatter_(1, tokens[:, None], True)
        return torch.where(sound, tokens, -1)

    @staticmethod
    def likeliest(logits: Tensor) -> Tensor:
        """``[rows, new]`` for ``logits`` ``[rows, new, V]``: what ``choose`` gives for rows without
        sampling and penalties, at several places at once."""
        best, tokens = logits.float().max(-1)
        return torch.where(torch.isfinite(best), tokens, -1)

    def _penalise(self, scores: Tensor) -> Tensor:
        state = self._state
        scores = scores - state["written"] * state["presence"][:, None]
        # Keskar et al. 2019, as transformers has it: divide what is likely, multiply what is not,
        # so that the penalty always makes a token less likely.
        penalty = state["repetition"][:, None]
        weighed = torch.where(scores > 0, scores / penalty, scores * penalty)
        return torch.where(state["seen"], weighed, scores)

    def _draw(self, scores: Tensor) -> Tensor:
        state = self._state
        scores = scores / state["temperature"][:, None]
        if self._widest < self._vocabulary:
            scores, tokens = scores.topk(self._widest)
        else:
            scores, tokens = scores.sort(descending=True)
        rank = torch.arange(scores.shape[1], device=scores.device)
        scores = scores.masked_fill(rank >= state["top_k"][:, None], -torch.inf)
        chances = scores.softmax(-1)
        likelier = chances.cumsum(-1) - chances
        # The likeliest always stays.
        stays = (likelier < state["top_p"][:, None]) | (rank == 0)
        stays &= chances >= state["min_p"][:, None] * chances[:, :1]
        chances = chances * stays
        # One uniform number a token, whatever the number of candidates, walked down the sorted
        # list: tiny numeric differences between batches rarely move the choice.
        total = chances.cumsum(-1)
        uniform = state["uniform"].gather(1, state["drawn"][:, None] % DRAWS)
        state["drawn"] += 1
        place = torch.searchsorted(total, uniform * total[:, -1:], right=True)
        last = chances.count_nonzero(-1)[:, None] - 1
        return tokens.gather(1, torch.minimum(place, last))[:, 0]

    def _closed(self, tokens: Tensor) -> Tensor:
        """The tokens that close a thought instead, where it has used up its length or where the
        model would end inside it: it still owes the answer."""
        state = self._state
        thinking, closing = state["thinking"], state["closing"]
        ends = torch.isin(tokens, self._eos_ids) | (state["left"] <= 0)
        closing.copy_(torch.where(thinking & (closing < 0) & ends, 0, closing))
        tokens = torch.where(closing >= 0, self._close_ids[closing.clamp(min=0)], tokens)
        closing.add_((closing >= 0).long())
        state["left"].sub_(thinking.long())
        # How much of the closing tokens stands at the end, by whoever wrote them.
        goes_on = tokens == self._close_ids[state["matched"]]
        begins = tokens == self._close_ids[0]
        state["matched"].copy_(torch.where(goes_on, state["matched"] + 1, begins.long()))
        closed = state["matched"] == len(self._close_ids)
        thinking.logical_and_(~closed)
        closing.masked_fill_(closed, -1)
        state["matched"].masked_fill_(closed, 0)
        return tokens


def _penalised(row: Row) -> bool:
    return bool(row.sampling.presence_penalty) or row.sampling.repetition_penalty != 1


def checked(tokens: Sequence[int]) -> None:
    """Raises ``NumericalError`` where ``Sampler.choose`` found numbers that are none."""
    if -1 in tokens:
        raise NumericalError(
            "The model computed NaN or infinity instead of an answer. In fp16 these models can "
            "overflow: set precision to bf16, or fp32 where the card has no bf16."
        )
