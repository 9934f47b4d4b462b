"""State of a run in the hidden folder of the folder that it captions: locks, journals, backups.

Nothing in it, and none of the files that are written beside pictures before they take their place,
ends in a way that a trainer reads.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BadOption, QwenVLError, Unavailable
from . import files
from .listing import LEADS_OUT, Item, Shard, leads_out

if TYPE_CHECKING:
    from filelock import BaseFileLock

log = logging.getLogger(__name__)

FOLDER = ".qwenvl-captions"
PATIENCE = 0.5
"""Seconds that a lock is waited for: other runs that start now hold it for an instant, to see
whether it is free."""

FAILED = ".failed"
"""How the names of lists of failures end."""

SYNC_EVERY = 64
"""Lines of a journal between two times that it is put on disk."""

_LOCKS = "*-of-*.lock"
_JOURNAL = re.compile(r"(\d+-of-\d+)-(.*)\.journal")


class State:
    """The hidden folder of ``root``, and the lock on the shard that this run works on. ``within``:
    a resolved path out of which nothing is written, if one is given.

    ``acquire`` raises ``BadOption`` while another run works on a part of the same files, and for
    links that lead out of ``within``: the system gives up the lock of a process that has ended, in
    whatever way, so that none is stale."""

    def __init__(self, root: Path, shard: Shard, within: Path | None = None):
        self.root, self.shard, self.within = root, shard, within
        self.folder = root / FOLDER
        self.name = f"{shard.number}-of-{shard.count}"
        self._lock: BaseFileLock | None = None

    def acquire(self) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise QwenVLError(
                f"{self.root} cannot be written to: {error.strerror}. Journals are kept there."
            ) from error
        self._refuse_links()
        self._lock = self._locked(self._path_of(self.name))
        # Its own lock first, then a look at the others': of two that begin at once, both may be
        # refused, but never neither.
        try:
            for path in self.folder.glob(_LOCKS):
                if path != self._path_of(self.name) and not self._is_apart(path.stem):
                    self._locked(path).release()
            for folder in self.root.resolve().parents:
                if is_busy(folder):
                    raise BadOption(
                        f"Another run is captioning {folder}, which {self.root} lies in. Wait for "
                        "its end."
                    )
        except BadOption:
            self.release()
            raise

    def release(self) -> None:
        """Gives up the lock. Its file stays: another run may be waiting for it."""
        if self._lock:
            self._lock.release()
            self._lock = None

    def backup_of(self, path: Path) -> Path:
        """Where the content is kept that ``path``, below the root, had at first."""
        below = path.relative_to(self.root)
        return self.folder / "backup" / files.near_name(below, "", ".bak")

    def back_up(self, path: Path) -> None:
        """Keeps what ``path`` holds, unless something was kept of it before. Raises ``OSError``."""
        kept = self.backup_of(path)
        if self.within and not Path(os.path.realpath(kept)).is_relative_to(self.within):
            raise OSError(errno.EPERM, f"{kept}: {LEADS_OUT.rstrip('.')}")
        if not kept.exists():
            kept.parent.mkdir(parents=True, exist_ok=True)
            files.write(kept, path.read_bytes(), durable=True)

    @property
    def failures(self) -> Journal:
        """What the last run over this shard could not caption: ``file`` and ``reason``."""
        return Journal(self.folder / f"{self.name}{FAILED}")

    def journal_of(self, identity: str) -> Path:
        return self.folder / f"{self.name}-{identity}.journal"

    def journals(self, of: str) -> list[Journal]:
        """Those whose identities begin with ``of``, the oldest first: of this shard and, since a
        folder may be parted in another way each time, of all that have files in common with it.
        None of them is of a run that goes on: that would be locked out, or this one."""
        found: list[tuple[float, Path]] = []
        for path in self.folder.glob("*.journal"):
            parts = _JOURNAL.fullmatch(path.name)
            if parts and parts[2].startswith(of) and not self._is_apart(parts[1]):
                found.append((path.stat().st_mtime, path))
        return [Journal(path) for _, path in sorted(found)]

    def forget(self, journal: Journal) -> None:
        """Takes what it says of the files of this shard out of a journal."""
        journal.reduce(lambda row: None if self.shard.has(Item(self.root, row["file"])) else row)

    @contextlib.contextmanager
    def merging(self) -> Iterator[None]:
        """While a table is replaced, which all shards have part in; waits for the others."""
        from filelock import FileLock

        self.folder.mkdir(exist_ok=True)
        self._refuse_links()
        with FileLock(str(self.folder / "table.lock")):
            yield

    def _refuse_links(self) -> None:
        for path in (self.folder, *self.folder.iterdir()) if self.within else ():
            if leads_out(path, self.within):
                raise BadOption(
                    f"{path} is a link that leads out of the folders that may be used: take it "
                    "away."
                )

    def _path_of(self, name: str) -> Path:
        return self.folder / f"{name}.lock"

    def _is_apart(self, name: str) -> bool:
        """Whether a run of that shard has no file in common with this one."""
        number, _, count = name.partition("-of-")
        return count == str(self.shard.count) and number != str(self.shard.number)

    def _locked(self, path: Path) -> BaseFileLock:
        try:
            from filelock import FileLock, Timeout
        except ImportError as error:
            raise Unavailable(
                "Folders are locked while they are captioned, and filelock is not installed: "
                "pip install filelock"
            ) from error
        lock = FileLock(str(path), thread_local=False)
        try:
            lock.acquire(timeout=PATIENCE, poll_interval=0.01)
        except Timeout as error:
            raise BadOption(
                f"Another run is captioning {self.root} (shard {path.stem.replace('-of-', '/')}). "
                "Wait for its end, or give each its own shard, such as 1/2 and 2/2."
            ) from error
        except (OSError, NotImplementedError) as error:
            log.warning(
                "%s has no locks (%s): see to it that only one run captions it at a time.",
                self.root, error,
            )  # fmt: skip
        return lock


def is_busy(folder: Path) -> bool:
    """Whether a run is captioning ``folder`` now."""
    return any(_is_held(path) for path in (folder / FOLDER).glob(_LOCKS))


def _is_held(path: Path) -> bool:
    from filelock import FileLock, Timeout

    if path.is_symlink():  # none of ours, and opened wherever it leads
        return False
    lock = FileLock(str(path), thread_local=False)
    try:
        lock.acquire(timeout=PATIENCE, poll_interval=0.01)
    except Timeout:
        return True
    except (OSError, NotImplementedError):
        return False  # of another user, or without locks
    lock.release()
    return False


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
