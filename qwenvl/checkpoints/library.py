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

from ..errors import CheckpointNotFound, IncompleteCheckpoint, UnsupportedModel
from ..families import family_of
from ..types import Family
from . import config_checks, unsupported
from .catalogue import CATALOGUE, Entry
from .integrity import check, listing, weight_files
from .safetensors_header import printable, read_json, reason

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

BUNDLED = Path(__file__).resolve().parents[2] / "nano" / "checkpoint"
"""The small model that comes with the pack."""
_HOME = frozenset({"config.json", unsupported.ADAPTER})  # what tells that a folder is a model's own
_READ = (".safetensors", ".json", ".jinja", ".txt", ".py")  # files that a model is read from


@dataclass(frozen=True)
class Checkpoint:
    """One folder, inspected.

    ``name``: its path below the model root, with ``/``. ``family`` is None where ``config.json``
    cannot be read or names no model that sees. ``nbytes``: size of the weight files there are.
    ``problem`` is empty for a checkpoint that can be loaded, and else says what is wrong.
    ``missing``: files that a download would have to bring (absent, cut off or unreadable).
    ``is_foreign``: it is sound as far as can be told, but of a model that sees nothing, or of
    another maker's.
    """

    name: str
    path: Path
    family: Family | None
    nbytes: int
    problem: str = ""
    missing: tuple[str, ...] = ()
    is_foreign: bool = False


def scan(roots: Iterable[str | Path]) -> list[Checkpoint]:
    """Every checkpoint of a model that sees in ``root/<name>`` and ``root/<group>/<name>``.

    Listed with their ``problem`` are also incomplete ones, adapters, those in other formats, and
    folders that cannot be read; other models (``is_foreign``) are not. Where two roots hold the
    same name the first wins; a folder reached by two paths is listed once. Sorted by name. Cheap
    enough to be called often: folders that did not change are not read again. Raises nothing,
    whatever lies there, and reads settings and headers alone.
    """
    found: dict[str, Checkpoint] = {}
    seen: set[str] = set()
    for root in map(Path, roots):
        for folder in _folders(root):
            real = os.path.realpath(folder)
            checkpoint = _inspected(folder, folder.relative_to(root).as_posix())
            if checkpoint.is_foreign or checkpoint.name in found or real in seen:
                continue
            found[checkpoint.name] = checkpoint
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


def state(path: Path) -> object:
    """Equal as long as the files of the checkpoint in ``path`` are the same; None where they cannot
    be looked at now."""
    try:
        found = listing(path)
    except OSError:
        return None
    return tuple(entry for entry in found if entry[0].endswith(_READ))


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


def _folders(root: Path) -> Iterator[Path]:
    """Those in ``root/<name>`` and ``root/<group>/<name>`` that hold a model of some kind, or that
    cannot be looked into."""
    for child in _subfolders(root):
        names = _names(child)
        if names is None or any(map(_tells_a_model, names)):
            yield child
        if names is not None and not _HOME.intersection(names):
            for folder in _subfolders(child):
                inside = _names(folder)
                if inside is None or any(map(_tells_a_model, inside)):
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
    except (OSError, ValueError) as error:  # a ValueError: no path that can be at all
        log.warning("Models in %s are not listed: %s", folder, error)
        return []
    return sorted(found)


def _may_be_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # looking into it will tell why
        return True


def _names(folder: Path) -> list[str] | None:
    """What is in ``folder``; None where it may not be looked into."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError:
        return None


def _tells_a_model(name: str) -> bool:
    return name in _HOME or (name.lower().endswith(".gguf") and not name.startswith("."))


def _inspected(folder: Path, name: str) -> Checkpoint:
    try:
        return _look(folder, printable(name), tuple(listing(folder)))
    except Exception as error:  # a list of models must survive whatever lies in one of them
        if not isinstance(error, OSError):
            log.exception("%s cannot be read", folder)
        problem = printable(f"It cannot be read ({reason(error)}).")
        return Checkpoint(printable(name), folder, None, 0, problem)


@lru_cache(maxsize=1024)
def _look(folder: Path, name: str, entries: tuple[tuple[str, int, int], ...]) -> Checkpoint:
    """``entries`` (name, size, time of each file) is the cache's key: any change looks again."""
    sizes = {entry: size for entry, size, _ in entries}
    family: Family | None = None
    config: dict[str, Any] = {}
    faults: dict[str, str] = {}
    try:
        config = _config(folder)
        family = family_of(config)
    except IncompleteCheckpoint as error:
        faults["config.json"] = str(error)
    except UnsupportedModel as error:
        return Checkpoint(name, folder, None, 0, printable(str(error)), is_foreign=True)
    weights = weight_files(folder, sizes)
    if problem := unsupported.adapter(folder, sizes, weights) or unsupported.other_format(sizes):
        return Checkpoint(name, folder, family, 0, printable(problem))
    faults |= check(folder, sizes, family, weights)
    if family is not None:
        faults = config_checks.faults(folder, sizes, config, family) | faults
    nbytes = sum(sizes.get(file, 0) for file in weights.files)
    if problem := weights.problem or unsupported.other_numbers(config, sizes, weights):
        return Checkpoint(name, folder, family, nbytes, printable(problem))
    problem = "; ".join(f"{file} {what}" for file, what in faults.items())
    if faults and unsupported.is_bare(sizes, weights):
        problem += unsupported.BARE
    missing = tuple(map(printable, faults))
    return Checkpoint(name, folder, family, nbytes, printable(problem), missing)


def _config(folder: Path) -> dict[str, Any]:
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise IncompleteCheckpoint("is unreadable (no JSON object)", ("config.json",))
    return config
