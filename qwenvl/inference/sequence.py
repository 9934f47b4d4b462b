"""Sequence state: what one row of the batch has generated so far. No tensors here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..prompting.prompt import Prompt
from ..types import THINKING_TOKENS, FinishReason, Sampling
from .constraints import Matcher, matcher
from .repetition import Decode


class SampledToken(NamedTuple):
    """A token that was chosen for a row: its ``id``, -1 where the logits were NaN or infinite, and
    its log-probability, if the row asked for that."""

    id: int
    logprob: float | None = None


@dataclass(eq=False)
class Row:
    """One request's sequence. ``stopping.append_token`` changes it.

    ``prompt_ids``: the prompt without what stands for media, which ``repetition_penalty`` counts
    as well. ``thinking``: whether the row is inside a thought, as the end of a prompt can be;
    ``think_end_ids`` close one. ``banned_ids`` are never generated. ``logprobs``: whether
    log-probabilities are asked for. ``decode``: as for ``repetition.loop_start``. ``output_ids``:
    generated tokens, ``thought_length`` of them the thought; ``output_logprobs`` of each, None
    where they were not asked for. ``thought_repeats``: the thought is in a loop, and the sampler
    should close it. ``end_ids``: the end token that was generated behind them, if any. ``matcher``:
    of the constraint that the answer is held to, None without one.
    """

    index: int
    sampling: Sampling
    prompt_ids: Sequence[int]
    eos_ids: frozenset[int]
    think_end_ids: tuple[int, ...] = ()
    thinking: bool = False
    decode: Decode | None = None
    banned_ids: frozenset[int] = frozenset()
    logprobs: bool = False
    output_ids: list[int] = field(default_factory=list)
    output_logprobs: list[float | None] = field(default_factory=list)
    thought_length: int = 0
    thought_repeats: bool = False
    end_ids: tuple[int, ...] = ()
    finish_reason: FinishReason | None = None
    matcher: Matcher | None = None

    @property
    def thinking_limit(self) -> int:
        limit = self.sampling.max_thinking_tokens
        return THINKING_TOKENS if limit is None else limit

    @property
    def max_output(self) -> int:
        """The most tokens this row can generate, thought and answer together."""
        thought = self.thinking_limit + len(self.think_end_ids) if self.thinking else 0
        return thought + self.sampling.max_new_tokens

    @property
    def answer_ids(self) -> list[int]:
        """The generated tokens behind the thought."""
        return self.output_ids[self.thought_length :]

    @property
    def remaining(self) -> int:
        """Tokens until the answer's limit."""
        return self.sampling.max_new_tokens - (len(self.output_ids) - self.thought_length)


def new_row(prompt: Prompt, index: int) -> Row:
    """The row of request ``index``, with nothing generated."""
    template, constraint = prompt.chat_template, prompt.request.constraint
    return Row(
        index=index,
        sampling=prompt.sampling,
        prompt_ids=[token for token in prompt.ids if token not in template.token_ids.values()],
        eos_ids=template.eos_ids,
        think_end_ids=template.think_end_ids,
        thinking=prompt.thinking,
        decode=template.decode,
        banned_ids=template.media_token_ids,
        logprobs=prompt.request.logprobs,
        matcher=matcher(constraint, template, prompt.sampling.max_new_tokens)
        if constraint
        else None,
    )
