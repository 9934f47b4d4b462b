"""Prompt lookup: drafts copied from what followed the same tokens earlier in the prompt or answer.

Where reading the weights takes most of the time, a pass over a handful of tokens costs little more
than one over a single token, so each accepted draft token is nearly free. Rejected ones are
dropped: the answer is the greedy one either way.
"""

from __future__ import annotations

from collections.abc import Sequence

from .verify import MAX_DRAFT_TOKENS

NGRAM = 2
"""Tokens that have to match. Found by trying, as was ``MAX_DRAFT_TOKENS``: on the makers' published
replies, 2 and 6 save most where a verification costs 1.05 to 1.4 times a decode step."""


class PromptLookup:
    """Prompt lookup (Saxena 2023) for one row: an index of its n-grams, and drafts from it. Tables,
    lists of boxes and texts to be rewritten repeat themselves a lot."""

    def __init__(self, ids: Sequence[int]):
        self._ids: list[int] = []
        self._following: dict[tuple[int, ...], int] = {}  # index behind an n-gram's last occurrence
        self.extend(ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Adds the row's new tokens to the index."""
        for token in ids:
            # An n-gram is entered once a token follows it, so that the last one cannot find itself.
            if len(self._ids) >= NGRAM:
                self._following[tuple(self._ids[-NGRAM:])] = len(self._ids)
            self._ids.append(token)

    def draft(self) -> list[int]:
        """Up to ``MAX_DRAFT_TOKENS`` tokens; none where the last n-gram is new."""
        start = self._following.get(tuple(self._ids[-NGRAM:]))
        return [] if start is None else self._ids[start : start + MAX_DRAFT_TOKENS]
