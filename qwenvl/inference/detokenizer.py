"""Incremental detokenizer: a row's growing tokens as pieces of text for streaming."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Detokenizer:
    """Decodes one row as it grows, and never gives half a character. ``ends``: for each token,
    how many characters of the text are complete with it."""

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode = decode
        self._start = 0  # index of the first token that is decoded again
        self._before = 0  # characters of the tokens before it
        self._sent = 0  # characters of the others that were given out
        self.ends: list[int] = []

    def append(self, ids: Sequence[int]) -> str:
        """The text that all of the row's tokens ``ids``, one more than at the last call, add to
        that of the last call; empty while a character is incomplete."""
        text = self._decode(ids[self._start :])
        piece = "" if text.endswith("\ufffd") else text[self._sent :]
        self._sent += len(piece)
        self.ends.append(self._before + self._sent)
        if piece.endswith("\n"):
            # Decoding starts behind each line's end, so that its cost does not grow with the text.
            self._start, self._before, self._sent = len(ids), self.ends[-1], 0
        return piece
