"""Atomic file replacement: a file holds its old content or its new one, never a part of either."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from pathlib import Path

TRIES, FIRST_WAIT = 9, 0.01
"""How often a replacement is tried, and seconds before the second try, each wait being twice the
one before: 2.5 s in all. Windows refuses it while a virus scanner or an indexer has the file open.
"""


def partial_name(path: Path) -> Path:
    """Where the new content of ``path`` is written before it takes its place: beside it, hidden,
    and of no kind that a trainer reads. Always the same, so that a crash leaves one at most."""
    return path.with_name(f".{path.name}.qwenvl-part")


def write(path: Path, data: bytes, durable: bool = False) -> None:
    """Writes ``path`` as a whole or not at all. A link is followed; what stands there keeps its
    mode.

    ``durable``: on disk before it takes the place of what was there, so that not even a power cut
    costs both. Without it a power cut, unlike a crash of the process, may leave an empty file.
    Raises ``OSError``.
    """
    path = Path(os.path.realpath(path))
    partial = partial_name(path)
    try:
        with partial.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        keep_mode(path, partial)
        replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def keep_mode(path: Path, partial: Path) -> None:
    """Gives ``partial`` the permissions of ``path``, where that is there."""
    with contextlib.suppress(OSError):  # a file system without permissions
        partial.chmod(stat.S_IMODE(path.stat().st_mode))


def replace(partial: Path, path: Path) -> None:
    """``os.replace``, tried again while something has the file open on Windows."""
    for attempt in range(TRIES):
        try:
            os.replace(partial, path)
            return
        except PermissionError:
            if attempt == TRIES - 1:
                raise
            time.sleep(FIRST_WAIT * 2**attempt)


def sync(file: int) -> None:
    """Puts what was written to a file descriptor on disk, where its file system can do that."""
    with contextlib.suppress(OSError):
        os.fsync(file)
