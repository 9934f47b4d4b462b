"""Caption tables: JSONL and CSV files of all captions of a folder.

While a run goes on, its captions lie in a journal, a line each; at its end, whatever the end is but
a kill, they are merged into the table, which is replaced as a whole. What a kill has left is merged
when the next run begins. Merging the same journal again changes nothing.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TextIO

from ..errors import BadImage, BadOption, QwenVLError
from ..unicode import well_formed
from . import files
from .listing import Item, key_of
from .sidecars import Existing
from .state import Journal, Keys, State
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
        self._goes_on = existing == "overwrite"
        self._journal = Journal(state.journal_of(f"{self._kind}{identity}"))
        journals = [Journal(path) for path in state.journals(self._kind)]
        if self._goes_on:
            journals = [self._journal]
        done = ((key_of(row["file"]), 0) for journal in journals for row in journal.rows())
        there = () if self._goes_on else ((key, 0) for key, _ in self.captions())
        self._done = Keys(itertools.chain(done, there))
        self._old = dict(self.captions()) if keeps_old else {}

    @property
    def _kind(self) -> str:
        return f"{self._trainer.name}-"

    def begin(self) -> None:
        """Merges what runs have left that were killed, but for the one that is gone on with."""
        for path in self._state.journals(self._kind):
            if not (self._goes_on and path == self._journal.path):
                left = Journal(path)
                self._merge(left)
                left.remove()

    def has(self, item: Item) -> bool:
        return item.key in self._done

    def taken_by(self, item: Item) -> str:
        """Each file has its own row."""
        return ""

    def old(self, item: Item) -> str:
        return self._old.get(item.key, "")

    def put(self, item: Item, caption: str) -> None:
        """Raises ``OSError``, and ``BadImage`` for a name that no table in UTF-8 can hold."""
        self._check_name(item)
        self._journal.add(file=item.relative, clip=item.is_clip, text=caption)

    def replace(self, item: Item, caption: str | None) -> None:
        """Writes the caption of one file into its table at once; None takes its row away or, where
        it has other columns, empties its caption. Raises as ``put`` and ``finish`` do."""
        self._check_name(item)
        row = {"file": item.relative, "clip": item.is_clip, "text": caption}
        self._merge(_Row(row))

    def finish(self) -> None:
        self._merge(self._journal)
        self._journal.remove()

    def _check_name(self, item: Item) -> None:
        if well_formed(item.relative) != item.relative:
            raise BadImage(
                "Its name is no valid Unicode, so that a table cannot name it: rename it, or "
                "choose a trainer with text files."
            )

    def close(self) -> None:
        self._journal.close()
        self._merge(self._journal)

    @property
    def paths(self) -> list[Path]:
        """Of its tables."""
        return [path for path, _, _ in self._tables]

    @property
    def _tables(self) -> list[tuple[Path, str, bool | None]]:
        """Each table with the name of its column of paths, and whether it is of clips (None: of
        both)."""
        trainer, root = self._trainer, self._state.root
        if not trainer.clip_table:
            return [(root / trainer.table, trainer.path, None)]
        return [
            (root / trainer.table, trainer.path, False),
            (root / trainer.clip_table, trainer.clip_path or trainer.path, True),
        ]

    def captions(self) -> Iterator[tuple[int, str]]:
        """The key and the caption of each row of the tables that has one."""
        for path, column, _ in self._tables:
            for key, row, _ in self._rows(path, column):
                text = row.get(self._trainer.text)
                if key is not None and isinstance(text, str) and text.strip():
                    yield key, text

    def _merge(self, journal: _Rows) -> None:
        """Puts what is in ``journal`` into the tables."""
        with self._state.merging():
            for path, column, of_clips in self._tables:
                numbers = enumerate(journal.rows())
                found = Keys(
                    (key_of(row["file"]), number)
                    for number, row in numbers
                    if of_clips in (None, bool(row.get("clip")))
                )
                if len(found):
                    try:
                        self._replace(path, column, journal, found)
                    except OSError as error:
                        raise QwenVLError(
                            f"{path} cannot be written to: {error.strerror}. What was captioned "
                            "is kept, and the same command goes on from here."
                        ) from error

    def _replace(self, path: Path, column: str, journal: _Rows, found: Keys) -> None:
        """Writes the table anew: its rows in their order, then those that are new."""
        changed = self._changed(path, column, journal, found)
        partial = files.partial_name(path)
        try:
            with partial.open("w", encoding="utf-8", newline="") as file:
                write = self._writer(file, path, column)
                there: list[tuple[int, int]] = []
                for key, row, line in self._rows(path, column):
                    if key is not None and key in found:
                        there.append((key, 0))
                        text = changed.get(key)
                        if text is not None or len(row) > 2:
                            write({**row, self._trainer.text: text or ""}, "")
                    else:
                        write(row, line)
                old = Keys(there)
                for number, row in enumerate(journal.rows()):
                    key = key_of(row["file"])
                    if found.find(key) == number and key not in old and row["text"] is not None:
                        write(
                            {column: self._path(row["file"]), self._trainer.text: row["text"]}, ""
                        )
                file.flush()
                os.fsync(file.fileno())
            files.keep_mode(path, partial)
            files.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise

    def _changed(
        self, path: Path, column: str, journal: _Rows, found: Keys
    ) -> dict[int, str | None]:
        """The new captions of rows that the table has already."""
        there = {key for key, _, _ in self._rows(path, column) if key is not None and key in found}
        rows = journal.rows() if there else ()
        return {key: row["text"] for row in rows if (key := key_of(row["file"])) in there}

    def _path(self, relative: str) -> str:
        return str((self._state.root / relative).absolute()) if self._trainer.absolute else relative

    def _key(self, value: object) -> int | None:
        """Of a path in a table; None where it is none below the folder."""
        if not isinstance(value, str):
            return None
        path = value.replace("\\", "/") if os.sep == "\\" else value
        if os.path.isabs(value):
            with contextlib.suppress(ValueError):  # another drive
                path = os.path.relpath(value, self._state.root.absolute()).replace(os.sep, "/")
        return key_of(path.removeprefix("./"))

    def _rows(self, path: Path, column: str) -> Iterator[tuple[int | None, dict[str, Any], str]]:
        """Key, columns and text of each row. A line of JSONL that is none stays as it is."""
        try:
            file = path.open(encoding="utf-8-sig", newline="")
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadOption(f"{path} cannot be read: {error.strerror}.") from error
        with file:
            try:
                if self._trainer.store == "csv":
                    reader = csv.DictReader(file)
                    self._check(path, column, reader.fieldnames or ())
                    for row in reader:
                        yield self._key(row.get(column)), row, ""
                    return
                for line in file:
                    if line.strip():
                        read = _json(line)
                        yield self._key(read.get(column)), read, line.rstrip("\r\n")
            except (UnicodeDecodeError, csv.Error) as error:
                raise BadOption(f"{path} cannot be read: {error}") from error

    def _check(self, path: Path, column: str, columns: Any) -> None:
        missing = [name for name in (column, self._trainer.text) if name not in columns]
        if missing:
            raise BadOption(
                f"{path} has no column {missing[0]!r}: its first line has to name {column} and "
                f"{self._trainer.text}. Move it away, or mend that line."
            )

    def _writer(
        self, file: TextIO, path: Path, column: str
    ) -> Callable[[dict[str, Any], str], object]:
        """Writes one row, given as its line where that is as it was."""
        if self._trainer.store == "jsonl":
            return lambda row, line: file.write(f"{line or json.dumps(row, ensure_ascii=False)}\n")
        columns = [column, self._trainer.text]
        with contextlib.suppress(FileNotFoundError), path.open(encoding="utf-8-sig") as old:
            columns = list(csv.DictReader(old).fieldnames or columns)
        table = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        return lambda row, line: table.writerow(row)


class _Rows(Protocol):
    """Rows of a journal."""

    def rows(self) -> Iterator[dict[str, Any]]: ...


class _Row:
    """A single one."""

    def __init__(self, row: dict[str, Any]):
        self._row = row

    def rows(self) -> Iterator[dict[str, Any]]:
        yield self._row


def _json(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
