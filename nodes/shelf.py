"""The models that can be chosen: on disk, bundled, and in the catalogue for download.

A choice in a saved workflow must still work when the model was downloaded since, or lies in
another folder on another machine. So a choice is a name and, in brackets, a remark that is not
part of it; and a name is found by its whole path, or else by its last part.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
import re
from contextlib import suppress
from pathlib import Path

from ..qwenvl.checkpoints import library
from ..qwenvl.errors import CheckpointNotFound
from . import host

BUNDLED_NAME = "nano"
_REMARK = re.compile(r" \((bundled demo|incomplete|cannot be loaded|download, [^()]*)\)$")

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Download:
    """A repository of the catalogue, and the folder that its own folder is to lie in."""

    repo_id: str
    root: Path


def choices() -> list[str]:
    """What the Loader offers: whole checkpoints, the bundled one, incomplete ones, those that the
    node says cannot be loaded and why, downloads."""
    found = library.scan(host.model_roots())
    here = {_last(checkpoint.name) for checkpoint in found}
    return [
        *(item.name for item in found if not item.problem),
        f"{BUNDLED_NAME} (bundled demo)",
        *(f"{item.name} (incomplete)" for item in found if item.missing),
        *(f"{item.name} (cannot be loaded)" for item in found if item.problem and not item.missing),
        *(
            f"{entry.repo_id} (download, {entry.nbytes / 1e9:.1f} GB)"
            for entry in library.CATALOGUE.values()
            if _last(entry.repo_id) not in here
        ),
    ]


def locate(choice: str) -> Path | Download:
    """The folder of a chosen model, or the download that brings it.

    Raises ``CheckpointNotFound`` for a name that is nowhere.
    """
    name = _name(choice)
    if name == BUNDLED_NAME:
        return library.BUNDLED
    found = library.scan(host.model_roots())
    same = [item for item in found if item.name == name]
    same += [item for item in found if _last(item.name) == _last(name)]
    same.sort(key=lambda item: bool(item.problem))
    if same and not same[0].missing:  # whole, or nothing that a download would mend
        return same[0].path
    for repo_id in library.CATALOGUE:
        if _last(repo_id) == _last(name):
            # An incomplete folder is completed where it lies.
            return Download(repo_id, same[0].path.parent if same else host.download_folder())
    if same:
        return same[0].path
    raise _not_found(name, [item.name for item in found])


def bring(choice: str, source: str) -> Path:
    """The folder of a chosen model, complete: downloaded first where it must be, with progress in
    the node; stopping keeps what came. Raises the errors of ``locate``, ``checkpoints.download``
    and ``checkpoints.require_complete``."""
    place = locate(choice)
    if isinstance(place, Path):
        return library.require_complete(place).path
    bar, line = host.Bar(1), host.StatusLine()
    log.info("Downloading %s to %s", place.repo_id, place.root)

    def progress(done: int, total: int, file: str) -> None:
        bar.set(done, total)
        gone = f"{done / 1e9:.2f} of {total / 1e9:.2f} GB"
        line.show(f"Downloading {place.repo_id}: {gone} ({file})")

    return library.download(
        place.repo_id, place.root, source=source, progress=progress, check=host.check_interrupt
    )


def came(place: Download) -> int:
    """Bytes of its weights that are here already, of files that are finished and of parts."""
    folder = place.root / place.repo_id.split("/")[1]
    nbytes = 0
    for file in folder.glob("*.safetensors*"):
        with suppress(FileNotFoundError):  # renamed since, once it was finished
            nbytes += file.stat().st_size
    return nbytes


def without_folders(text: str) -> str:
    """``text`` with models named as in the list, without where their folders lie."""
    roots = [*host.model_roots(), library.BUNDLED.parents[1]]
    for root in sorted(map(str, roots), key=len, reverse=True):
        text = text.replace(root + os.sep, "").replace(root, Path(root).name)
    return text


def _name(choice: object) -> str:
    if not isinstance(choice, str):  # a widget that holds nothing, or a number
        raise CheckpointNotFound(f"The model is {choice!r}. Choose one in the Qwen-VL Loader.")
    return _REMARK.sub("", choice).strip().replace("\\", "/")


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1].casefold()


def _not_found(name: str, found: list[str]) -> CheckpointNotFound:
    known = [BUNDLED_NAME, *found, *library.CATALOGUE]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    advice = f"Did you mean {near[0]}?" if near else "Choose another model in the Loader."
    roots = ", ".join(str(root) for root in host.model_roots()) or "no model folder"
    return CheckpointNotFound(f"There is no model {name!r} in {roots}. {advice}")
