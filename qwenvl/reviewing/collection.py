"""Review collection: the files of a folder with their captions, searched, edited and undone."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadImage, BadOption, QwenVLError
from ..folders.listing import LEADS_OUT, Item, leads_out, listing
from ..folders.state import FAILED, FOLDER, Journal
from ..folders.trainers import Trainer
from .captions import Captions, Held, Stamp, captions_of, is_inside, text_of, version_of

log = logging.getLogger(__name__)

FILTERS = ("all", "without", "captioned", "failed")
MOST_UNDONE = 1000
"""Edits that can be undone."""

PAUSE, SHARE = 2.0, 20
"""Seconds between two looks at all captions, at least, and how many times as long as the look
itself: a look at a large folder on a slow disk is to cost little."""

_UNSEEN: Stamp = (-1,)


class Conflict(QwenVLError):
    """The caption is not what the edit was made on. ``index``: the file's."""

    def __init__(self, index: int, message: str):
        super().__init__(message)
        self.index = index


@dataclass(eq=False)
class Entry:
    """A file. ``problem``: why its caption cannot be shown; ``failure``: why it got none.
    ``is_there``: false of one that was taken away since."""

    __slots__ = ("failure", "is_there", "item", "problem", "stamp", "text", "version")
    item: Item
    text: str
    version: str
    stamp: Stamp
    problem: str
    failure: str
    is_there: bool


@dataclass(frozen=True)
class _Edit:
    index: int
    before: Held
    after: Held


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
        self.listings = 0
        self._captions: Captions = captions_of(folder, trainer)
        self._entries: list[Entry] = []
        self._indices: dict[str, int] = {}  # by relative path
        self._order: list[int] = []  # of what is there
        self._captioned = self._failed = 0
        self._undo: list[_Edit] = []
        self._redo: list[_Edit] = []
        self._failures: dict[str, str] = {}
        self._failures_stamp: Any = None
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
        found: list[int] = []
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
                found.append(self._put_in(item))
        self._order_as(found)
        self.outside, self.errors, self.is_listed = outside, errors, True

    def _put_in(self, item: Item) -> int:
        """The index of a file that is there; one that was not is the last until all are listed."""
        with self._lock:
            index = self._indices.setdefault(item.relative, len(self._entries))
            if index == len(self._entries):
                self._entries.append(Entry(item, "", "", _UNSEEN, "", "", False))
            entry = self._entries[index]
            is_same = entry.is_there and entry.item == item  # another file may be its twin now
            if not entry.is_there:
                entry.failure = self._failures.get(item.relative, "")
                entry.is_there = True
                self._order.append(index)
                self._captioned += bool(entry.text)
                self._failed += bool(entry.failure)
            if not is_same:
                entry.item = item
                self._look(index, anyway=True)
            return index

    def _order_as(self, found: list[int]) -> None:
        """``found``: all that is there, in order."""
        with self._lock:
            if found == self._order:
                return
            for index in set(self._order).difference(found):
                entry = self._entries[index]
                entry.is_there = False
                self._captioned -= bool(entry.text)
                self._failed -= bool(entry.failure)
            self._order = found
            self.listings += 1

    def __len__(self) -> int:
        return len(self._order)

    def item(self, index: int) -> Item:
        """Raises ``BadOption``."""
        return self._entry(index).item

    def counts(self) -> dict[str, Any]:
        with self._lock:
            return {
                "total": len(self._order),
                "captioned": self._captioned,
                "failed": self._failed,
                "outside": self.outside,
                "listed": self.is_listed,
                "listings": self.listings,
                "errors": self.errors,
                "undo": len(self._undo),
                "redo": len(self._redo),
            }

    def find(self, words: str = "", only: str = "all") -> list[int]:
        """The indices of the files of ``FILTERS`` in whose caption or relative path each of the
        words stands, whatever their case."""
        if only not in FILTERS:
            raise BadOption(f"There is no filter {only!r}. Choose one of: {', '.join(FILTERS)}.")
        wanted = words.casefold().split()
        passes: dict[str, Callable[[Entry], bool]] = {
            "all": lambda entry: True,
            "without": lambda entry: not entry.text,
            "captioned": lambda entry: bool(entry.text),
            "failed": lambda entry: bool(entry.failure),
        }

        def has(entry: Entry) -> bool:
            text = f"{entry.item.relative}\n{entry.text}".casefold()
            return all(word in text for word in wanted)

        with self._lock:
            entries = [(index, self._entries[index]) for index in self._order]
        return [
            index
            for index, entry in entries  # with nobody held up meanwhile
            if passes[only](entry) and (not wanted or has(entry))
        ]

    def rows(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """What there is to show of these files, as it stands on disk now."""
        with self._lock:
            found = []
            for index in indices:
                entry = self._entry(index)
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
                    }
                )
            return found

    def edit(self, index: int, text: str, version: str) -> None:
        """Writes ``text`` in the trainer's form; an empty one takes the caption away. ``version``:
        of what the edit was made on. Raises ``Conflict``, and ``BadImage`` where it cannot be
        written."""
        with self._lock:
            entry = self._entry(index)
            if not entry.is_there:
                raise BadImage(f"{entry.item.relative} is gone: its caption is left as it is.")
            before = self._now(index)
            if version_of(before) != version:
                raise Conflict(index, "The caption was changed meanwhile.")
            after = self._captions.form(text)
            self._check(after)
            if after == before or (after is None and not text_of(before)):
                return
            self._put(index, after)
            self._undo = [*self._undo[1 - MOST_UNDONE :], _Edit(index, before, after)]
            self._redo.clear()
            self._note_failure(entry, "")

    def undo(self) -> int | None:
        """Takes the last edit back; its file, or None where there is none. Raises ``Conflict``
        where the caption was changed since; that edit is then no longer one to undo."""
        return self._move(self._undo, self._redo, is_undo=True)

    def redo(self) -> int | None:
        """Undoes an ``undo``, as that."""
        return self._move(self._redo, self._undo, is_undo=False)

    def fail(self, index: int, reason: str) -> None:
        """Notes why a file that was asked about has got no new caption."""
        with self._lock:
            self._note_failure(self._entry(index), reason)

    def refresh(self) -> None:
        """Looks at all captions, and at the list of failures."""
        self._read_failures()
        for index in self._order[:]:
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
                log.exception("The folder is not listed to its end.")
                self.errors = [f"The folder is not listed to its end: {error}"]
            wait = max(PAUSE, SHARE * (time.monotonic() - begun))

    def _move(self, source: list[_Edit], target: list[_Edit], is_undo: bool) -> int | None:
        with self._lock:
            if not source:
                return None
            edit = source[-1]
            old, new = (edit.after, edit.before) if is_undo else (edit.before, edit.after)
            if version_of(self._now(edit.index)) != version_of(old):
                source.pop()
                raise Conflict(edit.index, "The caption was changed since by another program.")
            self._put(edit.index, new)
            target.append(source.pop())
            return edit.index

    def _entry(self, index: int) -> Entry:
        if not 0 <= index < len(self._entries):
            raise BadOption(f"There is no file number {index}.")
        return self._entries[index]

    def _now(self, index: int) -> Held:
        try:
            return self._captions.held(self._entry(index).item)
        except OSError as error:
            raise BadImage(f"The caption cannot be read: {error.strerror}.") from error

    def _put(self, index: int, held: Held) -> None:
        item = self._entry(index).item
        try:
            self._captions.put(item, held)
        except OSError as error:
            raise BadImage(f"The caption cannot be written: {error.strerror}.") from error
        self._look(index, anyway=True)

    def _check(self, held: Held) -> None:
        if not (self.trainer.task and held):
            return
        try:
            json.loads(held)
        except ValueError as error:
            raise BadImage(
                f"The trainer {self.trainer.name} reads JSON, and this is none: {error}."
            ) from error

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
        if entry.is_there:
            self._captioned += bool(text) - bool(entry.text)
        entry.text, entry.version, entry.problem, entry.stamp = text, version, problem, stamp

    def _note_failure(self, entry: Entry, reason: str) -> None:
        if entry.failure != reason:
            if entry.is_there:
                self._failed += bool(reason) - bool(entry.failure)
            entry.failure = reason

    def _read_failures(self) -> None:
        """Of the last caption runs over the folder, where they have changed."""
        paths = sorted((self.folder / FOLDER).glob(f"*{FAILED}"))
        with contextlib.suppress(OSError):  # one that a run has just taken away
            stamp = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
            if stamp == self._failures_stamp:
                return
            rows = [row for path in paths for row in Journal(path).rows()]
            self._failures_stamp = stamp
            self._failures = {row["file"]: str(row.get("reason", "")) for row in rows}
            with self._lock:
                for entry in self._entries:
                    self._note_failure(entry, self._failures.get(entry.item.relative, ""))
