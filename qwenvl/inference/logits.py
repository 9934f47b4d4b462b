"""Logits stages: what changes the scores of next tokens before one is chosen for each row.

A stage sees the scores of all rows of a batch at once and changes those of the rows that want it.
What it knows of a row lies in tensors on the device, with a line for each row, so that a step
never waits for the host. A stage that must look at tokens on the host says ``needs_host``: the
scheduler then takes note of every step before it starts the next one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..media.image_processor import pinned
from .constraints import Matcher
from .sequence import Row
from .speculative.verify import MAX_DRAFT_TOKENS

Drafts = Sequence[Sequence[int]]
"""For each slot the tokens that its row may continue with."""


class RowTensors:
    """Tensors with a line for each row of a batch, by their names. Each is changed in place only,
    but by ``add`` and ``keep``: a captured step goes on reading it."""

    def __init__(self, device: torch.device, **values: Any):
        self._device = device
        self.state = {name: self.tensor(value) for name, value in values.items()}

    def tensor(self, values: Any) -> Tensor:
        return torch.as_tensor(values, device=self._device)

    def add(self, others: Sequence[Any]) -> None:
        """Appends the rows of ``others``, of the same class."""
        for name in self.state:
            parts = [self.state[name], *(other.state[name] for other in others)]
            self.state[name] = torch.cat(parts)

    def replace(self, slot: int, other: Any) -> None:
        """Puts the one row of ``other`` in the place ``slot``."""
        for name, held in self.state.items():
            held[slot] = other.state[name][0]

    def keep(self, slots: Sequence[int]) -> None:
        """Drops all rows but those at ``slots``, which then have this order."""
        for name, held in self.state.items():
            self.state[name] = held[self.tensor(slots)]


class LogitsStage(RowTensors):
    """A logits stage for ``rows``, all of one model, and ``vocabulary`` tokens; rows that do not
    want it keep their scores.

    ``can_verify``: drafts can be verified behind it: it can be applied to several tokens of a row
    at once. ``needs_host``: ``prepare`` depends on the tokens that rows have by then.
    """

    can_verify = False
    needs_host = False

    def __init__(self, rows: Sequence[Row], device: torch.device, vocabulary: int):
        super().__init__(device)

    @classmethod
    def is_wanted(cls, row: Row) -> bool:
        """Whether ``row``, as it is now, needs this stage."""
        raise NotImplementedError

    def prepare(self) -> None:
        """On the host, before every step's tokens are chosen."""

    def prepare_drafts(self, drafts: Drafts, skip: int) -> Drafts:
        """On the host, before ``drafts`` are verified behind so many other tokens of their rows:
        what of them can be accepted at all. For stages that ``can_verify``."""
        return drafts

    def __call__(self, scores: Tensor) -> Tensor:
        """``scores`` float32 ``[rows, V]``, changed; in place where that is quicker. A stage that
        ``can_verify`` takes ``[rows, new, V]`` too, for ``new`` tokens of each row."""
        raise NotImplementedError

    def observe(self, tokens: Tensor) -> None:
        """On the device, after every step: the tokens ``[rows]`` that were chosen."""

    def accept(self, slot: int, token: int) -> None:
        """On the host, once it knows a token of the row in ``slot``."""


class TokenBans(LogitsStage):
    """Tokens that are never generated: those that stand for media in a prompt. Text has no use for
    them, and a conversation that held one would lack a picture for it."""

    can_verify = True

    def __init__(self, rows: Sequence[Row], device: torch.device, vocabulary: int):
        super().__init__(rows, device, vocabulary)
        self._banned = self.tensor(sorted(rows[0].banned_ids))

    @classmethod
    def is_wanted(cls, row: Row) -> bool:
        return bool(row.banned_ids)

    def __call__(self, scores: Tensor) -> Tensor:
        return scores.index_fill_(-1, self._banned, -torch.inf)


class Penalties(LogitsStage):
    """Presence penalty (OpenAI's) and repetition penalty (Keskar et al. 2019) of tokens that were
    generated before; the latter also of those in the prompt."""

    def __init__(self, rows: Sequence[Row], device: torch.device, vocabulary: int):
        super().__init__(rows, device, vocabulary)
        given = [row.sampling for row in rows]
        shape = (len(rows), vocabulary)
        masks = {name: torch.zeros(shape, dtype=torch.bool) for name in ("generated", "present")}
        for index, row in enumerate(rows):
            masks["generated"][index, row.output_ids] = True
            masks["present"][index, [*row.prompt_ids, *row.output_ids]] = True
        self.state = {name: mask.to(device) for name, mask in masks.items()}
        self.state["presence"] = self.tensor([float(s.presence_penalty) for s in given])
        self.state["repetition"] = self.tensor([float(s.repetition_penalty) for s in given])

    @classmethod
    def is_wanted(cls, row: Row) -> bool:
        return bool(row.sampling.presence_penalty) or row.sampling.repetition_penalty != 1

    def __call__(self, scores: Tensor) -> Tensor:
        state = self.state
        scores = scores - state["generated"] * state["presence"][:, None]
        # As in transformers: positive scores are divided and negative ones multiplied, so that the
        # penalty always makes a token less likely.
        penalty = state["repetition"][:, None]
        penalised = torch.where(scores > 0, scores / penalty, scores * penalty)
        return torch.where(state["present"], penalised, scores)

    def observe(self, tokens: Tensor) -> None:
        for name in ("generated", "present"):
            self.state[name].scatter_(1, tokens[:, None], True)


class ThoughtCloser(LogitsStage):
    """Closes a thought that has reached its limit, or that ``close`` was called for, with the
    tokens that end it. An end-of-text token inside a thought counts as its end, too: there would be
    no answer."""

    def __init__(self, rows: Sequence[Row], device: torch.device, vocabulary: int):
        super().__init__(rows, device, vocabulary)
        self._end_ids = self.tensor(list(rows[0].think_end_ids))
        self._eos_ids = self.tensor(sorted(rows[0].eos_ids))
        self._tokens = torch.arange(vocabulary, device=device)
        count = len(rows)
        self.state = {
            "thinking": self.tensor([row.thinking for row in rows]),
            "left": self.tensor([row.thinking_limit - row.thought_length for row in rows]),
            # Index into the end's tokens of the next one that is forced, -1: none.
            "closing": torch.full((count,), -1, device=device),
            # So many of the end's tokens stand at the end of the row.
            "closed": torch.zeros(count, dtype=torch.long, device=device),
            # Whether the model would have ended its text here.
            "ends": torch.zeros(count, dtype=torch.bool, device=device),
        }

    @classmethod
    def is_wanted(cls, row: Row) -> bool:
        return row.thinking and bool(row.think_end_ids)

    def close(self, slot: int) -> None:
        """The row in ``slot`` closes its thought with its next tokens."""
        self.state["left"][slot] = 0

    def __call__(self, scores: Tensor) -> Tensor:
        thinking, closing = self.state["thinking"], self.state["closing"]
        due = thinking & (closing < 0) & (self.state["left"] <= 0)
        closing.copy_(torch.where(due, 0, closing))
        scores = self._without_eos(scores, thinking & (closing < 0))
        forced = self._end_ids[closing.clamp(min=0)]
        others = (closing >= 0)[:, None] & (self._tokens != forced[:, None])
        return scores.masked_fill(others, -torch.inf)

    def _without_eos(self, scores: Tensor, rows: Tensor) -> Tensor:
        """In ``rows``, the likeliest end-of-text token's score goes to the thought's end."""
        if not len(self._eos_ids):
            return scores
        # Not ``scores[:, self._end_ids[0]]``: that would read the number back to the host.
        own, eos = scores[:, self._end_ids[:1]][:, 0], scores[:, self._eos_ids]
        best = eos.amax(-1)
        self.state["ends"].copy_(rows & (best > own))
        scores = scores.index_copy(1, self._eos_ids, eos.masked_fill(rows[:, None], -torch.inf))
        lifted = torch.where(self.state["ends"], best, own)
        return scores.index_copy(1, self._end_ids[:1], lifted[:, None])

    def observe(self, tokens: Tensor) -> None:
        thinking, closing, closed = (self.state[n] for n in ("thinking", "closing", "closed"))
        begins = tokens == self._end_ids[0]
        closing.copy_(torch.where(self.state["ends"] & begins, 0, closing))
        closing.add_((closing >= 0).long())
        self.state["left"].sub_(thinking.long())
        # How much of the end stands at the end of the row, whoever wrote it.
        goes_on = tokens == self._end_ids[closed]
        closed.copy_(torch.where(goes_on, closed + 1, begins.long()))
        finished = closed == len(self._end_ids)
        thinking.logical_and_(~finished)
        closing.masked_fill_(finished, -1)
        closed.masked_fill_(finished, 0)


class GrammarMask(LogitsStage):
    """Holds answers to their constraints: only tokens that a row's matcher allows can come next. A
    thought before the answer is free."""

    can_verify = True
    needs_host = True

    def __init__(self, rows: Sequence[Row], device: torch.device, vocabulary: int):
        super().__init__(rows, device, vocabulary)
        self._rows, self._vocabulary = list(rows), vocabulary
        self._bits = torch.arange(32, dtype=torch.int32, device=device)
        # For each row a bit for each token, behind its last token and behind each of a draft.
        words = -(-vocabulary // 32)
        for name, shape in (("next", (words,)), ("drafts", (MAX_DRAFT_TOKENS, words))):
            bits = torch.full((len(rows), *shape), -1, dtype=torch.int32, device=device)
            self.state[name] = bits
        self._on_host: dict[str, Tensor] = {}
        self._held: list[int] = []  # slots

    @classmethod
    def is_wanted(cls, row: Row) -> bool:
        return row.matcher is not None

    def add(self, others: Sequence[Any]) -> None:
        super().add(others)
        self._rows = [row for part in (self, *others) for row in part._rows]

    def replace(self, slot: int, other: Any) -> None:
        super().replace(slot, other)
        self._rows[slot] = other._rows[0]

    def keep(self, slots: Sequence[int]) -> None:
        super().keep(slots)
        self._rows = [self._rows[slot] for slot in slots]

    def prepare(self) -> None:
        masks = self._masks_on_host("next")
        for slot, matcher in self._matchers():
            matcher.fill(masks[slot])
        self._upload("next")

    def prepare_drafts(self, drafts: Drafts, skip: int) -> Drafts:
        behind_last, behind_draft = self._masks_on_host("next"), self._masks_on_host("drafts")
        possible = list(drafts)
        for slot, matcher in self._matchers():
            draft = possible[slot] = matcher.possible(drafts[slot])
            lines = [behind_last[slot], *behind_draft[slot]][skip:]
            matcher.fill(lines[0])
            matcher.fill_behind(draft, lines[1:])
        self._upload("next")
        self._upload("drafts")
        return possible

    def _matchers(self) -> Iterator[tuple[int, Matcher]]:
        """Slots whose next tokens are held to a grammar, with its matcher, which knows all tokens
        so far."""
        self._held = []
        for slot, row in enumerate(self._rows):
            if row.matcher is None or row.thinking or row.finish_reason is not None:
                continue
            row.matcher.follow(row.answer_ids, after_thought=row.thought_length > 0)
            self._held.append(slot)
            yield slot, row.matcher

    def _masks_on_host(self, name: str) -> Tensor:
        """Masks that forbid nothing yet, to be changed and then uploaded. Those before are on the
        device by now: the tokens chosen by them are known."""
        held = self.state[name]
        if held.device.type == "cpu":
            return held.fill_(-1)
        if name not in self._on_host or self._on_host[name].shape != held.shape:
            self._on_host[name] = pinned(torch.empty_like(held, device="cpu"), held.device)
        return self._on_host[name].fill_(-1)

    def _upload(self, name: str) -> None:
        held = self.state[name]
        if held.device.type != "cpu":
            held.copy_(self._on_host[name], non_blocking=held.is_cuda)

    def __call__(self, scores: Tensor) -> Tensor:
        allowed = self.state["next"]
        if scores.ndim == 3:
            drafts = self.state["drafts"][:, : scores.shape[1] - 1]
            allowed = torch.cat([allowed[:, None], drafts], 1)
        if scores.device.type == "cpu":
            return self._masked_where_needed(scores, allowed)
        return self._masked(scores, allowed)

    def _masked(self, scores: Tensor, allowed: Tensor) -> Tensor:
        bits = ((allowed[..., None] >> self._bits) & 1).bool().flatten(-2)
        return scores.masked_fill_(~bits[..., : self._vocabulary], -torch.inf)

    def _masked_where_needed(self, scores: Tensor, allowed: Tensor) -> Tensor:
        """On a processor, masks over a whole vocabulary take as long as a good part of the model.
        A greedy row whose likeliest token is allowed needs none."""
        likeliest = scores.argmax(-1, keepdim=True)
        word = allowed.gather(-1, likeliest // 32) >> (likeliest % 32).int()
        others = [range(size) for size in scores.shape[1:-1]]
        for place in itertools.product(self._held, *others):
            if word[place] & 1 and is_greedy(self._rows[place[0]]):
                continue
            forbidden = np.unpackbits((~allowed[place]).numpy().view(np.uint8), bitorder="little")
            bits = torch.from_numpy(forbidden[: self._vocabulary]).bool()
            scores[place].masked_fill_(bits, -torch.inf)
        return scores


STAGES: tuple[type[LogitsStage], ...] = (TokenBans, Penalties, ThoughtCloser, GrammarMask)
"""In the order in which they are applied, those that can verify before the others."""


def can_verify(row: Row) -> bool:
    """Whether drafts of the next tokens of ``row`` can be verified now. Not where its answer is
    free until it opens its JSON: a draft could go past that."""
    return is_greedy(row) and not (row.matcher is not None and row.matcher.is_waiting)


def is_greedy(row: Row) -> bool:
    """Whether the next tokens of ``row`` are the likeliest ones by the scores that stages which can
    verify leave."""
    changing = (stage for stage in STAGES if not stage.can_verify)
    return row.sampling.temperature == 0 and not any(stage.is_wanted(row) for stage in changing)
