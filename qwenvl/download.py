"""From a hub to a folder: only what is missing, continued where it stopped, checked when it came.

A file grows as ``<name>.part`` beside its place and is renamed once its size, its checksum (where
the hub tells one) and its safetensors header are right. Nothing unfinished thus ever has the
name of a file that could be loaded.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from .errors import DownloadError, IncompleteCheckpoint
from .hubs import Hub, RemoteFile, refusal, require_repo_id, unreachable
from .shards import readable_size, tensor_names

CHUNK = 1 << 16
"""Bytes; a broken connection costs at most so many."""
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each new attempt after a broken connection, counted anew once bytes came."""
TIMEOUT = (10.0, 15.0)
"""Seconds to connect, and without a byte before the connection counts as broken: the longest that
somebody who cancels may have to wait."""

_FULL = (errno.ENOSPC, errno.EDQUOT)
_CLOSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)
_ENDINGS = (".safetensors", ".json", ".jinja", ".txt", ".tiktoken", ".model")
_NOT_NEEDED = ("requirements.txt", "training_args.json", "trainer_state.json")

Progress = Callable[[int, int, str], None]
Check = Callable[[], None]


class Meter:
    """Counts bytes of the whole download for ``progress`` and gives ``check`` its turns."""

    def __init__(self, total: int, progress: Progress | None, check: Check | None):
        self.total, self.done = total, 0
        self._progress, self._check = progress, check

    def check(self) -> None:
        if self._check is not None:
            self._check()

    def add(self, nbytes: int, file: str) -> None:
        self.done += nbytes
        if self._progress is not None:
            self._progress(self.done, self.total, file)
        self.check()


def fetch(
    hub: Hub,
    repo_id: str,
    root: Path,
    *,
    revision: str | None = None,
    progress: Progress | None = None,
    check: Check | None = None,
    with_code: bool = False,
) -> Path:
    """Brings the loadable files of ``owner/name`` into ``root/name`` and returns that folder.

    See ``checkpoints.download`` for the meaning of the arguments. Raises ``DownloadError`` and
    ``BadOption``, and whatever ``check`` raises.
    """
    folder = root / require_repo_id(repo_id).split("/")[1]
    listing = hub.listing(repo_id, revision)
    files = _needed(hub, repo_id, listing.files, with_code)
    with _explained(hub, folder), _alone(folder):
        meter = Meter(sum(file.size for file in files), progress, check)
        missing = [file for file in files if not _is_whole(folder, file)]
        meter.done = meter.total - sum(file.size for file in missing)
        parts = {file: _start(folder, file) for file in missing}
        _require_room(folder, sum(f.size - part.stat().st_size for f, part in parts.items()))
        for file, part in parts.items():
            url = hub.url(repo_id, listing.revision, file.path)
            _bring(hub, repo_id, url, file, part, meter)
            os.replace(part, _place(folder, file))
    return folder


def _needed(
    hub: Hub, repo_id: str, files: Iterable[RemoteFile], with_code: bool
) -> list[RemoteFile]:
    endings = (*_ENDINGS, ".py") if with_code else _ENDINGS
    needed = [
        file
        for file in files
        if file.path.endswith(endings) and PurePosixPath(file.path).name not in _NOT_NEEDED
    ]
    if not any(file.path.endswith(".safetensors") for file in needed):
        raise DownloadError(
            f"{repo_id} on {hub.title} holds no safetensors weights. GGUF and pickle (.bin) files "
            "are not loaded here: choose the original repository of the model."
        )
    # Small files first: what stops early then at least says what it is.
    return sorted(needed, key=lambda file: (file.size, file.path))


def _place(folder: Path, file: RemoteFile) -> Path:
    """Where a file goes: inside ``folder``, whatever the hub says."""
    parts = PurePosixPath(file.path).parts
    place = folder.joinpath(*parts)
    if (
        not parts
        or any(part in ("..", "/") or "\\" in part or ":" in part for part in parts)
        or not place.parent.resolve().is_relative_to(folder.resolve())
    ):
        raise DownloadError(f"The hub names a file outside the model's folder: {file.path!r}.")
    return place


def _is_whole(folder: Path, file: RemoteFile) -> bool:
    place = _place(folder, file)
    if not place.is_file() or place.stat().st_size != file.size:
        return False
    return _header_is_right(place)


def _header_is_right(path: Path) -> bool:
    if path.name.removesuffix(".part").endswith(".safetensors"):
        try:
            tensor_names(path)
        except IncompleteCheckpoint:
            return False
    return True


def _start(folder: Path, file: RemoteFile) -> Path:
    """The ``.part`` file that the download continues, empty where there is nothing to continue."""
    place = _place(folder, file)
    part = place.with_name(place.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    # A cut-off file under its final name is a beginning too; only a checksum can confirm it.
    if file.sha256 and not part.exists() and _is_short(place, file.size):
        place.rename(part)
    if not part.exists() or part.stat().st_size > file.size or not file.sha256:
        part.write_bytes(b"")
    return part


def _is_short(path: Path, size: int) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size < size


def _bring(hub: Hub, repo_id: str, url: str, file: RemoteFile, part: Path, meter: Meter) -> None:
    """Fills ``part``; a continued file that turns out wrong is fetched once more, whole."""
    continued = part.stat().st_size
    meter.add(continued, file.path)
    _fill(hub, repo_id, url, file, part, meter)
    if _is_right(part, file, meter):
        return
    part.write_bytes(b"")
    meter.done -= file.size
    if continued:
        _fill(hub, repo_id, url, file, part, meter)
        if _is_right(part, file, meter):
            return
        part.write_bytes(b"")
    raise DownloadError(
        f"{file.path} of {repo_id} arrived damaged from {hub.title}. Try again; if it stays so, "
        "choose another source."
    )


def _is_right(part: Path, file: RemoteFile, meter: Meter) -> bool:
    if file.sha256:
        digest = hashlib.sha256()
        with part.open("rb") as content:
            while chunk := content.read(16 * CHUNK):
                digest.update(chunk)
                meter.check()
        if digest.hexdigest() != file.sha256.lower():
            return False
    return _header_is_right(part)


def _fill(hub: Hub, repo_id: str, url: str, file: RemoteFile, part: Path, meter: Meter) -> None:
    """Appends to ``part`` until it has ``file.size`` bytes, through broken connections."""
    import requests

    pauses = iter(PAUSES)
    while (start := part.stat().st_size) < file.size:
        meter.check()
        why = ""
        try:
            why = _append(hub, repo_id, url, file, part, meter)
        except requests.RequestException as error:
            why = type(error).__name__
        if part.stat().st_size > start:
            pauses = iter(PAUSES)
        elif part.stat().st_size < file.size:
            pause = next(pauses, None)
            if pause is None:
                host = str(urlsplit(url).hostname)
                raise unreachable(hub.title, host, why or "the connection broke")
            _sleep(pause, meter)


def _sleep(seconds: float, meter: Meter) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        meter.check()
        time.sleep(min(left, 0.1))


def _append(hub: Hub, repo_id: str, url: str, file: RemoteFile, part: Path, meter: Meter) -> str:
    """One request. Returns why nothing came, if the hub is only busy."""
    import requests

    start = part.stat().st_size
    headers = {**hub.headers, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        if answer.status_code in (408, 429) or answer.status_code >= 500:
            return f"HTTP {answer.status_code}"
        if answer.status_code not in (200, 206):
            raise refusal(hub.title, repo_id, answer.status_code)
        if start and answer.status_code == 200:  # a hub that cannot continue sends all again
            meter.done -= start
            start = 0
        with part.open("ab" if start else "wb") as content:
            for chunk in answer.iter_content(CHUNK):
                if content.tell() + len(chunk) > file.size:
                    raise DownloadError(f"{hub.title} sends more of {file.path} than it announced.")
                content.write(chunk)
                meter.add(len(chunk), file.path)
    return ""


def _require_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DownloadError(
            f"There is no room for the download in {folder}: it needs {readable_size(needed)}, and "
            f"{readable_size(free)} are free. Free some space or choose another folder."
        )


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
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
def _explained(hub: Hub, folder: Path) -> Iterator[None]:
    """Trouble with the disk, in the engine's words; what callbacks raise passes unchanged."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise DownloadError(
                f"The disk of {folder} is full. Free some space and download again: what already "
                f"came from {hub.title} is kept."
            ) from error
        if error.errno in _CLOSED:
            raise DownloadError(f"{folder} cannot be written: {error.strerror}.") from error
        raise
