"""Constrained decoding: where an answer stands in its grammar, and which tokens may come next.

Grammars are compiled and followed by llguidance, which is imported where a request has a
constraint and not before.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..constraints import ONE_LINE
from ..errors import BadOption, Unavailable
from ..prompting.chat_template import ChatTemplate
from ..types import Constraint

_BLANKS = ("\n\n", "\n")
"""What models write between a thought and their answer."""


class Matcher:
    """Follows one answer through its grammar. ``problem``: why it cannot be followed any further,
    empty while it can; the answer then ends."""

    def __init__(self, follower: Any, blanks: frozenset[int], eos_ids: frozenset[int]):
        self._follower, self._blanks, self._eos_ids = follower, blanks, eos_ids
        self._followed = 0  # tokens of the answer
        self._begun = False
        self.problem = ""

    def allowed(self, answer: Sequence[int], after_thought: bool) -> Tensor:
        """A bit for each token of the vocabulary, int32 words with the first token's bit lowest:
        whether it may come behind the token ids ``answer``, which go on from those of the last
        call. ``after_thought``: a blank line may come first."""
        for token in answer[self._followed :]:
            if self._begun or not (after_thought and token in self._blanks):
                self._begun = True
                self._follower.consume_token(token)
        self._followed = len(answer)
        words = torch.frombuffer(bytearray(self._follower.compute_bitmask()), dtype=torch.int32)
        if self._follower.is_error() and not self.problem:
            self.problem = (
                "The model's answer could not be held to its form "
                f"({_first_line(self._follower.get_error())}). Make the form simpler."
            )
        if self.problem:
            words = _with_bits(torch.zeros_like(words), self._eos_ids)
        elif after_thought and not self._begun and not answer:
            words = _with_bits(words, self._blanks)
        return words


class Grammars:
    """Compiled constraints of one tokenizer."""

    def __init__(self, template: ChatTemplate):
        guidance = _llguidance()
        self._eos_ids = template.eos_ids
        core = template.tokenizer.backend_tokenizer.to_str()
        self._tokenizer = guidance.LLTokenizer(core, eos_token=sorted(template.eos_ids) or None)
        encoded = [template.tokenizer.encode(text, add_special_tokens=False) for text in _BLANKS]
        self._blanks = frozenset(ids[0] for ids in encoded if len(ids) == 1)
        self._compiled: dict[Constraint, Any] = {}

    def matcher(self, constraint: Constraint) -> Matcher:
        """A matcher at the beginning of an answer. Raises ``BadOption`` where ``constraint`` cannot
        be enforced."""
        if constraint not in self._compiled:
            self._compiled[constraint] = self._compile(constraint)
        follower = self._compiled[constraint].deep_copy()
        return Matcher(follower, self._blanks, self._eos_ids)

    def _compile(self, constraint: Constraint) -> Any:
        guidance = _llguidance()
        try:
            grammar = _grammar(guidance.LLMatcher, constraint)
        except ValueError as error:
            raise _refused(constraint, str(error)) from error
        compiled = guidance.LLMatcher(self._tokenizer, grammar, log_level=0)
        if compiled.is_error():
            raise _refused(constraint, compiled.get_error())
        return compiled


_GRAMMARS: WeakKeyDictionary[ChatTemplate, Grammars] = WeakKeyDictionary()


def matcher(constraint: Constraint, template: ChatTemplate) -> Matcher:
    """A matcher of ``constraint`` for answers of the model that has ``template``. Raises
    ``BadOption`` where it cannot be enforced, and ``Unavailable`` without llguidance."""
    if template not in _GRAMMARS:
        _GRAMMARS[template] = Grammars(template)
    return _GRAMMARS[template].matcher(constraint)


def _grammar(compiler: Any, constraint: Constraint) -> str:
    if constraint.kind == "regex":
        return compiler.grammar_from_regex(constraint.source)
    if constraint.kind == "lark":
        return compiler.grammar_from_lark(constraint.source)
    schema = json.loads(constraint.source)
    if schema is False:
        raise ValueError("no answer is valid by the schema false")
    return compiler.grammar_from_json_schema({} if schema is True else schema, overrides=ONE_LINE)


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


def _with_bits(words: Tensor, tokens: frozenset[int]) -> Tensor:
    for token in tokens:
        words[token // 32] |= 1 << (token % 32) if token % 32 < 31 else -(1 << 31)
    return words


def _llguidance() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise Unavailable(
            "Answers of a given form need the package llguidance. Install it with: "
            "pip install llguidance"
        ) from error
    return llguidance
