"""Checkpoint inspection: what a folder holds, and exactly what is wrong with it, before loading.

A checkpoint is a folder with a ``config.json``, safetensors weights, a tokenizer and the image
processor's settings, as the hubs hold them. No tensor is loaded here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..errors import CheckpointNotFound, IncompleteCheckpoint, UnsupportedModel
from ..families import DEFAULT, family_of
from ..types import Family
from . import config_checks, unsupported
from .files import list_files, printable, read_json, reason
from .integrity import find_faults, find_weight_files

log = logging.getLogger(__name__)

_MARKERS = frozenset({"config.json", unsupported.ADAPTER})  # a folder with one is a model's own
_READ_SUFFIXES = (".safetensors", ".json", ".jinja", ".txt", ".py")  # what a model is read from


@dataclass(frozen=True)
class Checkpoint:
    """One inspected folder.

    ``name``: its path below the model root, with ``/``. ``family`` is None where ``config.json``
    cannot be read or names no model that is run here. ``nbytes``: size of the weight files present.
    ``problem`` is empty for a checkpoint that can be loaded, and else says what is wrong.
    ``missing``: files that a download would have to fetch (absent, cut off or unreadable).
    ``is_foreign``: sound as far as can be told, but another maker's model or one for sound alone.
    """

    name: str
    path: Path
    family: Family | None
    nbytes: int
    problem: str = ""
    missing: tuple[str, ...] = ()
    is_foreign: bool = False


def scan(roots: Iterable[str | Path]) -> list[Checkpoint]:
    """Every checkpoint that is run here in ``root/<name>`` and ``root/<group>/<name>``.

    Incomplete ones, adapters, those in other formats and folders that cannot be read are listed
    with their ``problem``; other models (``is_foreign``) are not listed. Where two roots hold the
    same name the first wins; a folder reached by two paths is listed once. Sorted by name. Cheap
    enough to be called often: folders that did not change are not read again. Raises nothing,
    whatever the folders hold, and reads only settings and headers.
    """
    found: dict[str, Checkpoint] = {}
    visited: set[str] = set()
    for root in map(Path, roots):
        for folder in _model_folders(root):
            real = os.path.realpath(folder)
            checkpoint = _inspect(folder, folder.relative_to(root).as_posix())
            if checkpoint.is_foreign or checkpoint.name in found or real in visited:
                continue
            found[checkpoint.name] = checkpoint
            visited.add(real)
    return sorted(found.values(), key=lambda checkpoint: checkpoint.name.casefold())


def inspect(path: str | Path) -> Checkpoint:
    """What the folder ``path`` holds. Raises ``CheckpointNotFound`` if it is no folder."""
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointNotFound(
            f"There is no model folder at {str(path)!r}. Choose a folder that holds a "
            "config.json, or download the model first (python -m qwenvl download <owner>/<name>)."
        )
    return _inspect(folder, folder.name)


def require_complete(path: str | Path) -> Checkpoint:
    """``inspect(path)`` for a checkpoint that is about to be loaded.

    Raises ``CheckpointNotFound``, ``IncompleteCheckpoint`` (``missing`` names the files) or
    ``UnsupportedModel``.
    """
    checkpoint = inspect(path)
    if checkpoint.missing:
        raise IncompleteCheckpoint(
            f"The checkpoint in {checkpoint.path} is not whole. {checkpoint.problem}. "
            "Download it again: only these files are fetched.",
            checkpoint.missing,
        )
    if checkpoint.problem:
        raise UnsupportedModel(f"{checkpoint.path}: {checkpoint.problem}")
    return checkpoint


def fingerprint(path: Path) -> object:
    """Names, sizes and times of the files that a model is read from: equal as long as the
    checkpoint in ``path`` is unchanged. None where the folder cannot be listed now."""
    try:
        found = list_files(path)
    except OSError:
        return None
    return tuple(entry for entry in found if entry[0].endswith(_READ_SUFFIXES))


def _model_folders(root: Path) -> Iterator[Path]:
    """The folders ``root/<name>`` and ``root/<group>/<name>`` that hold a model of some kind, or
    that cannot be listed."""
    for child in _subfolders(root):
        names = _names(child)
        if names is None or any(map(_marks_model, names)):
            yield child
        if names is not None and not _MARKERS.intersection(names):
            for folder in _subfolders(child):
                inside = _names(folder)
                if inside is None or any(map(_marks_model, inside)):
                    yield folder


def _subfolders(folder: Path) -> list[Path]:
    found = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and _may_be_folder(entry):
                    found.append(folder / entry.name)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:  # a ValueError: not a possible path at all
        log.warning("Models in %s are not listed: %s", folder, error)
        return []
    return sorted(found)


def _may_be_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # listing it will give the reason
        return True


def _names(folder: Path) -> list[str] | None:
    """The names in ``folder``; None where it may not be listed."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return None


def _marks_model(name: str) -> bool:
    return name in _MARKERS or (name.lower().endswith(".gguf") and not name.startswith("."))


def _inspect(folder: Path, name: str) -> Checkpoint:
    try:
        return _cached_inspect(folder, printable(name), tuple(list_files(folder)))
    except Exception as error:  # the list of models must survive whatever one of them holds
        if not isinstance(error, OSError):
            log.exception("%s cannot be read", folder)
        problem = printable(f"It cannot be read ({reason(error)}).")
        return Checkpoint(printable(name), folder, None, 0, problem)


@lru_cache(maxsize=1024)
def _cached_inspect(
    folder: Path, name: str, entries: tuple[tuple[str, int, int], ...]
) -> Checkpoint:
    """``entries``, the ``list_files`` of the folder, is part of the cache key: any change is a
    miss."""
    sizes = {entry: size for entry, size, _ in entries}
    family: Family | None = None
    config: dict[str, Any] = {}
    faults: dict[str, str] = {}
    try:
        config = _read_config(folder)
        family = family_of(config)
    except IncompleteCheckpoint as error:
        faults["config.json"] = str(error)
    except UnsupportedModel as error:
        return Checkpoint(name, folder, None, 0, printable(str(error)), is_foreign=True)
    weights = find_weight_files(folder, sizes)
    if problem := (
        unsupported.adapter_problem(folder, sizes, weights) or unsupported.format_problem(sizes)
    ):
        return Checkpoint(name, folder, family, 0, printable(problem))
    faults |= find_faults(folder, sizes, family, weights)
    if family is not None:
        faults = config_checks.find_faults(folder, sizes, config, family) | faults
    nbytes = sum(sizes.get(file, 0) for file in weights.files)
    if problem := weights.problem or unsupported.dtype_problem(
        config, sizes, weights, family or DEFAULT
    ):
        return Checkpoint(name, folder, family, nbytes, printable(problem))
    problem = "; ".join(f"{file} {what}" for file, what in faults.items())
    if faults and unsupported.is_weights_only(sizes, weights):
        problem += unsupported.WEIGHTS_ONLY
    missing = tuple(map(printable, faults))
    return Checkpoint(name, folder, family, nbytes, printable(problem), missing)


def _read_config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise IncompleteCheckpoint("is unreadable (no JSON object)", ("config.json",))
    return config
