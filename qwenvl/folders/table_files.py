"""Table files: rows of JSONL and CSV, read and written so that all else in them stays as it is."""

from __future__ import annotations

import codecs
import contextlib
import csv
import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadOption
from .listing import key_of
from .trainers import Trainer

LONGEST_CELL = 1 << 30
"""Characters of a cell that the ``csv`` module is told to read: it takes 131,072 otherwise."""


def tables_of(trainer: Trainer, root: Path) -> list[Table]:
    """A trainer's tables of the folder ``root``: one, or one of pictures and one of clips."""
    if not trainer.clip_table:
        return [Table(trainer, root, trainer.table, trainer.path, None)]
    clip_path = trainer.clip_path or trainer.path
    return [
        Table(trainer, root, trainer.table, trainer.path, False),
        Table(trainer, root, trainer.clip_table, clip_path, True),
    ]


@dataclass(frozen=True)
class Table:
    """The table ``name`` of the files below ``root``. ``column``: of their paths; ``of_clips``:
    whether it is of clips, or of pictures; None: of both."""

    trainer: Trainer
    root: Path
    name: str
    column: str
    of_clips: bool | None

    @property
    def path(self) -> Path:
        return self.root / self.name

    @property
    def text(self) -> str:
        """The column of captions."""
        return self.trainer.text

    @functools.cached_property
    def _prefix(self) -> str:
        return os.path.join(self.root.absolute(), "")

    def name_of(self, relative: str) -> str:
        """What stands in the column of paths for a file below the root."""
        return str((self.root / relative).absolute()) if self.trainer.absolute else relative

    def relative(self, value: object) -> str | None:
        """Of a value in the column of paths: below the root, or with ``..`` before it; None where
        it is no path."""
        if not isinstance(value, str):
            return None
        path = value
        if value.startswith(self._prefix) and os.pardir not in value:
            path = os.path.normpath(value[len(self._prefix) :].lstrip(os.sep))
        elif os.path.isabs(value):
            with contextlib.suppress(ValueError):  # another drive
                path = os.path.relpath(value, self.root.absolute())
                if path.startswith(os.pardir):  # perhaps the folder by another name
                    folder, name = os.path.split(value)
                    real = os.path.join(os.path.realpath(folder), name)
                    path = os.path.relpath(real, os.path.realpath(self.root))
        return path.replace(os.sep, "/").removeprefix("./")

    def rows(self) -> Iterator[tuple[int | None, dict[str, Any], str]]:
        """Key, columns and text of each row. A line of JSONL that is none stays as it is. Raises
        ``BadOption`` for a table that cannot be read."""
        try:
            file = self.path.open(encoding="utf-8-sig", newline="")
        except FileNotFoundError:
            return
        except OSError as error:
            raise BadOption(f"{self.path} cannot be read: {error.strerror}.") from error
        with file:
            try:
                if self.trainer.store == "csv":
                    reader = _csv_reader(file)
                    self._check(reader.fieldnames or ())
                    for row in reader:
                        yield self._key(row), row, ""
                    return
                for line in file:
                    if line.strip():
                        read = _json(line)
                        yield self._key(read), read, line.rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise BadOption(
                    f"{self.path} is not in UTF-8: see line {_first_bad_line(self.path)}. Save it "
                    "as UTF-8."
                ) from error
            except csv.Error as error:
                raise BadOption(f"{self.path} cannot be read: {error}") from error

    def writer(self, file: codecs.StreamWriter) -> Callable[[dict[str, Any], str], object]:
        """Writes one row, given as its line where that is as it was."""
        if self.trainer.store == "jsonl":
            return lambda row, line: file.write(f"{line or json.dumps(row, ensure_ascii=False)}\n")
        columns, line_end = [self.column, self.text], "\n"
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as raw:
            first = raw.readline()
            line_end = "\r\n" if first.endswith(b"\r\n") else "\n"
            file.write("\ufeff" if first.startswith(codecs.BOM_UTF8) else "")
            with self.path.open(encoding="utf-8-sig", newline="") as old:
                columns = list(_csv_reader(old).fieldnames or columns)
        usual = csv.writer(file, lineterminator=line_end)
        quoted = csv.writer(file, lineterminator=line_end, quoting=csv.QUOTE_ALL)

        def write(row: dict[Any, Any], line: str = "") -> None:
            """With the cells that stand behind the last column, which ``DictReader`` puts at None.
            ``csv`` does not quote a cell for a lone carriage return, and reads it as a line end."""
            cells = [*(row.get(name) for name in columns), *row.get(None, ())]
            has_return = any("\r" in cell for cell in cells if cell)
            (quoted if has_return else usual).writerow(cells)

        write({name: name for name in columns})
        return write

    def _key(self, row: dict[str, Any]) -> int | None:
        relative = self.relative(row.get(self.column))
        return None if relative is None else key_of(relative)

    def _check(self, columns: Any) -> None:
        missing = [name for name in (self.column, self.text) if name not in columns]
        if missing:
            raise BadOption(
                f"{self.path} has no column {missing[0]!r}: its first line has to name "
                f"{self.column} and {self.text}. Move it away, or mend that line."
            )


def _csv_reader(file: Any) -> csv.DictReader[str]:
    # One limit for the whole process, which others may rely on being no lower than it was.
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST_CELL))
    return csv.DictReader(file)


def _first_bad_line(path: Path) -> int:
    """The number of the first line that is not UTF-8."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1  # mended meanwhile


def _json(line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError:
        return {}
    return row if isinstance(row, dict) else {}
