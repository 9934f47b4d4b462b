"""Safetensors headers: tensor names, types and shapes, and whether a file is whole, read in about a
millisecond a file.

A file is 8 bytes of header length (little endian), that many bytes of JSON which names each
tensor with its ``dtype``, ``shape`` and ``data_offsets``, and the data, without gaps
(https://huggingface.co/docs/safetensors). A cut-off file is thus detected without reading data.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from ..errors import IncompleteCheckpoint
from .files import open_regular, readable_size, reason, short_repr

MAX_HEADER = 100_000_000
"""Bytes; the bound that the format's own library sets."""

_MAX_FILE = 2**63 - 1  # bytes
_MAX_DIMENSIONS = 64  # far more than any tensor has

# Bits of one element of each type that the format knows.
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


def tensor_names(path: Path) -> frozenset[str]:
    """Names of the tensors in a whole safetensors file. Raises as ``read_header``."""
    return frozenset(read_header(path)[0])


def read_header(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a whole safetensors file and its metadata.

    By tensor name: ``dtype`` (as the format spells it, such as ``BF16``), ``shape`` and
    ``data_offsets`` (begin and end in bytes). The metadata is what the file says of itself, such
    as ``{"format": "pt"}``.

    Raises ``IncompleteCheckpoint`` with what is wrong ("is cut off: ...") and the file's name in
    ``missing`` where the file is absent, short, too long or not safetensors at all.
    """
    try:
        found, start, size = _parse(path)
        metadata = found.pop("__metadata__", None)
        end = _data_end(found)
    except FileNotFoundError:
        raise IncompleteCheckpoint("is missing", (path.name,)) from None
    except OSError as error:
        raise IncompleteCheckpoint(f"is unreadable ({reason(error)})", (path.name,)) from error
    except _InvalidHeader as error:
        raise IncompleteCheckpoint(f"is damaged: {error}", (path.name,)) from None
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


class _InvalidHeader(ValueError):
    """A readable header whose values are impossible."""


def _parse(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header as it stands, where the data starts, and the file's size, both in bytes."""
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


def _data_end(header: dict[str, Any]) -> int:
    """Bytes of all tensors. Raises ``_InvalidHeader`` where a tensor is not fully described, or
    their data is not contiguous."""
    spans = sorted((*_offsets(name, entry), name) for name, entry in header.items())
    end = 0
    for begin, after, name in spans:
        if begin != end:
            raise _InvalidHeader(f"its header leaves a gap or an overlap before {short_repr(name)}")
        end = after
    return end


def _offsets(name: str, entry: Any) -> tuple[int, int]:
    """Where the data of a tensor begins and ends, checked against its type and shape."""
    if not isinstance(entry, dict):
        raise ValueError("no JSON object")
    dtype: Any = entry.get("dtype")
    shape: Any = entry.get("shape")
    offsets: Any = entry.get("data_offsets")
    label = f"its header gives {short_repr(name)}"
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _InvalidHeader(f"{label} the dtype {short_repr(dtype)}")
    if not _are_sizes(shape):
        raise _InvalidHeader(f"{label} the shape {short_repr(shape)}")
    if not (_are_sizes(offsets) and len(offsets) == 2):
        raise _InvalidHeader(f"{label} the data_offsets {short_repr(offsets)}")
    begin, end = offsets
    if (end - begin) * 8 != math.prod(shape) * _BITS[dtype]:
        raise _InvalidHeader(
            f"{label} {short_repr(end - begin)} bytes, which {dtype} of shape {short_repr(shape)} "
            "does not take"
        )
    return begin, end


def _are_sizes(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= _MAX_DIMENSIONS
        and all(type(value) is int and 0 <= value <= _MAX_FILE for value in values)
    )
