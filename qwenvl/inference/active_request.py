"""Active request: a request that was admitted to the batch, with its row and its drafts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..errors import BadOption
from ..prompting.chat_template import THINK_START
from ..prompting.prompt import Prompt
from ..replies import split_thinking
from ..types import Response, Token, Usage
from .detokenizer import Detokenizer
from .sequence import Row
from .speculative.prompt_lookup import PromptLookup


@dataclass(eq=False)
class ActiveRequest:
    """A request under way. ``reused_tokens``: those of its prompt that were in the prefix cache."""

    row: Row
    prompt: Prompt
    detokenizer: Detokenizer
    reused_tokens: int = 0
    _indexed: int = 0  # output tokens in the prompt-lookup index

    @cached_property
    def _lookup(self) -> PromptLookup:
        return PromptLookup(self.row.prompt_ids)

    def draft(self) -> list[int]:
        """Its next tokens by prompt lookup, no more than its answer has room for behind the next
        one."""
        lookup, ids = self._lookup, self.row.output_ids
        lookup.extend(ids[self._indexed :])
        self._indexed = len(ids)
        return self._with_room(lookup.draft())

    def forced(self) -> list[int]:
        """Its next tokens as far as its constraint leaves no choice, as many at most."""
        row = self.row
        if row.matcher is None or row.thinking:
            return []
        row.matcher.follow(row.answer_ids, after_thought=row.thought_length > 0)
        return self._with_room(row.matcher.forced())

    def _with_room(self, draft: list[int]) -> list[int]:
        return draft[: max(0, self.row.remaining - 1)]

    def response(self) -> Response:
        """The answer of the finished row, its thought split off."""
        row, prompt = self.row, self.prompt
        template, think_end = prompt.chat_template, row.think_end_ids
        cut = row.thought_length if prompt.thinking else 0
        thought = row.output_ids[:cut]
        is_closed = cut > 0 and tuple(thought[-len(think_end) :]) == think_end
        thought_ids = tuple(thought) if is_closed else ()
        if is_closed:
            thought = thought[: -len(think_end)]
        thinking, decoded = template.decode(thought).strip(), template.decode(row.output_ids[cut:])
        text = decoded.strip()
        if text.startswith(THINK_START):  # some fine-tunes think unasked
            thinking, text = split_thinking(text)
        problem = row.matcher.problem if row.matcher else ""
        return Response(
            text=text,
            thinking=thinking,
            finish_reason=row.finish_reason or "length",
            input_sizes=prompt.input_sizes,
            usage=Usage(
                len(prompt.ids), prompt.image_tokens, len(row.output_ids), self.reused_tokens
            ),
            notes=prompt.notes if row.finish_reason == "length" else (),
            tokens=self._tokens(cut, decoded, text),
            error=BadOption(problem) if problem else None,
            held=row.matcher is not None and not row.matcher.is_free,
            thought_ids=thought_ids,
        )

    def _tokens(self, cut: int, decoded: str, text: str) -> tuple[Token, ...]:
        """The tokens behind the ``cut``-th, which are ``decoded``, without a thought in them:
        ``text``, the answer, is their end."""
        row, ends = self.row, self.detokenizer.ends
        while len(ends) < len(row.output_ids):  # the last token was not streamed
            self.detokenizer.append(row.output_ids[: len(ends) + 1])
        first = ends[cut - 1] if cut else 0
        offset = len(decoded.rstrip()) - len(text)  # of the answer in what was decoded
        is_whole = not decoded[:offset].strip()
        generated = list(zip(row.output_ids, row.output_logprobs, strict=True))
        found: list[Token] = []
        start, index = 0, cut
        while index < len(row.output_ids):
            stop = index + 1  # tokens that complete a character together
            while stop < len(row.output_ids) and ends[stop - 1] - first == start:
                stop += 1
            is_last = stop == len(row.output_ids)  # it may end with half a character
            end = len(decoded) if is_last else ends[stop - 1] - first
            left, right = (min(max(edge - offset, 0), len(text)) for edge in (start, end))
            if is_whole or end > offset:
                for token, logprob in generated[index:stop]:
                    found.append(Token(token, left, right, logprob))
            start, index = end, stop
        return tuple(found)
