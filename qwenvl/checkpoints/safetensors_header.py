"""Whether safetensors files are whole, read from their headers: about a millisecond a file.

A file is 8 bytes of header length (little endian), that many bytes of JSON which names each
tensor with its ``dtype``, ``shape`` and ``data_offsets``, and the data, without gaps
(https://huggingface.co/docs/safetensors). A cut-off file is thus seen without reading its data.

A model folder may hold anything: other programs' files, devices, links, files made to do harm.
Whatever it is, the functions here read a bounded part of a regular file, or raise
``IncompleteCheckpoint`` with what is wrong.
"""

from __future__ import annotations

import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import IncompleteCheckpoint
from ..unicode import well_formed

MAX_HEADER = 100_000_000
"""Bytes; the bound that the format's own library sets."""
MAX_SETTINGS = 10_000_000
"""Bytes of a file of settings; real ones have a few thousand."""

_LFS_POINTER = b"version https://git-lfs"
_MOST = 2**63 - 1  # bytes that a file can have
_DIMENSIONS = 64  # far more than any tensor has

# Bits of one number of each type that the format knows.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


def readable_size(nbytes: float) -> str:
    """``nbytes`` for a person: ``812 B``, ``4.1 GB``; thousands, as shops and hubs count."""
    for unit in ("B", "kB", "MB", "GB"):
        if nbytes < 999.5:
            return f"{nbytes:.3g} {unit}" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} TB"


def open_regular(path: Path) -> BinaryIO:
    """``path``, open for reading. Raises ``IncompleteCheckpoint`` for what is no regular file
    (opening a pipe would wait for ever, a device could do anything) and for the note that Git LFS
    leaves in place of a file, and ``OSError``."""
    if not stat.S_ISREG(path.stat().st_mode):
        kind = "a folder" if path.is_dir() else "no regular file"
        raise IncompleteCheckpoint(f"is unreadable (it is {kind})", (path.name,))
    file = path.open("rb")
    if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
        file.close()
        told = "is a Git LFS pointer, a note in place of the file"
        raise IncompleteCheckpoint(told, (path.name,))
    file.seek(0)
    return file


def read_json(path: Path, most: int = MAX_SETTINGS) -> Any:
    """The parsed file. Raises ``IncompleteCheckpoint`` where it is absent, not JSON, or longer
    than ``most`` bytes."""
    try:
        with open_regular(path) as file:
            content = file.read(most + 1)
        if len(content) > most:
            raise ValueError(f"it is longer than {readable_size(most)}")
        return json.loads(content.decode("utf-8"))
    except FileNotFoundError:
        raise IncompleteCheckpoint("is missing", (path.name,)) from None
    except (OSError, ValueError, RecursionError) as error:
        raise IncompleteCheckpoint(f"is unreadable ({reason(error)})", (path.name,)) from error


def reason(error: Exception) -> str:
    """``error`` in a few words, without the path that an ``OSError`` names."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, UnicodeDecodeError):
        return "it is no UTF-8 text"
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__


def printable(text: str, most: int = 1000) -> str:
    """``text``, of names and values from anywhere, as it can be shown, sent and saved: in whole
    characters, and cut where it has no end."""
    text = well_formed(text)
    return text if len(text) <= most else f"{text[:most]}..."


def settings(folder: Path, name: str, most: int = MAX_SETTINGS) -> dict[str, Any]:
    """The JSON object in the file ``name`` of a checkpoint. Raises ``IncompleteCheckpoint``,
    worded for a person, where it is absent, cut off or something else."""
    try:
        found = read_json(folder / name, most)
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
    return header_and_metadata(path)[0]


def header_and_metadata(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """``header(path)``, and what the file says of itself, such as ``{"format": "pt"}``."""
    try:
        found, start, size = _read_header(path)
        metadata = found.pop("__metadata__", None)
        end = _end_of_data(found)
    except FileNotFoundError:
        raise IncompleteCheckpoint("is missing", (path.name,)) from None
    except OSError as error:
        raise IncompleteCheckpoint(f"is unreadable ({reason(error)})", (path.name,)) from error
    except _Damaged as damage:
        raise IncompleteCheckpoint(f"is damaged: {damage}", (path.name,)) from None
    except (ValueError, RecursionError):
        raise IncompleteCheckpoint("is damaged: its header is unreadable", (path.name,)) from None
    if size != start + end:
        what = "is cut off" if size < start + end else "is damaged"
        raise IncompleteCheckpoint(
            f"{what}: {readable_size(size)} of {readable_size(start + end)} ({size} bytes of "
            f"{start + end})",
            (path.name,),
        )
    return found, metadata if isinstance(metadata, dict) else {}


class _Damaged(ValueError):
    """A header that says what cannot be."""


def _read_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header as it stands there, where the data starts, and the file's size."""
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or size < 8 + length <= 8 + MAX_HEADER:
            raise IncompleteCheckpoint(f"is cut off after {readable_size(size)}", (path.name,))
        if length > MAX_HEADER:
            raise ValueError("header length")
        header = json.loads(file.read(length).decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("no JSON object")
    return header, 8 + length, size


def _end_of_data(header: dict[str, Any]) -> int:
    """Bytes of all tensors. Raises ``_Damaged`` where a tensor is not fully described, or they do
    not lie one behind the other."""
    spans = []
    for name, entry in header.items():
        if not isinstance(entry, dict):
            raise ValueError("no JSON object")
        dtype: Any = entry.get("dtype")
        shape: Any = entry.get("shape")
        offsets: Any = entry.get("data_offsets")
        if not isinstance(dtype, str) or dtype not in _BITS:
            raise _Damaged(f"its header gives {_short(name)} the dtype {_short(dtype)}")
        if not _are_sizes(shape):
            raise _Damaged(f"its header gives {_short(name)} the shape {_short(shape)}")
        if not (_are_sizes(offsets) and len(offsets) == 2):
            raise _Damaged(f"its header gives {_short(name)} the data_offsets {_short(offsets)}")
        if (offsets[1] - offsets[0]) * 8 != math.prod(shape) * _BITS[dtype]:
            raise _Damaged(
                f"its header gives {_short(name)} {_short(offsets[1] - offsets[0])} bytes, which "
                f"{dtype} of shape {_short(shape)} does not take"
            )
        spans.append((*offsets, name))
    end = 0
    for begin, after, name in sorted(spans):
        if begin != end:
            raise _Damaged(f"its header leaves a gap or an overlap before {_short(name)}")
        end = after
    return end


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= _DIMENSIONS
        and all(type(value) is int and 0 <= value <= _MOST for value in values)
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
