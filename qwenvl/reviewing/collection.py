"""Review collection: the files of a folder with their captions, searched, edited and undone."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadOption, QwenVLError
from ..folders.listing import LEADS_OUT, Item, leads_out, listing
from ..folders.state import FOLDER
from ..folders.trainers import Trainer
from .captions import Captions, captions_of, is_inside, text_of, version_of
from .edits import Edits
from .entries import Entries, matching
from .failures import Failures
from .pictures import stamp_of

log = logging.getLogger(__name__)

PAUSE, SHARE = 2.0, 20
"""Seconds between two looks at all captions, at least, and how many times as long as the look
itself: a look at a large folder on a slow disk is to cost little."""


class Collection:
    """The pictures and clips below ``folder``, in the order of ``listing``, by their indices, which
    stay as they are whatever comes and goes. Links that lead out of the folder are left out and
    counted as ``outside``. Thread-safe. About 1 KB a file is held.

    ``start`` lists in a thread, and then looks from time to time, and whenever ``look_soon`` is
    called, for files that came or went and captions that others have changed; ``load`` lists at
    once, and ``refresh`` looks at the captions. Raises ``BadOption`` where there is no such folder,
    and for a table without the trainer's columns."""

    def __init__(self, folder: Path, trainer: Trainer):
        if not folder.is_dir():
            raise BadOption(f"{folder} is no folder.")
        if not is_inside(folder / FOLDER, folder):
            raise BadOption(f"{folder / FOLDER} is a link out of the folder: take it away.")
        self.folder, self.trainer = folder, trainer
        self.is_listed = False
        self.outside = 0
        self.errors: list[str] = []
        self._captions: Captions = captions_of(folder, trainer)
        self._entries = Entries()
        self._edits = Edits(self._captions, self._entries)
        self._failures = Failures(folder)
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._wake = threading.Event()

    def start(self) -> None:
        threading.Thread(target=self._watch, name="qwenvl-review", daemon=True).start()

    def close(self) -> None:
        self._closed.set()
        self._wake.set()

    def look_soon(self) -> None:
        """Has the thread of ``start`` look now."""
        self._wake.set()

    def load(self) -> None:
        """Lists the folder; again: what has come and gone since. Raises ``BadOption``."""
        self._read_failures()
        within, errors = self.folder.resolve(), []
        there: list[int] = []
        outside = 0

        def cannot_list(relative: str, why: str) -> None:
            nonlocal outside
            if why == LEADS_OUT:
                outside += 1
            else:
                errors.append(f"{relative}: {why}")

        for item in listing(self.folder, cannot_list, within):
            if self._closed.is_set():
                return
            if leads_out(item.path, within):
                outside += 1
            else:
                there.append(self._put_in(item))
        with self._lock:
            self._entries.order_as(there)
        self.outside, self.errors, self.is_listed = outside, errors, True

    def _put_in(self, item: Item) -> int:
        with self._lock:
            index, is_new = self._entries.put_in(item, self._failures.of(item.relative))
            if is_new:
                self._look(index, anyway=True)
            return index

    def __len__(self) -> int:
        return len(self._entries.order)

    def item(self, index: int) -> Item:
        """Raises ``BadOption``."""
        return self._entries[index].item

    def counts(self) -> dict[str, Any]:
        with self._lock:
            return {
                "total": len(self._entries.order),
                "captioned": self._entries.captioned,
                "failed": self._entries.failed,
                "outside": self.outside,
                "listed": self.is_listed,
                "listings": self._entries.listings,
                "errors": self.errors,
                **self._edits.counts(),
            }

    def find(self, words: str = "", only: str = "all") -> list[int]:
        """The indices of the files of ``FILTERS`` in whose caption or relative path each of the
        words stands, whatever their case. Raises ``BadOption``."""
        with self._lock:
            entries = self._entries.there()
        return matching(entries, words, only)  # with nobody held up meanwhile

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """What there is to show of these files, as it stands on disk now."""
        with self._lock:
            found = []
            for index in indices:
                entry = self._entries[index]
                self._look(index)
                found.append(
                    {
                        "id": index,
                        "file": entry.item.relative,
                        "clip": entry.item.is_clip,
                        "text": entry.text,
                        "version": entry.version,
                        "problem": entry.problem,
                        "failure": entry.failure,
                        "picture": stamp_of(entry.item.path),
                    }
                )
            return found

    def edit(self, index: int, text: str, version: str) -> None:
        """Writes ``text`` in the trainer's form; an empty one takes the caption away. ``version``:
        of what the edit was made on. Raises ``Conflict``, and ``BadImage`` where it cannot be
        written."""
        with self._lock:
            if self._edits.edit(index, text, version):
                self._look(index, anyway=True)
                self.fail(index, "")

    def undo(self) -> int | None:
        """Takes the last edit back; its file, or None where there is none. Raises ``Conflict``
        where the caption was changed since, and ``BadImage`` where it can no longer be written: of
        a file that is gone, or has a twin now. That edit is then passed over, and the next call is
        about the one before it. A fault of the disk, ``BadImage`` too, leaves it to be undone."""
        return self._moved(self._edits.undo)

    def redo(self) -> int | None:
        """Undoes an ``undo``, as that."""
        return self._moved(self._edits.redo)

    def _moved(self, move: Callable[[], int | None]) -> int | None:
        with self._lock:
            index = move()
            if index is not None:
                self._look(index, anyway=True)
            return index

    def fail(self, index: int, reason: str) -> None:
        """Notes why a file that was asked about has got no new caption; empty: that it has."""
        with self._lock:
            entry = self._entries[index]
            if entry.failure and not reason:
                self._failures.settle(entry.item.relative)
            self._entries.fail(entry, reason)

    def refresh(self) -> None:
        """Looks at all captions, and at the list of failures."""
        self._read_failures()
        for index in self._entries.order[:]:
            if self._closed.is_set():
                return
            with self._lock:
                self._look(index)

    def _watch(self) -> None:
        wait = 0.0
        while not self._closed.is_set():
            self._wake.wait(wait)
            self._wake.clear()
            begun = time.monotonic()
            try:
                self.load()
                self.refresh()
            except Exception as error:  # of a thread: whoever looks at the page is to know
                problem = f"The folder is not listed to its end: {error}"
                if self.errors != [problem]:
                    log.exception(problem)
                self.errors = [problem]
            wait = max(PAUSE, SHARE * (time.monotonic() - begun))

    def _look(self, index: int, anyway: bool = False) -> None:
        """Reads a caption again where it may have changed."""
        entry = self._entries[index]
        stamp = self._captions.stamp(entry.item)
        if stamp == entry.stamp and not anyway:
            return
        text, version, problem = "", "", ""
        try:
            held = self._captions.held(entry.item)
            version, text = version_of(held), text_of(held)
        except OSError as error:
            problem = f"The caption cannot be read: {error.strerror}."
        except QwenVLError as error:
            problem = str(error)
        self._entries.read(entry, text, version, problem, stamp)

    def _read_failures(self) -> None:
        """Of the last caption runs over the folder, where they have changed."""
        with self._lock:
            changed = self._failures.read()
            for _, entry in self._entries.there() if changed else ():
                if entry.item.relative in changed:
                    self._entries.fail(entry, self._failures.of(entry.item.relative))
