"""Verification of drafts: which drafted tokens the model's own next tokens confirm."""

from __future__ import annotations

from collections.abc import Sequence

MAX_DRAFT_TOKENS = 6
"""Tokens that are verified in one pass, besides the row's last token."""


def accepted_tokens(draft: Sequence[int], target: Sequence[int]) -> list[int]:
    """The tokens that a greedy row gets from one verification, at least one. ``target[i]`` is the
    model's next token behind the first ``i`` tokens of ``draft``: drafts are accepted up to the
    first that differs, and the model's own token follows them."""
    accepted = 0
    while accepted < len(draft) and draft[accepted] == target[accepted]:
        accepted += 1
    return list(target[: accepted + 1])
