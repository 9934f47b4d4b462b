"""Checkpoint integrity: which files hold the weights, and whether all files are there and whole,
from names, sizes and headers alone."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import IncompleteCheckpoint, UnsupportedModel
from ..types import Family
from .files import list_files, open_regular, read_json, readable_size, reason
from .safetensors_header import MAX_HEADER, read_header

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Each row is a complete tokenizer; a leading dot stands for any file with that suffix.
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), (".tiktoken",))
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_PARTIAL_SUFFIXES = (".part", ".incomplete", ".crdownload", ".aria2", ".tmp")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


@dataclass(frozen=True)
class WeightFiles:
    """The files that make up a checkpoint's weights, decided in one place for all readers.

    ``entry``: the file that a loader starts from, ``model.safetensors`` or the index of shards.
    ``files``: by file name, the tensors that the index places in it (empty without an index).
    ``faults``: by file name, what is wrong with it.
    ``problem``: why no weights can be chosen although all files are whole; else empty.
    ``tensors``: those of all readable files, as ``safetensors_header.read_header`` gives them.
    ``formats``: the frameworks that the files were written for, such as ``pt``.
    """

    entry: str
    files: Mapping[str, frozenset[str]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    tensors: Mapping[str, Any] = field(default_factory=dict)
    formats: frozenset[str] = frozenset()


def find_weight_files(folder: Path, sizes: Mapping[str, int]) -> WeightFiles:
    """The weights of the checkpoint in ``folder``; ``sizes``: bytes of its files by name.

    An index counts as long as any of its shards is there; without any it is a leftover beside
    ``model.safetensors``. Where both that file and the shards are whole, it cannot be told which
    is meant, and none is chosen.
    """
    faults: dict[str, str] = {}
    indexed = _read_index(folder, faults) if INDEX in sizes else {}
    shards = {file for file in sizes if file in indexed or _SHARD.fullmatch(file)}
    if INDEX in sizes and (shards or SINGLE not in sizes):
        entry, files = INDEX, indexed
    elif SINGLE in sizes:
        entry, files, faults = SINGLE, {SINGLE: frozenset()}, {}
    else:
        entry, files = INDEX if shards else SINGLE, dict.fromkeys(shards, frozenset())
        faults[entry] = _absent(entry, sizes)
    tensors: dict[str, Any] = {}
    formats: set[str] = set()
    for file, names in sorted(files.items()):
        try:
            found, metadata = read_header(folder / file)
        except IncompleteCheckpoint as error:
            faults[file] = _absent(file, sizes) if file not in sizes else str(error)
            continue
        tensors |= found
        formats.add(str(metadata.get("format")))
        if absent := names - found.keys():
            faults[file] = f"lacks {len(absent)} tensors of the index, such as {min(absent)}"
    problem = "" if faults else _ambiguity(folder, entry, files, shards, sizes)
    return WeightFiles(entry, files, faults, problem, tensors, frozenset(formats))


def require_weight_files(folder: Path) -> WeightFiles:
    """``find_weight_files`` for a checkpoint that is about to be read. Raises
    ``IncompleteCheckpoint`` or ``UnsupportedModel`` where anything is wrong with its weights."""
    found = _cached_weight_files(folder, tuple(list_files(folder)))
    if found.faults:
        problems = "; ".join(f"{file} {what}" for file, what in found.faults.items())
        raise IncompleteCheckpoint(f"{folder.name}: {problems}.", tuple(found.faults))
    if found.problem:
        raise UnsupportedModel(f"{folder.name}: {found.problem}")
    return found


@lru_cache(maxsize=2)
def _cached_weight_files(folder: Path, entries: tuple[tuple[str, int, int], ...]) -> WeightFiles:
    """Loading asks several times, and the headers of a large checkpoint take a second to read.
    ``entries``, the ``list_files`` of the folder, is the cache key: any change is a miss."""
    return find_weight_files(folder, {name: size for name, size, _ in entries})


def _ambiguity(
    folder: Path,
    entry: str,
    files: Mapping[str, frozenset[str]],
    shards: set[str],
    sizes: Mapping[str, int],
) -> str:
    """Which other whole weights ``folder`` holds beside those of ``entry``; empty if none."""
    if entry == INDEX and SINGLE in sizes and SINGLE not in files:
        try:
            read_header(folder / SINGLE)
        except IncompleteCheckpoint:  # not another model, only the remains of a file
            return ""
        return (
            f"It holds {SINGLE} and the shards of {INDEX} as well, and which of the two is meant "
            "cannot be told. Remove the one that is not."
        )
    if entry == SINGLE and shards:
        return (
            f"It holds {SINGLE} and {min(shards)} as well, and which of the two is meant cannot "
            f"be told. Remove the one that is not; shards also need their {INDEX}."
        )
    return ""


def find_faults(
    folder: Path, sizes: Mapping[str, int], family: Family | None, weights: WeightFiles
) -> dict[str, str]:
    """By file name, what is wrong with the files of the checkpoint in ``folder``: every shard of
    the index and the tensors it must hold, the tokenizer, the image processor's settings.

    ``sizes``: bytes of its files by name. ``weights``: as ``find_weight_files`` gives them.
    """
    faults = dict(weights.faults)
    if not _has_tokenizer(sizes):
        faults["tokenizer.json"] = _absent("tokenizer.json", sizes)
    # The first generation keeps its image settings in config.json.
    needs_none = family is not None and (family.is_original or not family.sees)
    if not needs_none and not any(file in sizes for file in PROCESSORS):
        faults[PROCESSORS[0]] = _absent(PROCESSORS[0], sizes)
    for file in ("tokenizer.json", "vocab.json", "tokenizer_config.json", *PROCESSORS):
        if file in sizes and (what := _truncation(folder / file)):
            faults[file] = what
    return faults


def _read_index(folder: Path, faults: dict[str, str]) -> dict[str, frozenset[str]]:
    """Tensor names by shard, as the index lists them; what is wrong with it goes to ``faults``."""
    try:
        index = read_json(folder / INDEX, MAX_HEADER)
        shards: dict[str, set[str]] = {}
        for tensor, file in index["weight_map"].items():
            if Path(file).name != file:
                raise ValueError(f"it names a file outside the folder: {file!r}")
            shards.setdefault(file, set()).add(tensor)
        if not shards:
            raise ValueError("it names no tensors")
        if not isinstance(index.get("metadata"), dict):
            raise ValueError('it lacks "metadata", which transformers needs, if only as {}')
    except IncompleteCheckpoint as error:
        faults[INDEX] = str(error)
        return {}
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        faults[INDEX] = f"is unreadable ({reason(error)})"
        return {}
    return {file: frozenset(names) for file, names in shards.items()}


def _absent(file: str, sizes: Mapping[str, int]) -> str:
    """What to say of ``file`` where it is not there."""
    for ending in _PARTIAL_SUFFIXES:
        if file + ending in sizes:
            size = readable_size(sizes[file + ending])
            return f"is only partly downloaded ({size} in {file + ending})"
    others = [
        other
        for other in sorted(sizes)
        if other.endswith(".safetensors") and not other.startswith((".", "adapter_", "model-"))
    ]
    if file == SINGLE and len(others) == 1:
        return f"is missing (if {others[0]} is the whole model, rename it to {SINGLE})"
    if _SHARD.fullmatch(file) and SINGLE in sizes:
        return f"is missing (if {SINGLE} is the whole model, remove {INDEX} and its shards)"
    return "is missing"


def _has_tokenizer(sizes: Mapping[str, int]) -> bool:
    return any(
        all(any(f == n or (n[0] == "." and f.endswith(n)) for f in sizes) for n in needed)
        for needed in _TOKENIZERS
    )


def _truncation(path: Path) -> str:
    """What is wrong with a JSON file that may be large, told from its last bytes: a cut."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
            tail = file.read(64).rstrip()
    except IncompleteCheckpoint as error:
        return str(error)
    except OSError as error:
        return f"is unreadable ({reason(error)})"
    return "" if tail.endswith(b"}") else "is cut off"
