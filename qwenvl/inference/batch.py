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

from ..media import image_processor
from ..models.patches import mtp_head
from .cuda_graphs import CudaGraphs
from .model_runner import ModelRunner, Prefill
from .sampler import Sampler
from .speculative.mtp import MTPDraft
from .speculative.verify import MAX_DRAFT_TOKENS, accepted_tokens


@dataclass(frozen=True)
class NewRow:
    """A row that is about to join: its prompt as read, how it chooses, its first token and where
    that stands for the rotary embedding. ``reach``: tokens that it can get to, prompt included.
    ``draft``: what the model's heads know of it, if it has any."""

    read: Prefill
    choices: Sampler
    token: int
    position: int
    reach: int
    draft: MTPDraft | None = None


@dataclass(frozen=True)
class StepPolicy:
    """How rounds go on a device. ``lag``: rounds that may be under way while the host takes note
    of an earlier one. ``fixed``: slots have room for their whole reach, and attention looks at a
    width that changes rarely, so that tensors stay where they are. ``idle``: share of slots that
    may stand empty before the others move together. ``captured`` runs a round."""

    lag: int = 0
    fixed: bool = False
    idle: float = 0.25
    captured: CudaGraphs | None = None


def step_policy(decoder: ModelRunner) -> StepPolicy:
    """On one CUDA device the host stays out of the way; elsewhere it waits for every round."""
    if decoder.device.type != "cuda" or decoder.is_split:
        return StepPolicy()
    return StepPolicy(
        lag=1, fixed=True, idle=0.5, captured=CudaGraphs(decoder.device, decoder.model)
    )


class Batch:
    """The rows of a batch on their way. Places of rows are those of ``slots``."""

    def __init__(self, decoder: ModelRunner):
        self.pace = step_policy(decoder)
        self.typical = True  # whether the last pass took as long as most will
        self._decoder = decoder
        self.clear()

    def clear(self) -> None:
        """No rows; what is under way is of no interest."""
        self.slots = self._decoder.slots(self.pace.fixed)
        self._choices: Any = None
        self._tokens = torch.empty(0, dtype=torch.long, device=self._decoder.device)
        self._positions = self._given = self._ahead = self._said = self._tokens
        self._under_way: deque[_Fetched] = deque()
        self._owed: list[int] = []
        self._draft: MTPDraft | None = None
        self._states = torch.empty(0)
        self._forget()

    def end(self) -> None:
        """There are no more rounds. What was captured goes now and not with an error's frames:
        other captures may use the same memory."""
        self._under_way.clear()
        self._forget()

    def add(self, starts: Sequence[NewRow]) -> None:
        """Adds rows below the others."""
        self._settle()
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
        self._follow(starts[0])
        device = self._decoder.device
        tokens = torch.tensor([start.token for start in starts], device=device)
        positions = torch.tensor([start.position for start in starts], device=device)
        self._move(torch.cat([self._tokens, tokens]), torch.cat([self._positions, positions]))

    def replace(self, place: int, start: NewRow) -> None:
        """Gives the place of a row that has left to another."""
        self._settle()
        if self.slots.replace(place, start.read.cache, start.read.length, start.reach):
            self._forget()
        self._choices.replace(place, start.choices)
        self._follow(start)
        self._tokens[place], self._positions[place] = start.token, start.position

    def keep(self, places: Sequence[int]) -> None:
        """Only the rows at ``places``, in this order."""
        self._settle()
        self.slots.keep(places)
        self._choices.keep(places)
        at = torch.tensor(places, device=self._decoder.device)
        self._move(self._tokens[at], self._positions[at])

    def leave(self, place: int) -> None:
        """The row there is finished; its slot stands empty."""
        if self.slots.open == [place]:
            self._owed = []
        self.slots.leave(place)

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
        self._settle()
        if self.slots.make_room():
            self._forget()
        self._choices.prepare()
        self._run((self.slots.width, self.foresees, *self._choices.kind), self._round)
        self.slots.advance()
        if self._draft:
            self._draft.note(self._states[:1].clone(), self._tokens.clone())
        self._under_way.append(_Fetched(self._given))

    def collect(self, all_of_them: bool = False) -> list[int] | None:
        """The tokens of the oldest round, one a place, -1 where the model's numbers were none;
        None while the host need not take note of it yet, or where nothing is under way."""
        if len(self._under_way) <= (0 if all_of_them else self.pace.lag):
            return None
        return self._under_way.popleft().tokens()

    @property
    def can_check(self) -> bool:
        """Whether guesses can be checked: it needs caches that can forget the wrong ones. States
        of linear attention only go back to before a check, which is enough for a single row."""
        return self.slots.can_forget or len(self.slots.open) == 1

    @property
    def owes(self) -> bool:
        """Whether a row has gained tokens that its states have not taken in. They are the first
        tokens of its next check, be there guesses or not; all other ways cost a pass."""
        return bool(self._owed)

    @property
    def foresees(self) -> bool:
        """Whether the model has heads that guess for the row there is: one that was alone from
        its beginning."""
        return self._draft is not None

    def foresee(self) -> list[list[int]]:
        """What the heads guess. All earlier rounds have been collected."""
        assert self._draft is not None
        return [self._draft.guess()]

    def check(self, guesses: Sequence[Sequence[int]]) -> list[list[int]]:
        """A round of several tokens: what each row gains by its guess, one token at least. For
        rows that take the likeliest token; all earlier rounds have been collected."""
        if not self.slots.can_forget:
            return self._check_single(guesses)
        # All of one length: a captured step has but one, and few tokens cost no more than some.
        said = self._pass([[*guess, *[0] * (MAX_DRAFT_TOKENS - len(guess))] for guess in guesses])
        gained = [accepted_tokens(guess, row) for guess, row in zip(guesses, said, strict=True)]
        self._advance(gained)
        return gained

    def _check_single(self, guesses: Sequence[Sequence[int]]) -> list[list[int]]:
        """Where states cannot forget. After a wrong guess they are as before the check, and the
        row owes them what it has gained: the next check passes that again, before new guesses. So
        a wrong guess costs no pass of its own."""
        (place,) = self.slots.open
        owed, guess = self._owed, list(guesses[place])[: MAX_DRAFT_TOKENS - len(self._owed)]
        said = self._pass(self._only(place, [*owed, *guess]))[place]
        tokens = accepted_tokens(guess, said[len(owed) :])
        if self._draft:
            states = self._states[len(owed) : len(owed) + len(tokens)].clone()
            self._draft.note(states, torch.tensor(tokens, device=states.device).clamp(min=0))
        if len(tokens) > len(guess):
            self._owed = []
            self._advance(self._only(place, [*owed, *tokens], [0]))
        else:
            self.slots.restore_states()
            self._owed = [*owed, *tokens]
        return self._only(place, tokens, [0])

    def _settle(self) -> None:
        """Pays what a row owes, for rounds that are no checks."""
        if self._owed:
            (place,) = self.slots.open
            owed, self._owed = self._owed, []
            self._pass(self._only(place, owed[:-1]))
            self._advance(self._only(place, owed, [0]))

    def _only(
        self, place: int, tokens: list[int], others: list[int] | None = None
    ) -> list[list[int]]:
        """``tokens`` for the row at ``place``, ``others`` (else as many zeros) for the rest."""
        others = [0] * len(tokens) if others is None else others
        return [tokens if at == place else others for at in range(len(self.slots))]

    def _pass(self, ahead: list[list[int]]) -> list[list[int]]:
        """What the model says behind each row's last token and behind each of ``ahead``, equally
        many a row."""
        rows, self._new = len(ahead), len(ahead[0])
        if len(self._ahead) != rows:
            self._ahead = self._tokens.new_empty(rows, MAX_DRAFT_TOKENS)
            self._said = self._tokens.new_empty(rows, 1 + MAX_DRAFT_TOKENS)
        self._ahead[:, : self._new] = torch.tensor(ahead, dtype=torch.long)
        if self.slots.make_room(1 + self._new):
            self._forget()
        self._run(("check", self.slots.width, self.foresees, self._new), self._check)
        return self._said[:, : 1 + self._new].tolist()

    def _advance(self, gained: Sequence[Sequence[int]]) -> None:
        counts = [len(tokens) for tokens in gained]
        self.slots.advance_by(counts)
        self._positions.add_(torch.tensor(counts).to(self._positions.device))
        self._tokens.copy_(torch.tensor([max(tokens[-1], 0) for tokens in gained]))

    def _check(self) -> None:
        if not self.slots.can_forget:
            self.slots.keep_states()
        tokens = torch.cat([self._tokens[:, None], self._ahead[:, : self._new]], 1)
        logits = self._decoder.step(self.slots, tokens, self._positions)
        self._said[:, : 1 + self._new] = self._choices.likeliest(logits)
        self._take_states(1 + self._new)

    def _follow(self, start: NewRow) -> None:
        """A row that is alone from its beginning can be guessed for by the model's heads."""
        self._draft = start.draft if len(self.slots) == 1 else None
        if self._draft and not len(self._states):
            self._states = self._draft.states(1 + MAX_DRAFT_TOKENS)

    def _take_states(self, new: int) -> None:
        """What heads heard, for the draft of the single row, if there is one."""
        if listening := mtp_head.of(self._decoder.model):
            states = listening.pop_hidden_states()
            if self._draft:
                self._states[:new] = states[0]

    def _run(self, key: Hashable, step: Callable[[], None]) -> None:
        if self.pace.captured:
            self.typical = self.pace.captured.run(key, step)
        else:
            step()

    def _round(self) -> None:
        logits = self._decoder.step(self.slots, self._tokens[:, None], self._positions)
        self._take_states(1)
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
        self._tokens = image_processor.pinned(torch.empty_like(tokens, device="cpu"), tokens.device)
        self._tokens.copy_(tokens, non_blocking=True)
        self._event = torch.cuda.Event()
        self._event.record(torch.cuda.current_stream(tokens.device))

    def tokens(self) -> list[int]:
        if self._event is not None:
            self._event.synchronize()
        return self._tokens.tolist()
