"""Incremental detokenizer: a row's growing tokens as pieces of text for streaming."""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Detokenizer:
    """Decodes one row as it grows, and never gives half a character."""

    def __init__(self, decode: Callable[[Sequence[int]], str]):
        self._decode = decode
        self._start = 0  # index of the first token that is decoded again
        self._sent = 0  # characters of these tokens that were given out

    def append(self, ids: Sequence[int]) -> str:
        """The text that all of the row's tokens ``ids`` add to that of the last call; empty while a
        character is incomplete."""
        text = self._decode(ids[self._start :])
        if text.endswith("\ufffd"):
            return ""
        piece = text[self._sent :]
        self._sent = len(text)
        if text.endswith("\n"):
            # Decoding starts behind each line's end, so that its cost does not grow with the text.
            self._start, self._sent = len(ids), 0
        return piece
