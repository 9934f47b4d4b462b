"""Scripted replies: what a scripted backend says, and the tokens in which it says it."""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import BadOption, QwenVLError
from ..prompting.chat_template import THINK_END, THINK_START
from ..types import THINKING_TOKENS, FinishReason, Generated, Request, Response, Token, Usage

if TYPE_CHECKING:
    from ..media.spans import Span

_TOKEN = re.compile(r" ?[^\W\d_]{1,8}|\d|[^\S ]+| +|.", re.DOTALL)


def tokenize(text: str) -> list[str]:
    """Scripted tokens of ``text``, which joined give it again: a word with the blank before it (at
    most 8 letters of it), a digit, blanks, or any other character, as Qwen's tokenizer has them."""
    return _TOKEN.findall(text)


def token_ids(tokens: Sequence[str]) -> list[int]:
    """Made of the characters, so that equal tokens have equal ones."""
    return [zlib.crc32(token.encode("utf-8", "surrogatepass")) for token in tokens]


@dataclass(frozen=True)
class Reply:
    """What the model says: its answer ``text``, a sequence being the tokens it is made of, after
    the thought ``thinking``. ``logprobs``: of each token of the text, or one for all; they reach a
    ``Response`` whose request asks for them. Raises ``BadOption`` where their number is not that of
    the tokens, and for a log-probability above 0."""

    text: str | Sequence[str]
    thinking: str = ""
    finish_reason: FinishReason = "stop"
    logprobs: float | Sequence[float] | None = None

    def __post_init__(self) -> None:
        count, given = len(self.tokens), self.token_logprobs
        if len(given) != count:
            raise BadOption(f"The reply has {count} tokens, but {len(given)} log-probabilities.")
        if any(logprob is not None and not logprob <= 0 for logprob in given):
            raise BadOption("A log-probability is above 0; it is the logarithm of 0 to 1.")

    @property
    def tokens(self) -> list[str]:
        return tokenize(self.text) if isinstance(self.text, str) else list(self.text)

    @property
    def token_logprobs(self) -> list[float | None]:
        """One for each token."""
        if isinstance(self.logprobs, Sequence):
            return list(self.logprobs)
        return [self.logprobs] * len(self.tokens)


Script = str | Reply | Response | QwenVLError
"""One reply. A ``Response`` is given as it is, neither cut nor without what it leaves out:
``input_sizes``, ``usage`` and ``tokens`` are filled in where they are empty. An error is that of
its request alone."""


class Replay:
    """A request under way: what it takes, then the ``response`` and the ``stream`` of text by which
    an observer is told of it."""

    def __init__(self, request: Request, spans: Sequence[Span], thinking: bool):
        self.request, self.spans, self.thinking = request, spans, thinking
        self.response = Response("")
        self.stream: list[str] = []

    @property
    def image_tokens(self) -> int:
        return sum(span.tokens for span in self.spans)

    @property
    def counts(self) -> tuple[int, int]:
        """Tokens of the prompt, and the most of the thought and the answer."""
        parts = [part for message in self.request.messages for part in message.parts]
        text = sum(len(tokenize(part)) for part in parts if isinstance(part, str))
        earlier = sum(len(part.ids) for part in parts if isinstance(part, Generated))
        thought = self._thinking_limit if self.thinking else 0
        limit = self.request.sampling.max_new_tokens + thought
        return text + earlier + self.image_tokens, limit

    @property
    def _thinking_limit(self) -> int:
        limit = self.request.sampling.max_thinking_tokens
        return THINKING_TOKENS if limit is None else limit

    def answer(self, script: Script) -> None:
        """Sets ``response`` and ``stream`` by what the model is to say."""
        if isinstance(script, QwenVLError):
            self.response = Response.failed(script)
        elif not isinstance(script, Response):
            self._follow(_cut(Reply(script) if isinstance(script, str) else script, self.request))
        elif script.error:
            self.response = script
        else:
            self._follow(Reply(script.text, script.thinking, script.finish_reason))
            filled = {
                name: getattr(self.response, name)
                for name in ("input_sizes", "usage", "tokens", "thought_ids")
                if getattr(script, name) == getattr(_EMPTY, name)
            }
            self.response = dataclasses.replace(script, **filled)

    def _follow(self, reply: Reply) -> None:
        thought = tokenize(reply.thinking)[: self._thinking_limit]
        opened = [THINK_START] if thought and not self.thinking else []
        closed = [THINK_END, "\n\n"] if thought or self.thinking else []
        stream = [*opened, *thought, *closed, *reply.tokens]
        self.response = Response(
            "".join(reply.tokens),
            "".join(thought),
            reply.finish_reason,
            tuple(span.input_size for span in self.spans),
            Usage(self.counts[0], self.image_tokens, len(stream)),
            tokens=tuple(_tokens(reply, self.request.logprobs)),
            thought_ids=tuple(token_ids(thought)),
        )
        # The token that cuts an answer off ends it: an end token would have been one more.
        self.stream = stream if reply.finish_reason == "stop" else stream[:-1]


_EMPTY = Response("")


def _cut(reply: Reply, request: Request) -> Reply:
    """As much of it as ``max_new_tokens`` allows; at the limit the model cannot end it itself."""
    limit, tokens = request.sampling.max_new_tokens, reply.tokens
    if len(tokens) < limit:
        return reply
    logprobs = reply.logprobs
    kept = logprobs[:limit] if isinstance(logprobs, Sequence) else logprobs
    return Reply(tokens[:limit], reply.thinking, "length", kept)


def _tokens(reply: Reply, with_logprobs: bool) -> Iterator[Token]:
    start, texts = 0, reply.tokens
    for number, text, logprob in zip(token_ids(texts), texts, reply.token_logprobs, strict=True):
        end = start + len(text)
        yield Token(number, start, end, logprob if with_logprobs else None)
        start = end
