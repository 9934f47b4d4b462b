"""Rows that decode together, round by round: one more token for each, all on the device.

A round reads nothing back before it begins: its tokens go from one round into the next on the
device. So on CUDA the host can be one round behind, taking note of tokens while the next ones are
computed, and a round can be captured once and launched as a whole from then on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .captured import Captured
from .choices import Choices
from .decoder import Decoder, Read
from .guessing import MOST, agreed


@dataclass(frozen=True)
class Start:
    """A row that is about to join: its prompt as read, how it chooses, its first token and where
    that stands for the rotary embedding. ``reach``: tokens that it can get to, prompt included."""

    read: Read
    choices: Choices
    token: int
    position: int
    reach: int


@dataclass(frozen=True)
class Pace:
    """How rounds go on a device. ``lag``: rounds that may be under way while the host takes note
    of an earlier one. ``fixed``: slots have room for their whole reach, and attention looks at a
    width that changes rarely, so that tensors stay where they are. ``idle``: share of slots that
    may stand empty before the others move together. ``captured`` runs a round."""

    lag: int = 0
    fixed: bool = False
    idle: float = 0.25
    captured: Captured | None = None


def pace_of(decoder: Decoder) -> Pace:
    """On one CUDA device the host stays out of the way; elsewhere it waits for every round."""
    if decoder.device.type != "cuda" or decoder.is_split:
        return Pace()
    return Pace(lag=1, fixed=True, idle=0.5, captured=Captured(decoder.device))


class Rounds:
    """The rows of a batch on their way. Places of rows are those of ``slots``."""

    def __init__(self, decoder: Decoder):
        self.pace = pace_of(decoder)
        self._decoder = decoder
        self.clear()

    def clear(self) -> None:
        """No rows; what is under way is of no interest."""
        self.slots = self._decoder.slots(self.pace.fixed)
        self._choices: Any = None
        self._tokens = torch.empty(0, dtype=torch.long, device=self._decoder.device)
        self._positions = self._given = self._ahead = self._said = self._tokens
        self._under_way: deque[_Fetched] = deque()
        self._forget()

    def add(self, starts: Sequence[Start]) -> None:
        """Adds rows below the others."""
        self.slots.add(
            [start.read.cache for start in starts],
            [start.read.length for start in starts],
            [start.reach for start in starts],
        )
        first, *others = [start.choices for start in starts]
        if self._choices is None:
            self._choices = first
        else:
            others = [first, *others]
        self._choices.add(others)
        device = self._decoder.device
        tokens = torch.tensor([start.token for start in starts], device=device)
        positions = torch.tensor([start.position for start in starts], device=device)
        self._move(torch.cat([self._tokens, tokens]), torch.cat([self._positions, positions]))

    def replace(self, place: int, start: Start) -> None:
        """Gives the place of a row that has left to another."""
        if self.slots.replace(place, start.read.cache, start.read.length, start.reach):
            self._forget()
        self._choices.replace(place, start.choices)
        self._tokens[place], self._positions[place] = start.token, start.position

    def keep(self, places: Sequence[int]) -> None:
        """Only the rows at ``places``, in this order."""
        self.slots.keep(places)
        self._choices.keep(places)
        at = torch.tensor(places, device=self._decoder.device)
        self._move(self._tokens[at], self._positions[at])

    def end_thought(self, place: int) -> None:
        """The row there shall close its thought."""
        self._choices.end_thought(place)

    def _move(self, tokens: Tensor, positions: Tensor) -> None:
        self._tokens, self._positions = tokens, positions
        self._given = tokens.clone()
        self._forget()

    def _forget(self) -> None:
        """Tensors are no longer where they were captured."""
        if self.pace.captured:
            self.pace.captured.forget()

    def launch(self) -> None:
        """Starts the next round."""
        if self.slots.make_room():
            self._forget()
        self._choices.prepare()
        self._run((self.slots.width, *self._choices.kind), self._round)
        self.slots.advance()
        self._under_way.append(_Fetched(self._given))

    def collect(self, all_of_them: bool = False) -> list[int] | None:
        """The tokens of the oldest round, one a place, -1 where the model's numbers were none;
        None while the host need not take note of it yet, or where nothing is under way."""
        if len(self._under_way) <= (0 if all_of_them else self.pace.lag):
            return None
        return self._under_way.popleft().tokens()

    @property
    def can_check(self) -> bool:
        """Whether guesses can be checked: it needs caches that can forget the wrong ones."""
        return self.slots.can_forget

    def check(self, guesses: Sequence[Sequence[int]]) -> list[list[int]]:
        """A round of several tokens: what each row gains by its guess, one token at least. For
        rows that take the likeliest token; all earlier rounds have been collected."""
        # All of one length: a captured step has but one, and few tokens cost no more than some.
        padded = torch.tensor([[*guess, *[0] * (MOST - len(guess))] for guess in guesses])
        if len(self._ahead) != len(guesses):
            self._ahead = torch.empty_like(padded, device=self._decoder.device)
            self._said = self._ahead.new_empty(len(guesses), 1 + MOST)
        self._ahead.copy_(padded)
        if self.slots.make_room(1 + MOST):
            self._forget()
        self._run(("check", self.slots.width), self._check)
        said = self._said.tolist()
        gained = [agreed(guess, row) for guess, row in zip(guesses, said, strict=True)]
        counts = [len(tokens) for tokens in gained]
        self.slots.advance_by(counts)
        self._positions.add_(torch.tensor(counts).to(self._positions.device))
        self._tokens.copy_(torch.tensor([max(tokens[-1], 0) for tokens in gained]))
        return gained

    def _check(self) -> None:
        tokens = torch.cat([self._tokens[:, None], self._ahead], 1)
        logits = self._decoder.step(self.slots, tokens, self._positions)
        self._said.copy_(self._choices.likeliest(logits))

    def _run(self, key: Hashable, step: Callable[[], None]) -> None:
        if self.pace.captured:
            self.pace.captured.run(key, step)
        else:
            step()

    def _round(self) -> None:
        logits = self._decoder.step(self.slots, self._tokens[:, None], self._positions)
        chosen = self._choices.choose(logits[:, -1])
        self._given.copy_(chosen)
        self._tokens.copy_(chosen.clamp(min=0))  # a row of bad numbers must not stop the others
        self._positions.add_(1)
        self.slots.places.add_(1)


class _Fetched:
    """Tokens on their way to the host."""

    def __init__(self, tokens: Tensor):
        self._event: Any = None
        if not tokens.is_cuda:
            self._tokens = tokens.clone()
            return
        self._tokens = torch.empty(tokens.shape, dtype=tokens.dtype, pin_memory=True)
        self._tokens.copy_(tokens, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(tokens.device))

    def tokens(self) -> list[int]:
        if self._event is not None:
            self._event.synchronize()
        return self._tokens.tolist()
