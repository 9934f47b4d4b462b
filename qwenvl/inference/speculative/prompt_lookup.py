"""Guessing the next tokens, so that the model can check several in one pass.

A pass over a handful of tokens costs little more than one over a single token where reading the
weights takes most of the time. What is guessed right is gained, what is guessed wrong is not
used: the answer is the greedy one either way.
"""

from __future__ import annotations

from collections.abc import Sequence

GRAM = 2
"""Equal tokens in a row that make a guess."""
MOST = 6
"""Tokens guessed at most. Both by trying: over the makers' published replies, 2 and 6 save most
where a check costs 1.05 to 1.4 times a round."""
_TRIES = 8  # passes before the gain is judged
_PAUSE = 64  # rounds without guessing after it did not pay
_MEMORY = 0.9  # weight of what was measured before, each time something new is


class PromptLookup:
    """Prompt lookup (Saxena 2023): where the last tokens stood before, in the prompt or the answer,
    what followed them there is likely to follow again. Tables, lists of boxes and texts that are
    to be rewritten are full of such places."""

    def __init__(self, ids: Sequence[int]):
        self._ids: list[int] = []
        self._places: dict[tuple[int, ...], int] = {}  # behind each run of tokens, the last time
        self.extend(ids)

    def extend(self, ids: Sequence[int]) -> None:
        """Notes what was written."""
        for token in ids:
            # A run is entered once something follows it, so that the end does not find itself.
            if len(self._ids) >= GRAM:
                self._places[tuple(self._ids[-GRAM:])] = len(self._ids)
            self._ids.append(token)

    def guess(self) -> list[int]:
        """What may come next, at most ``MOST`` tokens; nothing where the end is new."""
        place = self._places.get(tuple(self._ids[-GRAM:]))
        return [] if place is None else self._ids[place : place + MOST]


class AdaptiveSpeculation:
    """Whether guessing pays, by the seconds that rounds take here and the tokens they gain."""

    def __init__(self) -> None:
        self._plain: float | None = None
        self._checked: float | None = None
        self._gained = 0.0
        self._tries = 0
        self._pause = 0

    def plain(self, seconds: float) -> None:
        """A round of one token a row took so long."""
        self._plain = _blended(self._plain, seconds)
        self.passed()

    def passed(self) -> None:
        """A round went by without guesses, or with such as are judged elsewhere."""
        self._pause = max(0, self._pause - 1)

    def checked(self, seconds: float, gained: float) -> None:
        """A round that checked guesses took so long, and gave so many tokens a row."""
        self._checked = _blended(self._checked, seconds)
        self._gained = gained if not self._tries else _blended(self._gained, gained)
        self._tries += 1
        plain = self._plain or 0.0
        if self._tries >= _TRIES and self._gained * plain <= self._checked:
            self._tries, self._pause = 0, _PAUSE

    @property
    def pays(self) -> bool:
        """As far as is known; what has not been tried may."""
        return not self._pause and self._plain is not None


def _blended(old: float | None, new: float) -> float:
    return new if old is None else _MEMORY * old + (1 - _MEMORY) * new


def agreed(guess: Sequence[int], said: Sequence[int]) -> list[int]:
    """What a row gains: ``said[i]`` is the model's token behind the first ``i`` of ``guess``, and
    counts as long as all of ``guess`` before it was right."""
    right = 0
    while right < len(guess) and guess[right] == said[right]:
        right += 1
    return list(said[: right + 1])
