"""Checkpoints on disk: find them, and say exactly what is wrong with one before it is loaded.

A checkpoint is a folder with a ``config.json``, safetensors weights, a tokenizer and the picture
processor's settings, as the hubs hold them. Nothing here loads a tensor.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from .catalogue import CATALOGUE, Entry
from .completeness import check, unsupported_weights
from .errors import CheckpointNotFound, IncompleteCheckpoint, UnsupportedModel
from .families import family_of
from .shards import read_json
from .types import Family

__all__ = [
    "BUNDLED",
    "CATALOGUE",
    "Checkpoint",
    "Entry",
    "download",
    "inspect",
    "require_complete",
    "scan",
]

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).resolve().parents[1] / "nano" / "checkpoint"
"""The small model that comes with the pack."""


@dataclass(frozen=True)
class Checkpoint:
    """One folder, inspected.

    ``name``: its path below the model root, with ``/``. ``family`` is None where ``config.json``
    cannot be read or names no model that sees. ``nbytes``: size of the weight files there are.
    ``problem`` is empty for a checkpoint that can be loaded, and else says what is wrong.
    ``missing``: files that a download would have to bring (absent, cut off or unreadable).
    """

    name: str
    path: Path
    family: Family | None
    nbytes: int
    problem: str = ""
    missing: tuple[str, ...] = ()


def scan(roots: Iterable[str | Path]) -> list[Checkpoint]:
    """Every checkpoint of a model that sees in ``root/<name>`` and ``root/<group>/<name>``.

    Incomplete ones are listed with their ``problem``. Where two roots hold the same name the
    first wins; a folder reached by two paths is listed once. Sorted by name. Cheap enough to be
    called often: folders that did not change are not read again.
    """
    found: dict[str, Checkpoint] = {}
    seen: set[str] = set()
    for root in map(Path, roots):
        for folder in _folders_with_config(root):
            name = folder.relative_to(root).as_posix()
            real = os.path.realpath(folder)
            if name in found or real in seen:
                continue
            checkpoint = _inspected(folder, name)
            if checkpoint.family is not None or checkpoint.missing:
                found[name] = checkpoint
                seen.add(real)
    return sorted(found.values(), key=lambda checkpoint: checkpoint.name.casefold())


def inspect(path: str | Path) -> Checkpoint:
    """What stands in the folder ``path``. Raises ``CheckpointNotFound`` if it is no folder."""
    folder = Path(path)
    if not folder.is_dir():
        raise CheckpointNotFound(
            f"There is no model folder at {str(path)!r}. Choose a folder that holds a "
            "config.json, or download the model first (python -m qwenvl download <owner>/<name>)."
        )
    return _inspected(folder, folder.name)


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


def download(
    repo_id: str,
    root: str | Path,
    *,
    source: str = "huggingface",
    endpoint: str | None = None,
    token: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    check: Callable[[], None] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    verify: bool = False,
) -> Path:
    """Brings ``owner/name`` into ``root/name`` and returns that folder, verified.

    Files that are whole are kept, partial ones are continued, so that calling again after a cut
    connection costs only what is missing. A file is whole if it has the checksum that the hub
    tells, which is computed once and then believed as long as the file's size and time stay;
    ``verify`` computes all anew. What an earlier revision brought is replaced or removed, at once
    and at the end, and ``.download.json`` in the folder names the revision.

    ``source``: ``huggingface`` or ``modelscope``; ``endpoint``: base address of a mirror (None:
    the hub's own, for Hugging Face what ``HF_ENDPOINT`` says). ``token`` is sent to that address
    only; None uses the stored login, which is sent to the hub's own hosts and to one that
    ``QVL_TOKEN_HOST`` names, never to another. ``progress(done, total, file)`` counts bytes of the
    whole download. ``check()`` is called many times a second while bytes come; what it raises ends
    the download and reaches the caller, and what already came stays. Python files are fetched only
    with ``trust_remote_code``.

    Raises ``DownloadError`` (unreachable, refused, not found, no room, nothing loadable in it),
    ``BadOption`` and what ``require_complete`` raises.
    """
    from .download import fetch
    from .hubs import hub_for

    hub = hub_for(source, endpoint=endpoint, token=token)
    folder = fetch(
        hub,
        repo_id,
        Path(root),
        revision=revision,
        progress=progress,
        check=check,
        with_code=trust_remote_code,
        verify=verify,
    )
    return require_complete(folder).path


def _folders_with_config(root: Path) -> Iterator[Path]:
    for child in _subfolders(root):
        if (child / "config.json").is_file():
            yield child
        else:
            yield from (g for g in _subfolders(child) if (g / "config.json").is_file())


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(c for c in folder.iterdir() if not c.name.startswith(".") and c.is_dir())
    except FileNotFoundError:
        return []
    except OSError as error:
        log.warning("Models in %s are not listed: %s", folder, error)
        return []


def _inspected(folder: Path, name: str) -> Checkpoint:
    entries = []
    for entry in os.scandir(folder):
        try:
            state = entry.stat()
        except OSError:  # a link whose target is gone
            continue
        entries.append((entry.name, state.st_size, state.st_mtime_ns))
    return _look(folder, name, tuple(sorted(entries)))


@lru_cache(maxsize=1024)
def _look(folder: Path, name: str, entries: tuple[tuple[str, int, int], ...]) -> Checkpoint:
    """``entries`` (name, size, time of each file) is the cache's key: any change looks again."""
    sizes = {entry: size for entry, size, _ in entries}
    family: Family | None = None
    faults: dict[str, str] = {}
    try:
        family = family_of(_config(folder))
    except IncompleteCheckpoint as error:
        faults["config.json"] = str(error)
    except UnsupportedModel as error:
        return Checkpoint(name, folder, None, 0, str(error))
    if problem := unsupported_weights(sizes):
        return Checkpoint(name, folder, family, 0, problem)
    weights, more = check(folder, sizes, family)
    faults |= more
    problem = "; ".join(f"{file} {what}" for file, what in faults.items())
    nbytes = sum(sizes.get(file, 0) for file in weights)
    return Checkpoint(name, folder, family, nbytes, problem, tuple(faults))


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise IncompleteCheckpoint("is unreadable (no JSON object)", ("config.json",))
    return config
