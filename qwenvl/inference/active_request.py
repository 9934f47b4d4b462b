"""Active request: a request that was admitted to the batch, with its row and its drafts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..prompting.prompt import Prompt
from .detokenizer import Detokenizer
from .sequence import Row
from .speculative.prompt_lookup import PromptLookup


@dataclass(eq=False)
class ActiveRequest:
    """A request under way."""

    row: Row
    prompt: Prompt
    detokenizer: Detokenizer
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
        return lookup.draft()[: max(0, self.row.remaining - 1)]
