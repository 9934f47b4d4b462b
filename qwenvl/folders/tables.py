"""Caption tables: JSONL and CSV files of all captions of a folder.

While a run goes on, its captions lie in a journal, a line each; at its end, whatever the end is but
a kill, they are merged into the table, which is replaced as a whole. What a kill has left is merged
when the next run begins. A row that has changed since its file was asked about is left as it is, so
that merging the same journal again changes nothing.
"""

from __future__ import annotations

import codecs
import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from ..errors import BadImage, QwenVLError
from ..unicode import well_formed
from . import files
from .journals import Journal, Keys, digest
from .listing import Item, key_of
from .sidecars import Existing
from .state import State
from .table_files import Table, tables_of
from .trainers import Trainer


class TableStore:
    """Captions in a table, or in one of pictures and one of clips. Rows that others wrote stay, as
    do their other columns. ``keeps_old``: captions that are there are kept in memory, to be
    refined.

    Raises ``BadOption`` for a CSV file without the columns that the trainer reads."""

    def __init__(
        self,
        state: State,
        trainer: Trainer,
        existing: Existing,
        identity: str,
        keeps_old: bool = False,
    ):
        self._state, self._trainer = state, trainer
        self._tables = tables_of(trainer, state.root)
        self._goes_on = existing == "overwrite"
        self._keeps_old = keeps_old
        self._kind = f"{trainer.name}-"
        self._own = f"{self._kind}{identity}"
        self._journal = Journal(state.journal_of(self._own))
        journals = state.journals(self._own if self._goes_on else self._kind)
        self._done = self._done_before(journals)
        self._was = Keys()
        self._old: dict[int, str] = {}

    def begin(self) -> None:
        """Merges what runs have left that were killed."""
        going_on = {journal.path for journal in self._state.journals(self._own)}
        for journal in self._state.journals(self._kind):
            self._merge(journal)
            self._settle(journal, self._goes_on and journal.path in going_on)
        if self._goes_on:
            self._was = Keys((key, _digest(text)) for key, text in self.captions())
        self._old = dict(self.captions()) if self._keeps_old else {}

    def _done_before(self, journals: list[Journal]) -> Keys:
        """What nothing is to be done about. Of rows that were taken away since, whose captions had
        been merged, nothing is done."""
        there = ((key, 0) for key, _ in self.captions())
        rows = (row for journal in journals for row in journal.rows())
        if not self._goes_on:
            added = ((key_of(row["file"]), 0) for row in rows if row.get("was") == 0)
            return Keys(itertools.chain(added, there))
        known = Keys(there if journals else ())
        keyed = ((key_of(row["file"]), row) for row in rows)
        return Keys((key, 0) for key, row in keyed if _has_text(row) or key in known)

    def has(self, item: Item) -> bool:
        return item.key in self._done

    def problem(self, item: Item) -> str:
        """Why ``item`` can have no row of its own; empty where it can."""
        if well_formed(item.relative) != item.relative:
            return (
                "Its name is no valid Unicode, so that a table cannot name it: rename it, or "
                "choose a trainer with text files."
            )
        return ""

    def held(self, item: Item) -> int:
        """Of the caption that was there when the run began: 64 bits, 0 of none."""
        return self._was.find(item.key) or 0

    def old(self, item: Item) -> str:
        return self._old.get(item.key, "")

    def put(self, item: Item, caption: str, held: int) -> None:
        """Raises ``OSError``."""
        self._journal.add(file=item.relative, clip=item.is_clip, text=caption, was=held)

    def replace(self, item: Item, caption: str | None) -> None:
        """Writes the caption of one file into its table at once; None takes its row away or, where
        it has other columns, empties its caption. Raises ``BadImage`` for a name that no table in
        UTF-8 can hold, and as ``close`` does."""
        if problem := self.problem(item):
            raise BadImage(problem)
        row = {"file": item.relative, "clip": item.is_clip, "text": caption}
        self._merge(_Row(row))

    def finish(self, is_complete: bool) -> None:
        """The run has gone through all files: the next one begins anew, unless some failed."""
        self.close()
        if self._goes_on and is_complete:
            for journal in self._state.journals(self._own):
                self._state.forget(journal)

    def notes(self) -> list[str]:
        """Of each table, how many rows have no file any more: trainers fail on them."""
        return [note for table in self._tables if (note := _note_of_rows_without_files(table))]

    def close(self) -> None:
        self._journal.close()
        self._merge(self._journal)
        self._settle(self._journal, self._goes_on)

    def _settle(self, journal: Journal, is_gone_on_with: bool) -> None:
        """Leaves of a journal that is merged only which files it was about, to go on from there."""
        if not is_gone_on_with:
            journal.remove()
        elif any(_has_text(row) for row in journal.rows()):
            journal.reduce(lambda row: {"file": row["file"]})

    @property
    def paths(self) -> list[Path]:
        """Of its tables."""
        return [table.path for table in self._tables]

    def captions(self) -> Iterator[tuple[int, str]]:
        """The key and the caption of each row of the tables that has one."""
        for table in self._tables:
            for key, row, _ in table.rows():
                text = row.get(table.text)
                if key is not None and isinstance(text, str) and text.strip():
                    yield key, text

    def _merge(self, journal: _Rows) -> None:
        """Puts what is in ``journal`` into the tables."""
        with self._state.merging():
            for table in self._tables:
                numbers = enumerate(journal.rows())
                found = Keys(
                    (key_of(row["file"]), number)
                    for number, row in numbers
                    if _has_text(row) and table.of_clips in (None, bool(row.get("clip")))
                )
                if len(found):
                    try:
                        _replace(table, journal, found)
                    except OSError as error:
                        raise QwenVLError(
                            f"{table.path} cannot be written to: {error.strerror}. What was "
                            "captioned is kept, and the same command goes on from here."
                        ) from error


def _replace(table: Table, journal: _Rows, found: Keys) -> None:
    """Writes the table anew: its rows in their order, then those that are new."""
    there = {
        key: _digest(row.get(table.text))
        for key, row, _ in table.rows()
        if key is not None and key in found
    }
    changed: dict[int, str | None] = {}
    for key, row in _last(journal, found):
        if key in there and row.get("was", there[key]) == there[key]:
            changed[key] = row["text"]
    with files.replacing(table.path, durable=True) as raw:
        write = table.writer(codecs.getwriter("utf-8")(raw))
        for of, row, line in table.rows():
            if of is None or of not in changed:
                write(row, line)
            elif (text := changed[of]) is not None or len(row) > 2:
                write({**row, table.text: text or ""}, "")
        for key, row in _last(journal, found):
            # One that was there, and is no longer, was taken away by somebody.
            if key not in there and not row.get("was") and row["text"] is not None:
                write({table.column: table.name_of(row["file"]), table.text: row["text"]}, "")


def _note_of_rows_without_files(table: Table) -> str:
    count, first = 0, ""
    for _, row, _ in table.rows():
        relative = table.relative(row.get(table.column))
        if relative is not None and not os.path.exists(table.root / relative):
            count, first = count + 1, first or relative
    if not count:
        return ""
    name = json.dumps(well_formed(first), ensure_ascii=False)
    return (
        f"{table.name} has rows of files that are gone ({count:,}), such as {name}: trainers fail "
        "on them. Take them out."
    )


def _has_text(row: dict[str, Any]) -> bool:
    """Whether a row of a journal is to be merged, or only says that its file is done."""
    return "text" in row


def _digest(text: object) -> int:
    """64 bits of a caption that is there; 0 of none."""
    if not isinstance(text, str) or not text.strip():
        return 0
    return digest(text.encode("utf-8", "surrogatepass"))


class _Rows(Protocol):
    """Rows of a journal."""

    def rows(self) -> Iterator[dict[str, Any]]: ...


def _last(journal: _Rows, found: Keys) -> Iterator[tuple[int, dict[str, Any]]]:
    """The last row of each file that is in ``found``, with its key."""
    for number, row in enumerate(journal.rows()):
        key = key_of(row["file"])
        if found.find(key) == number:
            yield key, row


class _Row:
    """A single one."""

    def __init__(self, row: dict[str, Any]):
        self._row = row

    def rows(self) -> Iterator[dict[str, Any]]:
        yield self._row
