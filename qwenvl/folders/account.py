"""Account of a run: its summary, its reporter and its list of failures, kept in step."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from pathlib import PurePosixPath

from .job import MOST_LISTED, Reporter, Summary
from .journals import Journal
from .listing import Item


class Account:
    """Counts what becomes of each file, and tells the reporter. Thread-safe: files are listed in
    one thread and answered in another; ``lock`` is held while the reporter is told. ``failures``:
    the list of them on disk, where there is one."""

    def __init__(self, reporter: Reporter):
        self.summary = Summary()
        self.reporter = reporter
        self.lock = threading.RLock()
        self.failures: Journal | None = None

    def found(self) -> None:
        with self.lock:
            self.summary.found += 1

    def captioned(self, item: Item, caption: str, notes: Iterable[str] = (), same: int = 0) -> None:
        """``same``: whether it is with the reply about a near-duplicate."""
        with self.lock:
            self.summary.captioned += 1
            self.summary.same += same
            for note in notes:
                self.reporter.note(item, note)
            self.reporter.captioned(item, caption)

    def skipped(self, item: Item, reason: str, is_news: bool = False) -> None:
        """``is_news``: whether it is worth a note."""
        with self.lock:
            self.summary.skipped += 1
            if is_news:
                self.reporter.note(item, reason)
            self.reporter.skipped(item, reason)

    def passed_over(self, item: Item, reason: str) -> None:
        with self.lock:
            self.summary.passed_over += 1
            self.reporter.passed_over(item, reason)

    def unread(self, relative: str) -> None:
        with self.lock:
            self.summary.unread[PurePosixPath(relative).suffix.lower()] += 1
            self.reporter.unread(relative)

    def fail(self, relative: str, reason: str, unreadable: bool = False) -> None:
        """``unreadable``: whether it is for a reply that could not be read."""
        with self.lock:
            self.summary.failed += 1
            self.summary.unreadable += unreadable
            if len(self.summary.failures) < MOST_LISTED:
                self.summary.failures.append((relative, reason))
            if self.failures:
                with contextlib.suppress(OSError):  # a list for later is worth no run
                    self.failures.add(file=relative, reason=reason)
            self.reporter.failed(relative, reason)
