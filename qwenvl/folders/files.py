"""Atomic file replacement: a file holds its old content or its new one, never a part of either."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

LONGEST_NAME = 255
"""Bytes of a file's name on common file systems."""

TRIES, FIRST_WAIT = 9, 0.01
"""How often a replacement is tried, and seconds before the second try, each wait being twice the
one before: 2.5 s in all. Windows refuses it while a virus scanner or an indexer has the file open.
"""


def near_name(path: Path, before: str, behind: str) -> Path:
    """A name made of that of ``path``, or of a hash of it where it would be too long for a disk."""
    name = f"{before}{path.name}{behind}"
    if len(os.fsencode(name)) > LONGEST_NAME:
        digest = hashlib.blake2b(os.fsencode(path.name), digest_size=16).hexdigest()
        name = f"{before}{digest}{behind}"
    return path.with_name(name)


def partial_name(path: Path) -> Path:
    """Where the new content of ``path`` is written before it takes its place: beside it, hidden,
    and of no kind that a trainer reads. Always the same, so that a crash leaves one at most."""
    return near_name(path, ".", ".qwenvl-part")


def write(path: Path, data: bytes, durable: bool = False) -> None:
    """Writes ``path`` as a whole or not at all, as ``replacing`` does. Raises ``OSError``."""
    with replacing(path, durable) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: Path, durable: bool = False) -> Iterator[BinaryIO]:
    """A new file, which takes the place of ``path`` when the block has come to its end. A link is
    followed; what stands there keeps its mode.

    ``durable``: on disk before it takes the place of what was there, so that not even a power cut
    costs both. Without it a power cut, unlike a crash of the process, may leave an empty file.
    Raises ``OSError``, also where another process has begun to write the same file meanwhile.
    """
    path = Path(os.path.realpath(path))
    partial = partial_name(path)
    partial.unlink(missing_ok=True)  # of a crash, or a link that somebody put there
    is_ours = True
    try:
        with partial.open("xb") as file:  # never through a link
            yield file
            file.flush()
            if durable:
                os.fsync(file.fileno())
            # While it is open, no other file can have its number.
            is_ours = _is_same(partial, file)
            if not is_ours:
                raise OSError(errno.EBUSY, "Another program is writing it")
            _keep_mode(path, partial)
        replace(partial, path)
    except BaseException:
        if is_ours:
            with contextlib.suppress(OSError):
                partial.unlink()
        raise


def _is_same(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def _keep_mode(path: Path, partial: Path) -> None:
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
