"""State of a run in the hidden folder of the folder that it captions: locks, journals, backups.

Nothing in it, and none of the files that are written beside pictures before they take their place,
ends in a way that a trainer reads.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import BadOption, QwenVLError, Unavailable
from . import files
from .journals import Journal
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

_LOCKS = "*-of-*.lock"
_NO_LOCKS = (OSError, NotImplementedError)
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
        self._has_warned = False

    def acquire(self) -> None:
        self._make_folder()
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

    def new_failures(self) -> Journal:
        """The list of what this run could not caption, ``file`` and ``reason``, begun anew. Lists
        of runs over other shards name these files no longer."""
        own = Journal(self.folder / f"{self.name}{FAILED}")
        own.remove()
        for path in sorted(self.folder.glob(f"*{FAILED}")):
            if not self._is_apart(path.stem):
                with contextlib.suppress(OSError):  # lists for later are worth no run
                    self.forget(Journal(path))
        return own

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
        """While a table is replaced, which all shards have part in; waits for the others. Raises
        ``QwenVLError`` where the folder is gone."""
        self._make_folder()
        lock = self._file_lock(self.folder / "table.lock")
        try:
            lock.acquire()
        except _NO_LOCKS as error:
            self._warn(error)
        try:
            yield
        finally:
            lock.release()

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise QwenVLError(
                f"{self.root} cannot be written to: {error.strerror}. Journals are kept there."
            ) from error
        self._refuse_links()

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
        """A lock that is held, or would be if this disk had such."""
        lock = self._file_lock(path)
        try:
            if not _is_acquired(lock):
                raise BadOption(
                    f"Another run is captioning {self.root} (shard "
                    f"{path.stem.replace('-of-', '/')}). Wait for its end, or give each its own "
                    "shard, such as 1/2 and 2/2."
                )
        except _NO_LOCKS as error:
            self._warn(error)
        return lock

    def _file_lock(self, path: Path) -> BaseFileLock:
        try:
            from filelock import FileLock
        except ImportError as error:
            raise Unavailable(
                "Folders are locked while they are captioned, and filelock is not installed: "
                "pip install filelock"
            ) from error
        return FileLock(str(path), thread_local=False)

    def _warn(self, error: Exception) -> None:
        """Once: that this disk has no locks."""
        if not self._has_warned:
            self._has_warned = True
            log.warning(
                "%s has no locks (%s): see to it that only one run captions it at a time.",
                self.root, error,
            )  # fmt: skip


def _is_acquired(lock: BaseFileLock) -> bool:
    """Whether it is held now, by us. Raises ``_NO_LOCKS``."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=PATIENCE, poll_interval=0.01)
    except Timeout:  # an OSError, too
        return False
    return True


def is_busy(folder: Path, root: Path | None = None) -> bool:
    """Whether a run is captioning ``folder`` now: from itself or, where that is a link, from a
    folder that it leads into. ``root``: the folder of the run that asks, which is not meant."""
    places = [folder, *folder.resolve().parents] if folder.is_symlink() else [folder]
    own = root.resolve() if root and len(places) > 1 else None
    found = (path for place in places if place != own for path in (place / FOLDER).glob(_LOCKS))
    return any(map(_is_held, found))


def _is_held(path: Path) -> bool:
    from filelock import FileLock

    if path.is_symlink():  # none of ours, and opened wherever it leads
        return False
    lock = FileLock(str(path), thread_local=False)
    try:
        return not _is_acquired(lock)
    except _NO_LOCKS:
        return False  # of another user, or without locks
    finally:
        lock.release()
