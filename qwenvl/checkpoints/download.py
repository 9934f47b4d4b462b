"""Download of a checkpoint: fetches from a hub into a folder what is missing there.

A file grows as ``<name>.part`` beside its final path and is renamed once its size, its checksum
(where the hub gives one) and its safetensors header are right, so that nothing unfinished ever has
the name of a file that could be loaded. Files that replace others are renamed all at once, after
the last one arrived: a folder holds one revision, the old or the new.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DownloadError
from .files import readable_size
from .hubs import Hub, RemoteFile, require_repo_id, require_revision
from .receipts import Receipt
from .repository_files import problem_of, select_files
from .transfer import Check, Meter, Progress, has_valid_header, matches_checksum, transfer

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_CONFIG = "config.json"

log = logging.getLogger(__name__)


def fetch(
    hub: Hub,
    repo_id: str,
    root: Path,
    *,
    revision: str | None = None,
    progress: Progress | None = None,
    check: Check | None = None,
    with_code: bool = False,
    verify: bool = False,
    folder_name: str = "",
) -> Path:
    """Downloads the loadable files of ``owner/name`` into ``root/name``, or into the folder
    ``folder_name`` there, and returns that folder.

    See ``library.download`` for the meaning of the arguments. Raises ``DownloadError`` and
    ``BadOption``, and whatever ``check`` raises.
    """
    name = require_repo_id(repo_id).split("/")[1]
    folder = root / (folder_name or name)
    listing = hub.listing(repo_id, require_revision(revision))
    files = select_files(hub, repo_id, listing.files, with_code)
    with _explained_errors(hub, folder), _locked(folder):
        receipt = Receipt.read(folder)
        receipt.repo_id, receipt.source = repo_id, hub.title
        meter = Meter(sum(file.size for file in files), progress, check)
        missing = [f for f in files if not _is_complete(folder, f, receipt, verify, meter)]
        receipt.write(folder)
        parts = {file: _part_file(folder, file, receipt) for file in missing}
        _require_room(folder, sum(f.size - part.stat().st_size for f, part in parts.items()))
        outdated = _outdated(folder, files, listing.files, receipt)
        # New files must not stand beside those of another revision.
        at_once = bool(outdated) or any(_path(folder, file.path).exists() for file in missing)
        for file, part in parts.items():
            url = hub.url(repo_id, listing.revision, file.path)
            transfer(hub, repo_id, url, file, part, meter)
            if not at_once:
                _install(folder, file, part, receipt)
        if at_once:
            _exchange(folder, parts, outdated, receipt)
        receipt.revision = listing.revision
        receipt.write(folder)
    return folder


def _outdated(
    folder: Path, files: list[RemoteFile], listed: Iterable[RemoteFile], receipt: Receipt
) -> list[str]:
    """Files that an earlier download brought and this revision lacks. Files of other origin stay,
    and weights among them are named in a warning."""
    needed = {file.path for file in files}
    outdated = [
        path
        for path in receipt.outdated({file.path: file.checksum for file in listed}, needed)
        if not problem_of(RemoteFile(path, 0)) and _path(folder, path).is_file()
    ]
    unknown = {path.name for path in folder.glob("*.safetensors")} - needed - set(outdated)
    if unknown:
        log.warning(
            "%s holds weights that are not of this repository: %s. Remove them unless you put "
            "them there.",
            folder,
            ", ".join(sorted(unknown)),
        )
    return outdated


def _install(folder: Path, file: RemoteFile, part: Path, receipt: Receipt) -> None:
    """Gives a finished file its name, and enters it in the receipt."""
    path = _path(folder, file.path)
    os.replace(part, path)
    receipt.add(file.path, file.checksum, path)
    receipt.write(folder)


def _exchange(
    folder: Path, parts: dict[RemoteFile, Path], outdated: list[str], receipt: Receipt
) -> None:
    """Replaces the old files by the new ones. ``config.json`` goes first and comes last: a folder
    without it is no checkpoint, so one that is left half way is never loaded."""
    config, backup = folder / _CONFIG, folder / f"{_CONFIG}.part"
    new = {file.path for file in parts}
    if _CONFIG in new or _CONFIG in outdated:
        config.unlink(missing_ok=True)
    elif config.exists():
        os.replace(config, backup)
    for path in outdated:
        _path(folder, path).unlink(missing_ok=True)
        receipt.files.pop(path)
    for file, part in sorted(parts.items(), key=lambda item: item[0].path == _CONFIG):
        _install(folder, file, part, receipt)
    if _CONFIG not in new and backup.exists():
        os.replace(backup, config)


def _path(folder: Path, path: str) -> Path:
    """Where the file ``path`` of a repository goes: inside ``folder``, whatever links it holds."""
    target = folder.joinpath(*PurePosixPath(path).parts)
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise DownloadError(f"A file would be written outside the model's folder: {path!r}.")
    return target


def _is_complete(
    folder: Path, file: RemoteFile, receipt: Receipt, verify: bool, meter: Meter
) -> bool:
    """Whether the file need not be fetched; if so ``meter`` counts it. Its content is read where
    the receipt does not vouch for it, or to ``verify``."""
    path = _path(folder, file.path)
    if not path.is_file() or path.stat().st_size != file.size or not has_valid_header(path):
        return False
    if file.checksum and (verify or not receipt.vouches(file.path, path, file.checksum)):
        if not matches_checksum(path, file, meter.add):
            meter.done -= file.size
            log.warning("%s differs from the hub's: it is fetched again.", path)
            return False
    else:
        if verify:
            log.warning("%s: the hub tells no checksum, so only its size was compared.", path)
        meter.add(file.size, file.path)
    receipt.add(file.path, file.checksum, path)
    return True


def _part_file(folder: Path, file: RemoteFile, receipt: Receipt) -> Path:
    """The ``.part`` file that the download continues; empty where there is nothing to continue."""
    path = _path(folder, file.path)
    part = path.with_name(path.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    # A cut-off file under its final name can be continued too, as only a checksum can confirm; a
    # whole file of another revision cannot.
    if (
        file.checksum
        and not part.exists()
        and _is_shorter(path, file.size)
        and not receipt.vouches(file.path, path)
    ):
        path.rename(part)
    if not part.exists() or part.stat().st_size > file.size or not file.checksum:
        part.write_bytes(b"")
    return part


def _is_shorter(path: Path, size: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size < size


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"There is no room for the download in {folder}: it needs {readable_size(needed)}, and "
            f"{readable_size(free)} are free. Free some space or choose another folder."
        )


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Two downloads into one folder would write into each other's files."""
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock: Any = FileLock(folder / ".download.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise DownloadError(f"Another download into {folder} is under way.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _explained_errors(hub: Hub, folder: Path) -> Iterator[None]:
    """Disk errors become ``DownloadError``; what callbacks raise passes unchanged."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise DownloadError(
                f"The disk of {folder} is full. Free some space and download again: what already "
                f"came from {hub.title} is kept."
            ) from error
        if error.errno in _NOT_WRITABLE:
            raise DownloadError(f"{folder} cannot be written: {error.strerror}.") from error
        raise
