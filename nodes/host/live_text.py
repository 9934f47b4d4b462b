"""The words of a run, in its node's page while they are written."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ...qwenvl.types import Response
from . import page

_INTERVAL = 0.1  # seconds between two messages
_WHOLE_INTERVAL = 5.0  # seconds after which a message holds the whole text again


class LiveText:
    """Sends what is new of ``count`` texts, one picture's at a time.

    A long answer is not sent again with each of its words: ``part`` 0 brings a picture's text
    from its beginning, parts 1, 2, ... go on from there. A page that was opened amid a run has
    missed parts; it has the text when the next whole one comes.
    """

    def __init__(self, count: int):
        self._count = count
        self._index = -1
        self._sent = ("", "")
        self._part = 0
        self._next = self._next_whole = 0.0

    def looking(self) -> None:
        """The pictures are being looked at; there are no words yet."""
        pictures = "the picture" if self._count == 1 else f"{self._count} pictures"
        page.live(status=f"Looking at {pictures}", count=self._count)

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    def show(self, index: int, thinking: str, text: str) -> None:
        """The thought and the answer about picture ``index`` so far."""
        self._next = time.monotonic() + _INTERVAL
        pieces = self._new_pieces(index, (thinking, text))
        if pieces is None:
            pieces, self._part = (thinking, text), 0
            self._next_whole = time.monotonic() + _WHOLE_INTERVAL
        elif any(pieces):
            self._part += 1
        else:
            return
        self._index, self._sent = index, (thinking, text)
        self._send(index, pieces)

    def finish(self, index: int, response: Response) -> None:
        """The whole answer about picture ``index``."""
        self._index = -1
        self._part = 0
        pieces = (response.thinking, response.text)
        self._send(index, pieces, finish_reason=response.finish_reason)

    def _new_pieces(self, index: int, texts: Sequence[str]) -> tuple[str, str] | None:
        """What came since the last message; None where the whole must be sent."""
        if index != self._index or time.monotonic() >= self._next_whole:
            return None
        # A text can also change: "<thi" was the beginning of a tag, a picture is asked anew.
        if not all(text.startswith(sent) for text, sent in zip(texts, self._sent, strict=True)):
            return None
        thinking, text = (text[len(sent) :] for text, sent in zip(texts, self._sent, strict=True))
        return thinking, text

    def _send(self, index: int, pieces: tuple[str, str], **more: str) -> None:
        place = {"index": index, "count": self._count, "part": self._part}
        page.live(**place, thinking=pieces[0], text=pieces[1], **more)
