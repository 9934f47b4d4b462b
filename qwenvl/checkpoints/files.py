"""Bounded reading of a model folder's files, and their names, sizes and errors as text.

A model folder may hold anything: other programs' files, devices, links, files made to do harm. The
functions here read a bounded part of regular files only, or raise ``IncompleteCheckpoint``.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import IncompleteCheckpoint
from ..unicode import well_formed

MAX_SETTINGS = 10_000_000
"""Bytes of a settings file; real ones have a few thousand."""

_LFS_POINTER = b"version https://git-lfs"


def list_files(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size in bytes and modification time (ns) of every entry of ``folder``, sorted. Raises
    ``OSError`` where the folder cannot be listed."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                state = entry.stat()
            except FileNotFoundError:  # a link whose target is gone
                continue
            except OSError:  # it exists; whoever opens it gets the reason why it cannot be read
                found.append((entry.name, 0, 0))
            else:
                found.append((entry.name, state.st_size, state.st_mtime_ns))
    return sorted(found)


def open_regular(path: Path) -> BinaryIO:
    """``path``, open for reading. Raises ``OSError``, and ``IncompleteCheckpoint`` for anything but
    a regular file (opening a pipe would block for ever, a device could do anything) and for a Git
    LFS pointer in place of the file."""
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "a folder" if path.is_dir() else "no regular file"
        raise IncompleteCheckpoint(f"is unreadable (it is {kind})", (path.name,))
    file = path.open("rb")
    if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
        file.close()
        message = "is a Git LFS pointer, a note in place of the file"
        raise IncompleteCheckpoint(message, (path.name,))
    file.seek(0)
    return file


def read_json(path: Path, max_bytes: int = MAX_SETTINGS) -> Any:
    """The parsed file. Raises ``IncompleteCheckpoint`` where it is absent, not JSON, or longer
    than ``max_bytes``."""
    try:
        with open_regular(path) as file:
            content = file.read(max_bytes + 1)
        if len(content) > max_bytes:
            raise ValueError(f"it is longer than {readable_size(max_bytes)}")
        return json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise IncompleteCheckpoint("is missing", (path.name,)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise IncompleteCheckpoint(f"is unreadable ({reason(error)})", (path.name,)) from error


def read_settings(folder: Path, name: str, max_bytes: int = MAX_SETTINGS) -> dict[str, Any]:
    """The JSON object in the file ``name`` of a checkpoint. Raises ``IncompleteCheckpoint``,
    worded for a person, where it is absent, cut off or something else."""
    try:
        found = read_json(folder / name, max_bytes)
        if not isinstance(found, dict):
            raise IncompleteCheckpoint("holds no JSON object")
    except IncompleteCheckpoint as error:
        raise IncompleteCheckpoint(
            f"{name} of {folder.name} {error}. Download it again; only what is missing or damaged "
            "is fetched.",
            (name,),
        ) from error
    return found


def readable_size(nbytes: float) -> str:
    """``nbytes`` for a person: ``812 B``, ``4.1 GB``; powers of 1000, as on the hubs."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 999.5:
            return f"{nbytes:.3g} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def reason(error: Exception) -> str:
    """``error`` in a few words, without the path that an ``OSError`` names."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8 text"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def printable(text: str, max_length: int = 1000) -> str:
    """``text``, which may quote names and values from anywhere, as it can be printed, sent and
    saved: well-formed Unicode of bounded length."""
    text = well_formed(text)
    return text if len(text) <= max_length else f"{text[:max_length]}..."


def short_repr(value: Any) -> str:
    """``repr(value)``, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
