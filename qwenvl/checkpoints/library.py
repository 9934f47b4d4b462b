"""Model library: the models that can be chosen (on disk, bundled, or in the catalogue for
download), and how a model's name becomes a folder.

A name saved in a workflow must still work when the model was downloaded since, or lies in another
folder on another machine. So a choice is a name and, in brackets, a remark that is not part of it;
and a name is found by its whole path, or else by its last part.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointNotFound
from .catalogue import CATALOGUE
from .inspection import Checkpoint, require_complete, scan

log = logging.getLogger(__name__)

BUNDLED = Path(__file__).resolve().parents[2] / "nano" / "checkpoint"
"""Folder of the small model that comes with the pack."""
BUNDLED_NAME = "nano"

_REMARK = re.compile(r" \((bundled demo|incomplete|cannot be loaded|download, [^()]*)\)$")
_MAX_LISTED = 20  # names in an error

Progress = Callable[[int, int, str], None]
"""``progress(done, total, file)``: bytes of the whole download, and the file that comes now."""


@dataclass(frozen=True)
class Download:
    """A download that would bring a model: a repository of the catalogue, and the root that its
    folder is to lie in."""

    repo_id: str
    root: Path

    @property
    def folder(self) -> Path:
        return self.root / self.repo_id.split("/")[1]

    @property
    def bytes_here(self) -> int:
        """Bytes of its weights on disk already, of finished and of partial files."""
        nbytes = 0
        for file in self.folder.glob("*.safetensors*"):
            with suppress(FileNotFoundError):  # renamed meanwhile, as it was finished
                nbytes += file.stat().st_size
        return nbytes


@dataclass(frozen=True)
class ModelLibrary:
    """The models below ``roots``, the bundled one and the catalogue. Folders are read anew at each
    call.

    ``download_root``: where new downloads go. ``advice``: what to do about a name that is not
    found and resembles none; without it the error lists the names that there are.
    """

    roots: tuple[Path, ...]
    download_root: Path
    advice: str = ""

    def scan(self) -> list[Checkpoint]:
        """The checkpoints on disk; see ``inspection.scan``."""
        return scan(self.roots)

    def choices(self) -> list[str]:
        """Every model with a remark on its state, in the order of a menu: loadable checkpoints,
        the bundled one, incomplete ones, those that cannot be loaded, downloads."""
        found = self.scan()
        here = {_last_part(item.name) for item in found}
        broken = [item for item in found if item.problem and not item.missing]
        return [
            *(item.name for item in found if not item.problem),
            f"{BUNDLED_NAME} (bundled demo)",
            *(f"{item.name} (incomplete)" for item in found if item.missing),
            *(f"{item.name} (cannot be loaded)" for item in broken),
            *(
                f"{entry.repo_id} (download, {entry.nbytes / 1e9:.1f} GB)"
                for entry in CATALOGUE.values()
                if _last_part(entry.repo_id) not in here
            ),
        ]

    def locate(self, choice: str) -> Path | Download:
        """The folder of a model, or the download that brings it. ``choice``: an entry of
        ``choices``, or a name alone.

        Raises ``CheckpointNotFound`` for a name that is nowhere.
        """
        name = _REMARK.sub("", choice).strip().replace("\\", "/")
        if name == BUNDLED_NAME:
            return BUNDLED
        found = self.scan()
        same = [item for item in found if item.name == name]
        same += [item for item in found if _last_part(item.name) == _last_part(name)]
        same.sort(key=lambda item: bool(item.problem))
        if same and not same[0].missing:  # whole, or nothing that a download would mend
            return same[0].path
        for repo_id in CATALOGUE:
            if _last_part(repo_id) == _last_part(name):
                # An incomplete folder is completed where it lies.
                return Download(repo_id, same[0].path.parent if same else self.download_root)
        if same:
            return same[0].path
        raise self._not_found(name, [item.name for item in found])

    def obtain(
        self,
        choice: str,
        *,
        source: str,
        progress_for: Callable[[str], Progress],
        check: Callable[[], None],
    ) -> Path:
        """The folder of a model, complete: downloaded from ``source`` first where it must be.

        ``progress_for(repo_id)`` makes the ``progress`` of a download. Raises as ``locate``,
        ``download`` and ``inspection.require_complete``.
        """
        place = self.locate(choice)
        if isinstance(place, Path):
            return require_complete(place).path
        log.info("Downloading %s to %s", place.repo_id, place.root)
        return download(
            place.repo_id,
            place.root,
            source=source,
            progress=progress_for(place.repo_id),
            check=check,
        )

    def without_folders(self, text: str) -> str:
        """``text`` with models named as in the list, without the folders that they lie in."""
        roots = [*self.roots, BUNDLED.parents[1]]
        for root in sorted(map(str, roots), key=len, reverse=True):
            text = text.replace(root + os.sep, "").replace(root, Path(root).name)
        return text

    def _not_found(self, name: str, found: list[str]) -> CheckpointNotFound:
        here = [BUNDLED_NAME, *found]
        near = difflib.get_close_matches(name, [*here, *CATALOGUE], n=1, cutoff=0.5)
        listed = ", ".join(here[:_MAX_LISTED]) + (", ..." if len(here) > _MAX_LISTED else "")
        otherwise = self.advice or (
            f"Those here: {listed}. Others can be downloaded "
            "(python -m qwenvl download <owner>/<name>)."
        )
        advice = f"Did you mean {near[0]}?" if near else otherwise
        roots = ", ".join(str(root) for root in self.roots) or "no model folder"
        return CheckpointNotFound(f"There is no model {name!r} in {roots}. {advice}")


def name_of(path: Path) -> str:
    """The name of the model in the folder ``path``, without where it lies."""
    return BUNDLED_NAME if path == BUNDLED else path.name


def download(
    repo_id: str,
    root: str | Path,
    *,
    source: str = "huggingface",
    endpoint: str | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    check: Callable[[], None] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    verify: bool = False,
) -> Path:
    """Downloads ``owner/name`` into ``root/name`` and returns that folder, verified.

    Whole files are kept and partial ones continued, so that calling again after a broken
    connection costs only what is missing. A file is whole if it has the checksum that the hub
    gives, which is computed once and then trusted as long as the file's size and time are
    unchanged; ``verify`` computes all anew. Files of an earlier revision are replaced or removed,
    all at once at the end, and ``.download.json`` in the folder names the revision.

    ``source``: ``huggingface`` or ``modelscope``; ``endpoint``: base address of a mirror (None:
    the hub's own, for Hugging Face what ``HF_ENDPOINT`` says). ``token`` is sent to that address
    only; None uses the stored login, which is sent to the hub's own hosts and to one that
    ``QVL_TOKEN_HOST`` names, never to another. ``progress(done, total, file)`` counts bytes of the
    whole download. ``check()`` is called many times a second while bytes arrive; what it raises
    ends the download and reaches the caller, and what has arrived is kept. Python files are
    fetched only with ``trust_remote_code``.

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


def _last_part(name: str) -> str:
    return name.rsplit("/", 1)[-1].casefold()
