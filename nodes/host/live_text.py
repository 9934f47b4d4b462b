"""Live text: streams the answers of a run to the node's page while they are written."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ...qwenvl.types import Response
from . import page

_INTERVAL = 0.1  # seconds between two messages
_WHOLE_INTERVAL = 5.0  # seconds after which a message holds the whole text again


class LiveText:
    """Sends the growth of ``count`` texts, one picture's at a time.

    A long answer is not sent again with each new word: ``part`` 0 holds a picture's text from its
    beginning, parts 1, 2, ... continue it. A page that was opened during a run has missed parts;
    it has the text once the next whole one arrives.
    """

    def __init__(self, count: int):
        self._count = count
        self._index = -1
        self._sent = ("", "")
        self._part = 0
        self._next = self._next_whole = 0.0

    def start(self, status: str = "") -> None:
        """The pictures are being processed; there are no words yet. ``status``: what is said
        instead."""
        pictures = "the picture" if self._count == 1 else f"{self._count} pictures"
        page.send_live(status=status or f"Looking at {pictures}", count=self._count)

    @property
    def is_due(self) -> bool:
        return time.monotonic() >= self._next

    def update(self, index: int, thinking: str, text: str) -> None:
        """The thinking and the answer about picture ``index`` so far."""
        self._next = time.monotonic() + _INTERVAL
        growth = self._growth(index, (thinking, text))
        if growth is None:
            growth, self._part = (thinking, text), 0
            self._next_whole = time.monotonic() + _WHOLE_INTERVAL
        elif any(growth):
            self._part += 1
        else:
            return
        self._index, self._sent = index, (thinking, text)
        self._send(index, growth)

    def finish(self, index: int, response: Response) -> None:
        """The whole answer about picture ``index``."""
        self._index = -1
        self._part = 0
        texts = (response.thinking, response.text)
        self._send(index, texts, finish_reason=response.finish_reason)

    def _growth(self, index: int, texts: Sequence[str]) -> tuple[str, str] | None:
        """What was added since the last message; None where the whole text must be sent."""
        if index != self._index or time.monotonic() >= self._next_whole:
            return None
        # A text can also change: "<thi" was the beginning of a tag, a picture is asked again.
        if not all(text.startswith(sent) for text, sent in zip(texts, self._sent, strict=True)):
            return None
        thinking, text = (text[len(sent) :] for text, sent in zip(texts, self._sent, strict=True))
        return thinking, text

    def _send(self, index: int, texts: tuple[str, str], **more: str) -> None:
        place = {"index": index, "count": self._count, "part": self._part}
        page.send_live(**place, thinking=texts[0], text=texts[1], **more)
