"""What each request of a batch has said, and knowing when it is enough. No tensors here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ..types import THINKING_TOKENS, FinishReason, Sampling
from .repetition import Decode, loop_start

_LOOK_EVERY = 16  # tokens, for loops


@dataclass(eq=False)
class Row:
    """One request under way. ``prompt_ids``: its prompt without padding and without picture
    tokens, which ``repetition_penalty`` also looks at, as everywhere. ``thinking`` is whether
    the row is inside a thought, as the end of a prompt can be; ``close_ids`` end one.
    ``decode``: as for ``loop_start``. ``circling``: the thought repeats itself, and whoever
    chooses should end it."""

    index: int
    sampling: Sampling
    prompt_ids: Sequence[int]
    eos_ids: frozenset[int]
    think_end_ids: tuple[int, ...] = ()
    thinking: bool = False
    decode: Decode | None = None
    ids: list[int] = field(default_factory=list)
    thought: int = 0
    circling: bool = False
    finish_reason: FinishReason | None = None

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
        )

    @property
    def longest(self) -> int:
        """The most tokens this row can take, thought and answer together."""
        thought = self.thinking_limit + len(self.think_end_ids) if self.thinking else 0
        return thought + self.sampling.max_new_tokens

    @property
    def left(self) -> int:
        """Tokens that its answer can still get."""
        return self.sampling.max_new_tokens - (len(self.ids) - self.thought)

    def accept(self, token: int) -> None:
        """Takes ``token`` as written and decides whether the row is finished."""
        if token in self.eos_ids:
            self.finish_reason = "stop"
            return
        self.ids.append(token)
        if self.thinking:
            self.thought += 1
            if self._ends_with(self.think_end_ids):
                self.thinking = False
        elif self.left <= 0:
            self.finish_reason = "length"
        if self.finish_reason is None and len(self.ids) % _LOOK_EVERY == 0:
            self._cut_loop()

    def _ends_with(self, tail: tuple[int, ...]) -> bool:
        return bool(tail) and tuple(self.ids[-len(tail) :]) == tail

    def _cut_loop(self) -> None:
        kept = loop_start(self.ids, self.decode)
        if kept is None:
            return
        if self.thinking:
            # A thought that turns in circles is ended; the answer may still be sound.
            self.circling = True
        else:
            del self.ids[max(kept, self.thought) :]
            self.finish_reason = "repetition"


class Detokenizer:
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
