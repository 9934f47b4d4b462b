"""Progress of a folder on the command line: a bar on a terminal, lines now and then elsewhere."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from pathlib import PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import QwenVLError
from ..folders.job import Reporter, Summary
from ..folders.listing import Item
from ..notes import NotesOfRun
from ..unicode import well_formed
from .output import print_json, print_message, print_result

if TYPE_CHECKING:
    from tqdm import tqdm

LINE_EVERY = 60.0
"""Seconds between lines where there is no terminal, as in the log of a job on a cluster."""


_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069]")
"""Characters that end a line, or turn the direction of what stands behind them."""


class FolderProgress(Reporter):
    """Counts files, and tells of failures as they come. ``as_json``: of each file on stdout, too;
    ``only_told``: nothing is done, files are named on stdout."""

    def __init__(self, as_json: bool, only_told: bool):
        self._as_json, self._only_told = as_json, only_told
        self.done = self.failures = self.there = 0
        self._unread: Counter[str] = Counter()
        self._total: int | None = None
        self._begin = self._next = time.monotonic()
        self._bar: tqdm[Any] | None = None
        self._notes = NotesOfRun()

    def __enter__(self) -> FolderProgress:
        if sys.stderr is not None and sys.stderr.isatty() and not self._only_told:
            try:
                from tqdm import tqdm
            except ImportError:  # transformers brings it, and servers need no transformers
                return self
            self._bar = tqdm(unit="file", file=sys.stderr, smoothing=0.1, dynamic_ncols=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
        if kind is None:
            what = "would be captioned" if self._only_told else "captioned"
            print_message(f"{self.done:,} {what}, {self.there:,} skipped, {self.failures:,} failed")
            if not (self.done or self.there or self.failures):
                print_message("Found no picture and no video to be captioned.")
            if self._unread:
                kinds = ", ".join(f"{count:,} {kind}" for kind, count in self._unread.items())
                print_message(f"not read: {kinds}. Convert them to PNG or JPEG.")

    def ended(self, summary: Summary) -> Summary:
        """Tells what is to be known of the folder as a whole."""
        for note in summary.notes:
            self._say(f"note: {note}")
        return summary

    def stopped(self, error: QwenVLError | None = None) -> None:
        """Before the end, and why: what went before is safe."""
        self._say(f"stopped after {self.done:,} captions; the same command goes on from here")
        if error:
            self._say(f"error: {error}")

    def counted(self, total: int) -> None:
        self._total = total
        if self._bar is not None:
            self._bar.total = total
            self._bar.refresh()

    def captioned(self, item: Item, caption: str) -> None:
        self.done += 1
        if self._as_json:
            row = {"file": well_formed(item.relative)}
            print_json(row if self._only_told else {**row, "caption": caption})
        elif self._only_told:
            print_result(_shown(item.relative))
        self._step()

    def skipped(self, item: Item, reason: str) -> None:
        if self._as_json and not self._only_told:
            print_json({"file": well_formed(item.relative), "skipped": reason})
        self.there += 1
        self._step()

    def passed_over(self, item: Item, reason: str) -> None:
        self._say(f"passed over: {item.relative}: {reason}")
        self.skipped(item, reason)

    def failed(self, relative: str, reason: str) -> None:
        self.failures += 1
        if self._as_json:
            print_json({"file": well_formed(relative), "error": reason})
        self._say(f"error: {relative}: {reason}")
        self._step()

    def note(self, item: Item, note: str) -> None:
        for new in self._notes.new([note]):
            self._say(f"note: {item.relative}: {new}")

    def unread(self, relative: str) -> None:
        self._unread[PurePosixPath(relative).suffix.lower()] += 1

    def _say(self, text: str) -> None:
        text = _shown(text)
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            print_message(text)

    def _step(self) -> None:
        if self._bar is not None:
            self._bar.set_postfix(done=self.done, failed=self.failures, refresh=False)
            self._bar.update()
        elif not self._only_told and time.monotonic() >= self._next + LINE_EVERY:
            self._next = time.monotonic()
            print_message(self._line(self._next - self._begin))

    def _line(self, seconds: float) -> str:
        gone = self.done + self.failures + self.there
        asked = self.done + self.failures
        rate = asked / seconds
        line = f"{gone:,} of {self._total:,}" if self._total else f"{gone:,}"
        line += f" files: {self.done:,} captioned, {self.failures:,} failed, {rate:.2f}/s"
        if self._total and rate:
            left = int((self._total - gone) / rate)
            line += f", {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
        return line


def _shown(name: str) -> str:
    """What names files, on one line, whatever is in them."""
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], well_formed(name))
