"""Folder progress: the file at hand, its caption as it is written, and how far a folder is."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from ...qwenvl.folders import Item, Reporter
from ...qwenvl.observer import Observer
from ...qwenvl.replies import split_thinking
from ...qwenvl.types import Response
from ...qwenvl.unicode import well_formed
from . import page
from .progress import ProgressBar, check_interrupt

_INTERVAL = 0.2  # seconds between two messages


class FolderProgress(Reporter, Observer):
    """Shows a run over a folder in its node: one progress bar over all files, the counts, and the
    answer that is being written. ``thinks``: whether answers begin with thinking."""

    def __init__(self, thinks: bool = False):
        self._thinks = thinks
        self._bar = ProgressBar(1)
        self._thread = threading.get_ident()  # the page knows which node runs by the thread
        self._total: int | None = None
        self._done = self._failed = self._others = 0
        self._asked = 0
        self._items: dict[int, Item] = {}  # that are asked about, by the observer's index
        self._texts: dict[int, str] = {}  # of their answers so far
        self._last = ("", "")  # the file that was captioned last, and its caption
        self._began = time.monotonic()
        self._next = 0.0

    # Reporter

    def counted(self, total: int) -> None:
        self._total = total

    def asking(self, items: Sequence[Item]) -> None:
        for item in items:
            self._items[self._asked] = item
            self._asked += 1

    def captioned(self, item: Item, caption: str) -> None:
        self._done += 1
        self._last = well_formed(item.relative), caption
        self._show()

    def skipped(self, item: Item, reason: str) -> None:
        self._others += 1
        self._show()

    def passed_over(self, item: Item, reason: str) -> None:
        self.skipped(item, reason)

    def failed(self, relative: str, reason: str) -> None:
        self._failed += 1
        self._show()

    # Observer

    def loading(self, done: int, total: int) -> None:
        check_interrupt()
        page.send_live(status="Loading the model")

    def token(self, index: int, text: str) -> None:
        self._texts[index] = self._texts.get(index, "") + text
        self._show()

    def restart(self, index: int) -> None:
        self._texts.pop(index, None)

    def done(self, index: int, response: Response) -> None:
        self._texts.pop(index, None)
        self._items.pop(index, None)

    def check(self) -> None:
        check_interrupt()
        self._show()

    def _show(self) -> None:
        if threading.get_ident() != self._thread or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _INTERVAL
        gone = self._done + self._failed + self._others
        if self._total:
            self._bar.set(min(gone, self._total), self._total)
        name, text, thinking = self._at_hand()
        page.send_live(
            status=f"{name}: {self._counts(gone)}" if name else self._counts(gone),
            index=0,
            count=1,
            part=0,
            thinking=thinking,
            text=text,
        )

    def _at_hand(self) -> tuple[str, str, str]:
        """The first file whose answer is being written, else the last one that has its caption."""
        for index, text in sorted(self._texts.items()):
            if text and index in self._items:
                thinking, answer = split_thinking(text, self._thinks)
                return well_formed(self._items[index].relative), answer, thinking
        return *self._last, ""

    def _counts(self, gone: int) -> str:
        asked = self._done + self._failed
        rate = asked / max(time.monotonic() - self._began, 0.001)
        counts = f"{self._done:,} done, {self._failed:,} failed"
        if self._total is None:
            return f"{counts}, {rate:.2f}/s"
        left = max(self._total - gone, 0)
        counts += f", {left:,} left, {rate:.2f}/s"
        if not rate:
            return counts
        seconds = int(left / rate)
        return f"{counts}, {seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02} to go"
