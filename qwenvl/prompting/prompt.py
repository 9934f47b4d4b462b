"""Requests made into tokens, and what answering them will take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..errors import BadOption
from ..inference.memory_model import TokenNeed
from ..inference.sequence import Row
from ..types import THINKING_TOKENS, Request, Sampling

if TYPE_CHECKING:
    from ..backends.local import LocalBackend

_LEAST_TOKENS = 64  # a picture is not shrunk below this many tokens for want of memory


# How a rotary embedding is stretched over more tokens than it was trained on: by its ``factor``.
_STRETCHED = ("yarn", "linear", "dynamic")


def context_length(config: Mapping[str, Any]) -> int | None:
    """Tokens that a model can have before it, prompt and answer together, by its ``config.json``;
    None where that does not say it."""
    config = config.get("thinker_config") or config
    text = {**config, **(config.get("text_config") or {})}
    longest = text.get("max_position_embeddings")
    if isinstance(longest, bool) or not isinstance(longest, int) or longest < 1:
        return None
    rope = text.get("rope_parameters") or text.get("rope_scaling")
    if not isinstance(rope, Mapping) or rope.get("rope_type", rope.get("type")) not in _STRETCHED:
        return longest
    factor, trained = rope.get("factor"), rope.get("original_max_position_embeddings") or longest
    if not isinstance(factor, (int, float)) or not isinstance(trained, int):
        return longest
    return max(longest, int(trained * factor))  # some configs count the stretching in


class Prompt:
    """A request made into tokens, its pictures still pictures. Raises ``BadImage`` for a picture
    that no model can be given, and ``BadOption`` for a prompt beyond the model's context."""

    def __init__(self, request: Request, backend: LocalBackend):
        self.request = request
        self.image_processor = backend.image_processor.bounded(
            request.min_pixels, request.max_pixels
        )
        self.image_tokens = [self.image_processor.tokens(image) for image in request.images]
        self.input_sizes = tuple(self.image_processor.input_size(i) for i in request.images)
        self.chat_template = backend.chat_template
        self.thinking = backend.thinks(request.thinking)
        self.ids = self.chat_template.encode(request, self.image_tokens)
        self.grids = [self.image_processor.grid(image) for image in request.images]
        self._backend = backend
        context = backend.context
        if context is not None and len(self.ids) >= context:
            raise BadOption(
                f"The prompt is {len(self.ids)} tokens long ({sum(self.image_tokens)} of them "
                f"pictures), but this model's context holds {context} with the answer. Shorten the "
                "prompt, or show fewer or smaller pictures (max_pixels in the Loader)."
            )

    @cached_property
    def need(self) -> TokenNeed:
        opening = self.opening
        words = len(self.ids) - opening if opening else 0
        return TokenNeed(len(self.ids), self.row(0).longest, sum(self.image_tokens), words)

    @cached_property
    def sampling(self) -> Sampling:
        """The request's, its limits such that the answer ends within the model's context."""
        asked, context = self.request.sampling, self._backend.context
        if context is None:
            return asked
        left = context - len(self.ids)
        thought = 0
        if self.thinking:
            left -= len(self.chat_template.think_end_ids)
            limit = asked.max_thinking_tokens
            thought = THINKING_TOKENS if limit is None else limit
            thought = min(thought, max(left - asked.max_new_tokens, left // 2, 0))
        answer = min(asked.max_new_tokens, max(1, left - thought))
        limits = {"max_new_tokens": answer}
        if self.thinking:
            limits["max_thinking_tokens"] = thought
        return dataclasses.replace(asked, **limits)

    @property
    def notes(self) -> tuple[str, ...]:
        """Of an answer that was cut at its limit, where that is not the one that was asked for."""
        limit = self.sampling.max_new_tokens
        if limit == self.request.sampling.max_new_tokens:
            return ()
        return (
            f"The reply was cut at {limit} tokens: with its prompt of {len(self.ids)} it fills "
            f"this model's context of {self._backend.context}. Shorten the prompt, or show smaller "
            "pictures.",
        )

    @property
    def nbytes(self) -> int:
        """Of its pictures."""
        return sum(image.nbytes for image in self.request.images)

    def shrunk(self) -> Prompt | None:
        """The same with half the pixels; None where the request does not allow that or there is
        little left to see."""
        if not self.request.may_shrink or max(self.image_tokens, default=0) < 2 * _LEAST_TOKENS:
            return None
        most = max(height * width for height, width in self.input_sizes) // 2
        least = self.request.min_pixels
        low = None if least is None else min(least, most)
        smaller = dataclasses.replace(self.request, min_pixels=low, max_pixels=most)
        return Prompt(smaller, self._backend)

    @property
    def opening(self) -> int:
        """Tokens up to the end of the last picture: what questions about it have in common."""
        image_id = self.chat_template.image_token_id
        places = [place for place, token in enumerate(self.ids) if token == image_id]
        return places[-1] + 2 if places else 0

    def row(self, index: int) -> Row:
        image_token_id = self.chat_template.image_token_id
        return Row(
            index=index,
            sampling=self.sampling,
            prompt_ids=[token for token in self.ids if token != image_token_id],
            eos_ids=self.chat_template.eos_ids,
            think_end_ids=self.chat_template.think_end_ids,
            thinking=self.thinking,
            decode=self.chat_template.decode,
        )
