"""Constrained decoding: where an answer stands in its grammar, and which tokens may come next.

Grammars are compiled and followed by llguidance, which is imported where a request has a
constraint and not before.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..constraints import ONE_LINE
from ..errors import BadOption, Unavailable
from ..prompting.chat_template import ChatTemplate
from ..schema_bounds import bounded
from ..types import Constraint

log = logging.getLogger(__name__)

_BLANKS = ("\n\n", "\n")
"""What models write between a thought and their answer."""

_TAG = re.compile(r'"(</?[\w|]+>)"')
"""A literal in a Lark grammar that may be a token of its own."""

_MOST_COMPILED = 64
"""Grammars that are kept for a model; large ones take megabytes."""

_OPENING_TOKENS = 16
"""Earlier tokens that an opening may have begun in."""


class Matcher:
    """Follows one answer through its grammar: ``follow`` its tokens, then ask for what may come
    next. ``problem``: why the answer cannot be followed any further, empty while it can; it then
    ends.

    Where the constraint has an ``opening``, the answer ``is_waiting`` for one, and ``is_free``
    until its text holds it. One that begins in another way than the grammar knows stays free to its
    end.
    """

    def __init__(self, follower: Any, vocabulary: Vocabulary, opening: tuple[str, ...] = ()):
        self._follower, self._vocabulary, self._opening = follower, vocabulary, opening
        self._followed = 0  # tokens of the answer
        self._may_be_blank = False  # a blank line may come first
        self._begun = self.is_waiting = bool(opening)
        self.is_free = self.is_waiting
        self.problem = ""

    def follow(self, answer: Sequence[int], after_thought: bool = False) -> None:
        """``answer``: all token ids of the answer, which go on from those of the last call.
        ``after_thought``: a blank line may come first."""
        new, self._followed = answer[self._followed :], len(answer)
        if self.is_waiting:
            self._look_for_opening(answer, len(new))
        elif not self.is_free:
            for token in new:
                if self._begun or not (after_thought and token in self._vocabulary.blanks):
                    self._begun = True
                    self._follower.consume_token(token)
        self._may_be_blank = after_thought and not self._begun and not answer

    def _look_for_opening(self, answer: Sequence[int], new: int) -> None:
        text = self._vocabulary.decode(answer[-(new + _OPENING_TOKENS) :])
        starts = [at for opening in self._opening if (at := text.find(opening)) >= 0]
        if not starts:
            return
        ids = self._vocabulary.encode(text[min(starts) :])
        self.is_waiting = False
        self.is_free = self._follower.try_consume_tokens(ids) < len(ids)

    def fill(self, words: Tensor) -> None:
        """Fills ``words``, int32, with a bit for each token of the vocabulary, the first token's
        lowest: whether it may come next."""
        if self.is_free:
            words.fill_(-1)
            return
        bits = torch.frombuffer(bytearray(self._follower.compute_bitmask()), dtype=torch.int32)
        if self._follower.is_error() and not self.problem:
            self.problem = (
                "The model's answer could not be held to its form "
                f"({_first_line(self._follower.get_error())}). Make the form simpler."
            )
        count = min(len(bits), len(words))
        words[:count] = bits[:count]
        words[count:] = 0  # models have more rows in their last layer than tokens
        if self.problem:
            words.zero_()
            _set_bits(words, self._vocabulary.eos_ids)
        elif self._may_be_blank:
            _set_bits(words, self._vocabulary.blanks)

    def forced(self) -> list[int]:
        """The tokens that have to come next, as the tokenizer would write them; none where the
        model has a choice."""
        if self.is_free or self.problem or self._may_be_blank:
            return []
        return self._follower.compute_ff_tokens()

    def possible(self, draft: Sequence[int]) -> list[int]:
        """``draft`` up to the first token that cannot come."""
        if self.is_free:
            return [] if self.is_waiting else list(draft)
        if self.problem or self._may_be_blank:
            return []
        draft = list(itertools.takewhile(lambda t: t not in self._vocabulary.eos_ids, draft))
        return draft[: self._follower.validate_tokens(draft)]

    def fill_behind(self, draft: Sequence[int], words: Tensor) -> None:
        """``fill`` behind each token of ``draft``, which is possible: ``words`` has a line for
        each."""
        if self.is_free:
            words.fill_(-1)
            return
        for token, line in zip(draft, words, strict=False):
            self._follower.consume_token(token)
            self.fill(line)
        if draft:
            self._follower.rollback(len(draft))


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What matchers must know of a tokenizer besides its grammar. ``blanks``: tokens of blank
    lines."""

    eos_ids: frozenset[int]
    blanks: frozenset[int]
    decode: Callable[[Sequence[int]], str]
    encode: Callable[[str], list[int]]


class Grammars:
    """Compiled constraints of one tokenizer."""

    def __init__(self, template: ChatTemplate):
        guidance = _llguidance()
        core = template.tokenizer.backend_tokenizer.to_str()
        self._tokenizer = guidance.LLTokenizer(core, eos_token=sorted(template.eos_ids) or None)
        encode = partial(template.tokenizer.encode, add_special_tokens=False)
        encoded = [encode(text) for text in _BLANKS]
        blanks = frozenset(ids[0] for ids in encoded if len(ids) == 1)
        self._vocabulary = Vocabulary(template.eos_ids, blanks, template.decode, encode)
        self._own_tokens = frozenset(template.tokenizer.get_added_vocab())
        self._compiled: dict[tuple[Constraint, int], Any] = {}

    def matcher(self, constraint: Constraint, tokens: int) -> Matcher:
        """A matcher at the beginning of an answer of at most so many ``tokens``. Raises
        ``BadOption`` where ``constraint`` cannot be enforced."""
        key = constraint, tokens if constraint.kind == "json_schema" else 0
        if key not in self._compiled:
            if len(self._compiled) >= _MOST_COMPILED:
                del self._compiled[next(iter(self._compiled))]  # the oldest
            self._compiled[key] = self._compile(constraint, tokens)
        return Matcher(self._compiled[key].deep_copy(), self._vocabulary, constraint.opening)

    def _compile(self, constraint: Constraint, tokens: int) -> Any:
        guidance = _llguidance()
        try:
            grammar = _grammar(guidance.LLMatcher, self._with_tokens(constraint), tokens)
        except ValueError as error:
            raise _refused(constraint, str(error)) from error
        compiled = guidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if compiled.is_error():
            raise _refused(constraint, compiled.get_error())
        return compiled

    def _with_tokens(self, constraint: Constraint) -> Constraint:
        """With the quotes left out of a Lark grammar where a literal, such as ``"<tool_call>"``, is
        a token of its own in this tokenizer: then it is that token and not its characters."""
        if constraint.kind != "lark":
            return constraint
        source = _TAG.sub(
            lambda tag: tag[1] if tag[1] in self._own_tokens else tag[0], constraint.source
        )
        return dataclasses.replace(constraint, source=source)


_GRAMMARS: WeakKeyDictionary[ChatTemplate, Grammars] = WeakKeyDictionary()


def matcher(constraint: Constraint, template: ChatTemplate, tokens: int) -> Matcher | None:
    """A matcher of ``constraint`` for answers of at most so many ``tokens`` of the model that has
    ``template``. Raises ``BadOption`` where it cannot be enforced, and ``Unavailable`` without
    llguidance; None where the constraint has an opening, so that free answers are welcome too."""
    try:
        if template not in _GRAMMARS:
            _GRAMMARS[template] = Grammars(template)
        return _GRAMMARS[template].matcher(constraint, tokens)
    except (BadOption, Unavailable) as error:
        if not constraint.opening:
            raise
        log.info("Answers are not held to their form: %s", error)
        return None


def _grammar(compiler: Any, constraint: Constraint, tokens: int) -> str:
    if constraint.kind == "regex":
        return compiler.grammar_from_regex(constraint.source)
    if constraint.kind == "lark":
        return compiler.grammar_from_lark(constraint.source)
    schema = json.loads(constraint.source)
    if schema is False:
        raise ValueError("no answer is valid by the schema false")
    schema = {} if schema is True else bounded(schema, tokens)
    return compiler.grammar_from_json_schema(schema, overrides=ONE_LINE)


def _refused(constraint: Constraint, error: str) -> BadOption:
    what = {"json_schema": "JSON schema", "regex": "regular expression", "lark": "grammar"}
    return BadOption(
        f"Answers cannot be held to this {what[constraint.kind]}: {_reason(error)}. Change "
        "what it names, or leave that out."
    )


def _reason(text: str) -> str:
    """What a compiler's message comes to: of a regular expression, the line behind those that show
    the place; without the options of a library that nobody here can set."""
    for line in text.splitlines():
        if line.startswith("error: "):
            return line.removeprefix("error: ")
    return _first_line(text).partition(". Enable ")[0]


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "no reason told")


def _set_bits(words: Tensor, tokens: frozenset[int]) -> None:
    for token in tokens:
        words[token // 32] |= 1 << (token % 32) if token % 32 < 31 else -(1 << 31)


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise Unavailable(
            "Answers of a given form need the package llguidance. Install it with: "
            "pip install llguidance"
        ) from error
    return llguidance
