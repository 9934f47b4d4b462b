"""Whether safetensors files are whole, read from their headers: about a millisecond a file.

A file is 8 bytes of header length (little endian), that many bytes of JSON which names each
tensor with its ``data_offsets``, and the data, without gaps
(https://huggingface.co/docs/safetensors). A cut-off file is thus seen without reading its data.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import IncompleteCheckpoint

MAX_HEADER = 100_000_000
"""Bytes; the bound that the format's own library sets."""

_LFS_POINTER = b"version https://git-lfs"


def readable_size(nbytes: float) -> str:
    """``nbytes`` for a person: ``812 B``, ``4.1 GB``; thousands, as shops and hubs count."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 999.5:
            return f"{nbytes:.3g} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def refuse_pointer(path: Path) -> None:
    """Raises ``IncompleteCheckpoint`` if Git LFS left its note in place of the file."""
    with path.open("rb") as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            raise IncompleteCheckpoint(
                "is a Git LFS pointer, a note in place of the file", (path.name,)
            )


def read_json(path: Path) -> Any:
    """The parsed file. Raises ``IncompleteCheckpoint`` where it is absent or not JSON."""
    try:
        refuse_pointer(path)
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise IncompleteCheckpoint("is missing", (path.name,)) from None
    except (OSError, ValueError) as error:
        raise IncompleteCheckpoint(f"is unreadable ({error})", (path.name,)) from error


def settings(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in the file ``name`` of a checkpoint. Raises ``IncompleteCheckpoint``,
    worded for a person, where it is absent, cut off or something else."""
    try:
        found = read_json(folder / name)
        if not isinstance(found, dict):
            raise IncompleteCheckpoint("holds no JSON object")
    except IncompleteCheckpoint as error:
        raise IncompleteCheckpoint(
            f"{name} of {folder.name} {error}. Download it again; only what is missing or damaged "
            "is fetched.",
            (name,),
        ) from error
    return found


def tensor_names(path: Path) -> frozenset[str]:
    """Names of the tensors in a whole safetensors file. Raises what ``header`` raises."""
    return frozenset(header(path))


def header(path: Path) -> dict[str, Any]:
    """What a whole safetensors file holds: for each tensor its ``dtype`` (the format's name, such
    as ``BF16``), ``shape`` and ``data_offsets`` (begin and end in bytes).

    Raises ``IncompleteCheckpoint`` with what is wrong ("is cut off: ...") and the file's name in
    ``missing`` where the file is absent, short, too long or not safetensors at all.
    """
    try:
        refuse_pointer(path)
        found, start, size = _read_header(path)
        end = max((entry["data_offsets"][1] for entry in found.values()), default=0)
    except FileNotFoundError:
        raise IncompleteCheckpoint("is missing", (path.name,)) from None
    except OSError as error:
        raise IncompleteCheckpoint(f"is unreadable ({error})", (path.name,)) from error
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise IncompleteCheckpoint("is damaged: its header is unreadable", (path.name,)) from None
    if size != start + end:
        what = "is cut off" if size < start + end else "is damaged"
        raise IncompleteCheckpoint(
            f"{what}: {readable_size(size)} of {readable_size(start + end)} ({size} bytes of "
            f"{start + end})",
            (path.name,),
        )
    return found


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header without metadata, where the data starts, and the file's size."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or size < 8 + length <= 8 + MAX_HEADER:
            raise IncompleteCheckpoint(f"is cut off after {readable_size(size)}", (path.name,))
        if length > MAX_HEADER:
            raise ValueError("header length")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length, size
