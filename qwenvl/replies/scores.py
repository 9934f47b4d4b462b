"""Scores: how sure a model was of each item of its reply, from its own log-probabilities.

The score of an item is exp(mean log-probability) over the tokens of its numbers and its label, a
geometric mean of probabilities, 0 to 1: half the mean of the numbers, which say where it is, half
that of the label, which says what it is. An item without a label has that of its numbers. (Over all
tokens alike, the label would count next to nothing: Qwen models write a token for each digit, a
dozen a box, of which the last are always uncertain. ``nano/README.md`` has both measured.)

The log-probabilities are the model's own (see ``types.Token``), before masks, penalties and
temperature. Brackets, keys and other punctuation are left out: where the form is held to, they are
forced, and would lift every score towards 1. A token that holds a digit and a comma counts as the
digit's.

A score orders the items of one model; it is no probability that an item is right.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from ..errors import BadOption
from ..types import Token
from .bbox import Coordinates
from .trace import Span, Traced, trace


def scores(
    text: str, items: Sequence[tuple[Coordinates, str]], tokens: Sequence[Token]
) -> list[float | None]:
    """The score of each of ``items``, coordinates and label as they were read of the reply ``text``
    and in their order; ``tokens`` are the reply's. None for an item that cannot be found in the
    text again (see ``trace``), and for all where the tokens have no log-probabilities."""
    if not any(token.logprob is not None for token in tokens):
        return [None] * len(items)
    marked = sorted((t for t in tokens if t.start < t.end), key=lambda t: (t.start, t.end))
    starts, ends = [t.start for t in marked], [t.end for t in marked]

    def mean(spans: Sequence[Span]) -> float:
        """Of the log-probabilities of the tokens that reach into ``spans``; NaN where one of them
        has none, or where there is no token."""
        own = {
            index
            for start, end in spans
            for index in range(bisect_right(ends, start), bisect_left(starts, end))
        }
        given = [marked[index].logprob for index in own]
        known = [logprob for logprob in given if logprob is not None]
        return math.fsum(known) / len(known) if known and len(known) == len(given) else math.nan

    def score(item: Traced) -> float | None:
        means = [mean(item.numbers)] + ([mean(item.words)] if item.words else [])
        found = math.exp(sum(means) / len(means))
        return None if math.isnan(found) else found

    return [None if item is None else score(item) for item in trace(text, items)]


def checked(min_score: float) -> float:
    """``min_score`` itself. Raises ``BadOption`` outside 0 to 1."""
    if not 0 <= min_score <= 1:
        raise BadOption(f"min_score is {min_score:g}; it may be 0 (keep all) to 1.")
    return min_score


def is_kept(score: float | None, min_score: float) -> bool:
    """Whether a threshold lets an item pass. One without a score does: nothing says that the model
    was unsure of it, and ``unscored_note`` tells of it."""
    return score is None or score >= min_score


def entry(score: float | None) -> dict[str, float]:
    """A score as a member of an item's data; none where there is none."""
    return {} if score is None else {"score": round(score, 4)}


def unscored_note(found: Sequence[float | None], min_score: float) -> tuple[str, ...]:
    """A note on items that have no score although there is a threshold; none where all have."""
    count = sum(score is None for score in found)
    if not (min_score and count):
        return ()
    return (f"{count} of {len(found)} have no score and were kept whatever min_score says.",)
