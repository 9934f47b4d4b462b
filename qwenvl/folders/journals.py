"""Journals of what runs have done, and sets of files that are small in memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from . import files

SYNC_EVERY = 64
"""Lines of a journal between two times that it is put on disk."""


def digest(data: bytes) -> int:
    """64 bits of a caption that is there; 0 of none."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big") if data else 0


class Journal:
    """Journal: what a run has done, one JSON object a line, only ever appended to.

    A line that a crash cut off is left out, and the next begins behind it. Each has ``file``, a
    relative path; the others' meaning is the writer's."""

    def __init__(self, path: Path):
        self.path = path
        self._file: int | None = None
        self._unsynced = 0

    def rows(self) -> Iterator[dict[str, Any]]:
        """The whole lines, in order."""
        try:
            with self.path.open("rb") as file:
                for line in file:
                    if line.endswith(b"\n") and (row := _row(line)):
                        yield row
        except FileNotFoundError:
            return

    def add(self, **row: Any) -> None:
        """Raises ``OSError``."""
        line = _line(row)
        if self._file is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._file = os.open(self.path, flags, 0o666)
            if _is_torn(self.path):
                line = b"\n" + line
        view = memoryview(line)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError:  # the line may be torn now: the next one looks
            with contextlib.suppress(OSError):
                os.close(self._file)
            self._file = None
            raise
        self._unsynced += 1
        if self._unsynced >= SYNC_EVERY:
            self.sync()

    def sync(self) -> None:
        if self._file is not None:
            files.sync(self._file)
        self._unsynced = 0

    def close(self) -> None:
        if self._file is not None:
            self.sync()
            os.close(self._file)
            self._file = None

    def reduce(self, keep: Callable[[dict[str, Any]], dict[str, Any] | None]) -> None:
        """Writes it anew, with what ``keep`` makes of each row; it is gone where that is nothing.
        Raises ``OSError``."""
        self.close()
        if self.path.exists():
            with files.replacing(self.path, durable=True) as file:
                for row in self.rows():
                    if kept := keep(row):
                        file.write(_line(kept))
                is_empty = file.tell() == 0
            if is_empty:
                self.remove()

    def remove(self) -> None:
        self.close()
        self.path.unlink(missing_ok=True)


def _line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "surrogatepass") + b"\n"


def _row(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line.decode("utf-8", "surrogatepass"))
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("file"), str) else None


def _is_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


class Keys:
    """A set of files with a number for each, of which 64 bits each are kept (see ``Item.key``):
    16 MB for a million."""

    def __init__(self, pairs: Iterable[tuple[int, int]] = ()):
        import numpy as np

        keys, values = array("Q"), array("Q")
        for key, value in pairs:
            keys.append(key)
            values.append(value)
        order = np.argsort(np.frombuffer(keys, np.uint64), kind="stable") if keys else []
        self._keys = np.frombuffer(keys, np.uint64)[order] if keys else np.empty(0, np.uint64)
        self._values = np.frombuffer(values, np.uint64)[order] if keys else self._keys

    def find(self, key: int) -> int | None:
        """The last number given for ``key``."""
        at = bisect_right(self._keys, key) - 1
        return int(self._values[at]) if at >= 0 and int(self._keys[at]) == key else None

    def __contains__(self, key: int) -> bool:
        return self.find(key) is not None

    def __len__(self) -> int:
        return len(self._keys)
