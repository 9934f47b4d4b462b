"""Choosing tokens for a batch of unlike requests, and knowing when each has said enough.

The whole state of a request lives in its own ``Row``: its sampling, its random generator, its
limits. So a row's answer does not depend on who shares the batch, and equal seeds give equal
text alone or in company. Pure torch; the model is somebody else's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .costs import Need
from .errors import BadOption, NumericalError
from .types import THINKING_TOKENS, FinishReason, Sampling

_LOOP_TOKENS = 128  # a tail this long ...
_LOOP_TURNS = 6  # ... made of this many equal turns is a loop: long tables have shorter ones
_LOOP_PERIOD = 256
_LOOP_EVERY = 8  # tokens between looks


def check_sampling(sampling: Sampling) -> None:
    """Raises ``BadOption`` for a value outside its range, naming the range."""
    ranges: tuple[tuple[str, float, float], ...] = (
        ("max_new_tokens", 1, 1_000_000),
        ("temperature", 0, 10),
        ("top_p", 0, 1),
        ("top_k", 0, 1_000_000),
        ("min_p", 0, 1),
        ("repetition_penalty", 0.01, 10),
        ("presence_penalty", -2, 2),
    )
    for name, low, high in ranges:
        value = getattr(sampling, name)
        if not low <= value <= high:
            raise BadOption(f"{name} is {value}; it may be {low:g} to {high:g}.")
    if sampling.max_thinking_tokens is not None and sampling.max_thinking_tokens < 0:
        raise BadOption(f"max_thinking_tokens is {sampling.max_thinking_tokens}; use 0 or more.")


@dataclass(eq=False)
class Row:
    """One request under way. ``prompt_ids``: its prompt without padding and without picture
    tokens, which ``repetition_penalty`` also looks at, as everywhere. ``thinking`` is whether
    the prompt ends inside a thought; ``close_ids`` end one."""

    index: int
    sampling: Sampling
    prompt_ids: Sequence[int]
    eos_ids: frozenset[int]
    close_ids: tuple[int, ...] = ()
    thinking: bool = False
    ids: list[int] = field(default_factory=list)
    thought: int = 0
    finish_reason: FinishReason | None = None
    _forced: list[int] = field(default_factory=list)
    _circling: bool = False
    _generator: torch.Generator | None = None
    _written: Tensor | None = None
    _seen: Tensor | None = None

    @property
    def thinking_limit(self) -> int:
        limit = self.sampling.max_thinking_tokens
        return THINKING_TOKENS if limit is None else limit

    @property
    def is_plain(self) -> bool:
        """Whether its next token is simply the likeliest."""
        sampling = self.sampling
        return (
            sampling.temperature == 0
            and not sampling.presence_penalty
            and sampling.repetition_penalty == 1
            and not self.thinking
            and not self._forced
        )

    @property
    def longest(self) -> int:
        """The most tokens this row can take, thought and answer together."""
        thought = self.thinking_limit + len(self.close_ids) if self.thinking else 0
        return thought + self.sampling.max_new_tokens

    def choose(self, logits: Tensor) -> int:
        """The next token for ``logits`` ``[V]``, float32, which may be changed in place."""
        if self._forced:
            return self._forced.pop(0)
        if self.thinking and (self._circling or self.thought >= self.thinking_limit):
            return self._close()
        self._penalise(logits)
        token = int(logits.argmax()) if self.sampling.temperature == 0 else self._draw(logits)
        # A model that ends inside its thought still owes the answer.
        return self._close() if self.thinking and token in self.eos_ids else token

    def _close(self) -> int:
        first, *self._forced = self.close_ids
        return first

    def _penalise(self, logits: Tensor) -> None:
        sampling = self.sampling
        if sampling.presence_penalty:
            if self._written is None:
                self._written = torch.zeros_like(logits)
                self._written[torch.tensor(self.ids, dtype=torch.long)] = 1
            logits.sub_(self._written, alpha=sampling.presence_penalty)
        if sampling.repetition_penalty != 1:
            if self._seen is None:
                self._seen = torch.zeros_like(logits, dtype=torch.bool)
                seen = [*self.prompt_ids, *self.ids]
                self._seen[torch.tensor(seen, dtype=torch.long)] = True
            # Keskar et al. 2019, as transformers has it: divide what is likely, multiply what
            # is not, so that the penalty always makes a token less likely.
            factor = torch.where(
                logits > 0, 1 / sampling.repetition_penalty, sampling.repetition_penalty
            )
            logits.copy_(torch.where(self._seen, logits * factor, logits))

    def _draw(self, logits: Tensor) -> int:
        sampling = self.sampling
        if self._generator is None:
            # On the CPU whatever the model's device: the same seed then means the same text.
            self._generator = torch.Generator().manual_seed(sampling.seed % 2**63)
        logits = logits / sampling.temperature
        if 0 < sampling.top_k < logits.numel():
            logits, tokens = logits.topk(sampling.top_k)
        else:
            logits, tokens = logits.sort(descending=True)
        # Only what is left leaves the device.
        probabilities, tokens = logits.softmax(-1).cpu(), tokens.cpu()
        if sampling.top_p < 1:
            before = probabilities.cumsum(-1) - probabilities
            keep = before < sampling.top_p
            keep[0] = True
            probabilities = probabilities * keep
        if sampling.min_p > 0:
            probabilities = probabilities * (probabilities >= sampling.min_p * probabilities[0])
        # One uniform number a token, whatever the number of candidates, walked down the sorted
        # list: tiny numeric differences between batches rarely move the choice.
        total = probabilities.cumsum(-1)
        mark = torch.rand((), generator=self._generator, dtype=torch.float64) * total[-1]
        place = int(torch.searchsorted(total.double(), mark, right=True))
        return int(tokens[min(place, int(probabilities.count_nonzero()) - 1)])

    def accept(self, token: int) -> None:
        """Takes ``token`` as written and decides whether the row is finished."""
        if token in self.eos_ids:
            self.finish_reason = "stop"
            return
        self.ids.append(token)
        if self._written is not None:
            self._written[token] = 1
        if self._seen is not None:
            self._seen[token] = True
        if self.thinking:
            self.thought += 1
            if self._ends_with(self.close_ids):
                self.thinking = False
        elif len(self.ids) - self.thought >= self.sampling.max_new_tokens:
            self.finish_reason = "length"
        if self.finish_reason is None and len(self.ids) % _LOOP_EVERY == 0:
            self._cut_loop()

    def _ends_with(self, tail: tuple[int, ...]) -> bool:
        return bool(tail) and tuple(self.ids[-len(tail) :]) == tail

    def _cut_loop(self) -> None:
        kept = loop_start(self.ids)
        if kept is None:
            return
        if self.thinking:
            # A thought that turns in circles is ended; the answer may still be sound.
            self._circling = True
        else:
            del self.ids[max(kept, self.thought) :]
            self.finish_reason = "repetition"


def loop_start(ids: Sequence[int]) -> int | None:
    """Where a loop at the end of ``ids`` should be cut so that one turn of it stays, or None.

    A loop is a tail of at least 128 tokens that repeats with a period of at most 256, at least
    six times over.
    """
    length = len(ids)
    for period in range(1, min(_LOOP_PERIOD, length // _LOOP_TURNS) + 1):
        needed = max(_LOOP_TOKENS, _LOOP_TURNS * period)
        if needed > length:
            continue
        place = length - 1
        stop = length - needed + period
        while place >= stop and ids[place] == ids[place - period]:
            place -= 1
        if place < stop:
            while place >= period and ids[place] == ids[place - period]:
                place -= 1
            return place + 1
    return None


class TextStream:
    """Turns a growing list of tokens into pieces of text, never half a character."""

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode = decode
        self._start = 0
        self._sent = 0

    def grow(self, ids: Sequence[int]) -> str:
        """The text that came since the last call; empty while a character is incomplete."""
        text = self._decode(ids[self._start :])
        if text.endswith("\ufffd"):
            return ""
        piece = text[self._sent :]
        self._sent = len(text)
        if text.endswith("\n"):
            # Start anew at a line's end, so that a long answer is not decoded again and again.
            self._start, self._sent = len(ids), 0
        return piece


def choose(rows: Sequence[Row], scores: Tensor) -> list[int]:
    """The next token of each row for ``scores`` ``[rows, V]``, which may be changed in place.
    Raises ``NumericalError``."""
    scores = scores.float()
    best = scores.max(-1)
    if not torch.isfinite(best.values).all():
        raise NumericalError(
            "The model computed NaN or infinity instead of an answer. In fp16 these models can "
            "overflow: set precision to bf16, or fp32 where the card has no bf16."
        )
    if all(row.is_plain for row in rows):
        return best.indices.tolist()
    return [row.choose(scores[place]) for place, row in enumerate(rows)]


@dataclass(frozen=True)
class Budget:
    """How much may run at once. ``tokens``: rows times the longest row's prompt and answer,
    which is what the KV cache can grow to. ``nbytes``: memory for all that a batch takes beside
    the weights (None: no bound)."""

    tokens: int = 32_768
    rows: int = 32
    nbytes: int | None = None

    def holds(self, needs: Sequence[Need], work: Callable[[Sequence[Need]], int]) -> bool:
        longest = max(need.prompt for need in needs) + max(need.answer for need in needs)
        return (
            len(needs) <= self.rows
            and len(needs) * longest <= self.tokens
            and (self.nbytes is None or work(needs) <= self.nbytes)
        )
