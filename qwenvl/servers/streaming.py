"""Streaming: the chunks of a chat completion to the text as it comes, and to a response."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ServerError
from ..replies import split_thinking
from ..types import FinishReason, Response, Size, Usage
from .faults import Fault
from .logprobs import place_tokens

THINK_START, THINK_END = "<think>", "</think>"

_FINISHES: Mapping[str, FinishReason] = {"length": "length", "max_tokens": "length"}
"""How servers say why an answer ended; what is not here is ``stop``."""
_BROKEN = {"abort", "error"}

_CHECK_CHARACTERS = 256
_MOST_TOKENS = 1 << 31

_ENDS_THOUGHT = re.compile(r"</think>\s*(?:\n|$)")
"""As chat templates end one: nothing else is on the line."""

LoopStart = Callable[[str], "int | None"]
"""Where to cut a text that repeats itself at its end, so that the loop is kept once; None where it
does not repeat itself."""


@dataclass
class Reply:
    """An answer as it comes. ``thinks``: it is expected to begin inside a thought. ``apart``: this
    server is known to send thoughts apart from the text. ``loop_start``: looks for repetition."""

    thinks: bool
    apart: bool
    loop_start: LoopStart
    text: str = ""
    thought: str = ""
    finish: FinishReason | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    logprobs: list[Mapping[str, Any]] = field(default_factory=list)
    _checked: int = 0
    _cut: int | None = None

    def add(self, chunk: Mapping[str, Any]) -> str:
        """Adds a chunk. Returns the text in it for whoever watches, thoughts in their tags. Raises
        ``Fault`` for what is no answer."""
        if isinstance(usage := chunk.get("usage"), Mapping):
            self.usage = usage
        choices = chunk.get("choices")
        if not isinstance(choices, Sequence) or not choices:
            return ""
        choice = choices[0]
        if not isinstance(choice, Mapping):
            raise Fault("broken", "a choice is no object")
        found = choice.get("logprobs")
        if isinstance(found, Mapping) and isinstance(tokens := found.get("content"), list):
            self.logprobs += [token for token in tokens if isinstance(token, Mapping)]
        self._finish(choice.get("finish_reason"))
        delta = choice.get("delta")
        return self._grow(delta) if isinstance(delta, Mapping) else ""

    def _finish(self, reason: Any) -> None:
        if not isinstance(reason, str) or not reason:
            return
        if reason in _BROKEN:
            raise Fault("broken", "the server broke it off")
        if reason == "content_filter":
            raise ServerError("The server's content filter ended the answer.")
        self.finish = _FINISHES.get(reason, "stop")

    def _grow(self, delta: Mapping[str, Any]) -> str:
        thought = _text(delta.get("reasoning")) or _text(delta.get("reasoning_content"))
        text = _text(delta.get("content"))
        shown = ""
        if thought:
            shown = thought if self.thought or self.thinks else THINK_START + thought
            self.thought += thought
        if text:
            if not self.text and (self.thought or (self.thinks and self.apart)):
                shown += f"{THINK_END}\n\n"
            shown += text
            self.text += text
        return shown

    @property
    def is_repeating(self) -> bool:
        """Whether the answer, or the thought before it, repeats itself, and is to be cut."""
        growing = self.text or self.thought
        step = max(_CHECK_CHARACTERS, self._checked // 32)  # so that the cost stays in proportion
        if self._cut is None and not 0 <= len(growing) - self._checked < step:
            self._checked = len(growing)
            self._cut = self.loop_start(growing)
        return self._cut is not None

    def response(self, input_sizes: Sequence[Size], image_tokens: int) -> Response:
        """Raises ``Fault`` where the end has not come."""
        if self.finish is None and self._cut is None:
            raise Fault("broken", "it broke off")
        if self._cut is not None and not self.text:
            self.thought = self.thought[: self._cut]
        thinking, text = self._split(self.text[: self._cut])
        return Response(
            text=text,
            thinking=thinking,
            finish_reason="repetition" if self._cut is not None else self.finish or "stop",
            input_sizes=tuple(input_sizes),
            usage=self._usage(image_tokens),
            tokens=place_tokens(self.logprobs, text),
        )

    def _split(self, text: str) -> tuple[str, str]:
        """Thought and answer. A thought in the text begins with its tag, or at the beginning where
        the prompt had opened it: then only the tag at its end is there, or none, where it was cut
        off. A server that sends thoughts apart leaves none in the text."""
        if self.thought:
            return self.thought.strip(), text.strip()
        before, end, _ = text.partition(THINK_END)
        is_cut = self._cut is not None or self.finish == "length"
        inside = self.thinks and not self.apart and (bool(end) or is_cut)
        # A model that is not known to think: an answer may speak of the tag, but not so.
        lone = THINK_START not in before and _ENDS_THOUGHT.search(text) is not None
        return split_thinking(text, inside=inside or lone)

    def _usage(self, image_tokens: int) -> Usage:
        details = self.usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
        return Usage(
            token_count(self.usage.get("prompt_tokens")),
            image_tokens,
            token_count(self.usage.get("completion_tokens")),
            token_count(cached),
        )


async def usage_of(chunks: AsyncIterator[Mapping[str, Any]]) -> Mapping[str, Any]:
    """The ``usage`` that a server reports at the end of an answer; empty where it does not."""
    usage: Mapping[str, Any] = {}
    async for chunk in chunks:
        if isinstance(found := chunk.get("usage"), Mapping):
            usage = found
    return usage


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Fault("broken", "a piece of the answer is no text")
    return value


def token_count(value: Any) -> int:
    """A number of tokens as a server tells it; 0 where that is none, or none that can be."""
    return value if isinstance(value, int) and 0 < value < _MOST_TOKENS else 0
