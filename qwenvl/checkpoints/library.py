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
import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import CheckpointNotFound, DownloadError
from .catalogue import CATALOGUE
from .hubs import TITLES
from .inspection import Checkpoint, require_complete, scan
from .receipts import Receipt
from .references import Consents, Reference

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
    """A download that would bring a model: a repository, and the root that its folder is to lie
    in. ``reference``: of one that somebody named, who must allow it; None of the catalogue's.
    ``folder_name``: where that is not the repository's name."""

    repo_id: str
    root: Path
    reference: Reference | None = None
    folder_name: str = ""

    @property
    def folder(self) -> Path:
        return self.root / (self.folder_name or self.repo_id.split("/")[1])

    @property
    def command(self) -> str:
        """What brings it from a shell."""
        wanted = self.reference or self.repo_id
        parts = ["python -m qwenvl download", str(wanted), "--root", shlex.quote(str(self.root))]
        if self.reference and self.reference.source != "huggingface":
            parts += ["--source", self.reference.source]
        return " ".join(parts)

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
            if _last_part(repo_id) == _last_part(name) and _may_become(same, repo_id):
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

    def locate_reference(self, reference: Reference) -> Path | Download:
        """The folder of the model that ``reference`` names, or the download that brings it: into
        a folder with the owner's name, since others may have models of that name."""
        if reference.repo_id in CATALOGUE and not reference.revision:
            return self.locate(reference.repo_id)
        found = [item for item in self.scan() if _is_of(item, reference)]
        found.sort(key=lambda item: bool(item.problem))
        if found and not found[0].missing:
            return found[0].path
        if found:
            folder = found[0].path
            return Download(reference.repo_id, folder.parent, reference, folder.name)
        root = self.roots[0] if self.roots else self.download_root
        place = root / reference.owner_folder
        return Download(reference.repo_id, place, reference, reference.folder_name)

    def obtain_reference(
        self,
        reference: Reference,
        consents: Consents,
        *,
        progress_for: Callable[[str], Progress],
        check: Callable[[], None],
    ) -> Path:
        """As ``obtain``, for what ``reference`` names. Raises ``DownloadError`` where it would be
        a download that nobody has allowed."""
        place = self.locate_reference(reference)
        if isinstance(place, Path):
            return require_complete(place).path
        if place.reference and not consents.allows(reference):
            raise DownloadError(not_allowed(place))
        log.info("Downloading %s to %s", reference, place.root)
        return download(
            place.repo_id,
            place.root,
            source=reference.source,
            progress=progress_for(str(reference)),
            check=check,
            revision=reference.revision or None,
            folder_name=place.folder_name,
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


def not_allowed(place: Download) -> str:
    """Why a download that somebody named does not begin by itself, and how it does."""
    return (
        f"{place.reference} is not on this machine. It is none of the models that are listed, so "
        "it is downloaded only if you allow it: press the button in the Qwen-VL Loader, which "
        f"says how large it is, or run: {place.command}"
    )


def _may_become(same: list[Checkpoint], repo_id: str) -> bool:
    """Whether ``repo_id`` completes the first of ``same``: not the broken-off download of another
    repository."""
    return not same or Receipt.read(same[0].path).repo_id in ("", repo_id)


def _is_of(item: Checkpoint, reference: Reference) -> bool:
    """Whether a checkpoint on disk is what ``reference`` names, by what its download noted, or else
    by its whole name: others have models of the same last part."""
    receipt, wanted = Receipt.read(item.path), reference.revision
    if receipt.repo_id:
        hub = TITLES[reference.source]
        if (receipt.repo_id, receipt.source) != (reference.repo_id, hub):
            return False
        if item.path.name == reference.folder_name or not wanted:
            return bool(wanted) or "@" not in item.path.name
        # A commit may be given by its first digits.
        return len(wanted) >= 7 and receipt.revision.startswith(wanted)
    return item.name == f"{reference.owner_folder}/{reference.folder_name}"


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
    folder_name: str = "",
) -> Path:
    """Downloads ``owner/name`` into ``root/name``, or into the folder ``folder_name`` there, and
    returns that folder, verified.

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
        folder_name=folder_name,
    )
    return require_complete(folder).path


def _last_part(name: str) -> str:
    return name.rsplit("/", 1)[-1].casefold()
