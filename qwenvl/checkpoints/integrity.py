"""Whether the files of a checkpoint are all there and whole, without loading a tensor."""

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
from .safetensors_header import (
    MAX_HEADER,
    header_and_metadata,
    open_regular,
    read_json,
    readable_size,
    reason,
)

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
# Any one row is a whole tokenizer; a leading dot stands for any file so ending.
_TOKENIZERS = (("tokenizer.json",), ("vocab.json", "merges.txt"), (".tiktoken",))
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_PARTIAL = (".part", ".incomplete", ".crdownload", ".aria2", ".tmp")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")


@dataclass(frozen=True)
class WeightFiles:
    """Which files make up a checkpoint's weights, decided once for all who read them.

    ``entry``: the file that a loader is to begin with, ``model.safetensors`` or its index.
    ``files``: by name, the tensors that the index says are in it (none where there is no index).
    ``faults``: by name of a file, what is wrong with it.
    ``problem``: why none can be chosen although files are whole; else empty.
    ``tensors``: those of all files that could be read, as ``shards.header`` gives them.
    ``formats``: for which libraries the files say that they were written, such as ``pt``.
    """

    entry: str
    files: Mapping[str, frozenset[str]] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    problem: str = ""
    tensors: Mapping[str, Any] = field(default_factory=dict)
    formats: frozenset[str] = frozenset()


def weight_files(folder: Path, sizes: Mapping[str, int]) -> WeightFiles:
    """The weights of the checkpoint in ``folder``, ``sizes`` being the bytes of its files.

    An index counts as long as any of its shards is there; one none of whose shards is there is a
    leftover beside ``model.safetensors``. Where that file and shards are whole, nobody can tell
    which of them is meant, and none is chosen.
    """
    faults: dict[str, str] = {}
    indexed = _indexed(folder, faults) if INDEX in sizes else {}
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
            found, metadata = header_and_metadata(folder / file)
        except IncompleteCheckpoint as error:
            faults[file] = _absent(file, sizes) if file not in sizes else str(error)
            continue
        tensors |= found
        formats.add(str(metadata.get("format")))
        if absent := names - found.keys():
            faults[file] = f"lacks {len(absent)} tensors of the index, such as {min(absent)}"
    problem = "" if faults else _rivals(folder, entry, files, shards, sizes)
    return WeightFiles(entry, files, faults, problem, tensors, frozenset(formats))


def chosen_files(folder: Path) -> WeightFiles:
    """``weight_files(folder)`` of which nothing is wrong. Raises ``IncompleteCheckpoint`` or
    ``UnsupportedModel``."""
    found = _weight_files(folder, tuple(listing(folder)))
    if found.faults:
        told = "; ".join(f"{file} {what}" for file, what in found.faults.items())
        raise IncompleteCheckpoint(f"{folder.name}: {told}.", tuple(found.faults))
    if found.problem:
        raise UnsupportedModel(f"{folder.name}: {found.problem}")
    return found


@lru_cache(maxsize=2)
def _weight_files(folder: Path, entries: tuple[tuple[str, int, int], ...]) -> WeightFiles:
    """Those who load a checkpoint ask several times, and the headers of large ones take a second.
    ``entries``: as ``listing`` has them; any change looks again."""
    return weight_files(folder, {name: size for name, size, _ in entries})


def listing(folder: Path) -> list[tuple[str, int, int]]:
    """Name, bytes and time of change (ns) of everything in ``folder``, sorted. Raises ``OSError``
    where it cannot be listed."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                state = entry.stat()
            except FileNotFoundError:  # a link whose target is gone
                continue
            except OSError:  # it is there; whoever opens it is told why it cannot be read
                found.append((entry.name, 0, 0))
            else:
                found.append((entry.name, state.st_size, state.st_mtime_ns))
    return sorted(found)


def _rivals(
    folder: Path,
    entry: str,
    files: Mapping[str, frozenset[str]],
    shards: set[str],
    sizes: Mapping[str, int],
) -> str:
    """What else in ``folder`` could be meant by its weights."""
    if entry == INDEX and SINGLE in sizes and SINGLE not in files:
        try:
            header_and_metadata(folder / SINGLE)
        except IncompleteCheckpoint:  # no other model, but the rest of one
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


def check(
    folder: Path, sizes: Mapping[str, int], family: Family | None, weights: WeightFiles
) -> dict[str, str]:
    """By file, what is wrong with any file of the checkpoint in ``folder``: every shard of the
    index and the tensors it must hold, the tokenizer, the picture processor's settings.

    ``sizes``: bytes of each file there is. ``weights``: what ``weight_files`` found.
    """
    faults = dict(weights.faults)
    _check_rest(folder, sizes, family, faults)
    return faults


def _indexed(folder: Path, faults: dict[str, str]) -> dict[str, frozenset[str]]:
    """Tensor names by shard, as the index says."""
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
    """What is wrong where ``file`` is not there."""
    for ending in _PARTIAL:
        if file + ending in sizes:
            came = readable_size(sizes[file + ending])
            return f"is only partly downloaded ({came} in {file + ending})"
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


def _check_rest(
    folder: Path, sizes: Mapping[str, int], family: Family | None, faults: dict[str, str]
) -> None:
    """Tokenizer and processor: there, and not visibly cut off."""
    for needed in _TOKENIZERS:
        if all(any(f == n or (n[0] == "." and f.endswith(n)) for f in sizes) for n in needed):
            break
    else:
        faults["tokenizer.json"] = _absent("tokenizer.json", sizes)
    # The first generation keeps its picture settings in config.json.
    if not any(file in sizes for file in PROCESSORS) and not (
        family is not None and family.model_type == "qwen"
    ):
        faults[PROCESSORS[0]] = _absent(PROCESSORS[0], sizes)
    for file in ("tokenizer.json", "vocab.json", "tokenizer_config.json", *PROCESSORS):
        if file in sizes and (what := _cut_json(folder / file)):
            faults[file] = what


def _cut_json(path: Path) -> str:
    """What is wrong with a JSON file that may be large: its end is enough to see a cut."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 64))
            tail = file.read(64).rstrip()
    except IncompleteCheckpoint as error:
        return str(error)
    except OSError as error:
        return f"is unreadable ({reason(error)})"
    return "" if tail.endswith(b"}") else "is cut off"
