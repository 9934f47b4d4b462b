"""From a hub to a folder: only what is missing, continued where it stopped, checked when it came.

A file grows as ``<name>.part`` beside its place and is renamed once its size, its checksum (where
the hub tells one) and its safetensors header are right. Nothing unfinished thus ever has the
name of a file that could be loaded. Files that replace others are renamed all at once, when the
last has come: a folder holds one revision, the old or the new.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import shutil
import time
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from ..errors import DownloadError, IncompleteCheckpoint
from .files import readable_size
from .hubs import Hub, RemoteFile, refusal, require_repo_id, require_revision, unreachable
from .receipts import NAME as RECEIPT
from .receipts import Receipt
from .safetensors_header import tensor_names

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
_NOT_NEEDED = ("requirements.txt", "training_args.json", "trainer_state.json", RECEIPT)
_CONFIG = "config.json"
# What some file system cannot name: characters, Windows' devices, blanks and dots at the end.
_BAD_NAME = re.compile(
    r'[\x00-\x1f\x7f\\:*?"<>|\ud800-\udfff]|^(con|prn|aux|nul|com\d|lpt\d)(\.|$)|[ .]$|^$',
    re.IGNORECASE,
)
LONGEST_NAME = 200
"""Bytes in UTF-8; file systems take 255, and ``.part`` must go behind it."""

log = logging.getLogger(__name__)

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
    verify: bool = False,
) -> Path:
    """Brings the loadable files of ``owner/name`` into ``root/name`` and returns that folder.

    See ``checkpoints.download`` for the meaning of the arguments. Raises ``DownloadError`` and
    ``BadOption``, and whatever ``check`` raises.
    """
    folder = root / require_repo_id(repo_id).split("/")[1]
    listing = hub.listing(repo_id, require_revision(revision))
    files = _needed(hub, repo_id, listing.files, with_code)
    with _explained(hub, folder), _alone(folder):
        receipt = Receipt.read(folder)
        meter = Meter(sum(file.size for file in files), progress, check)
        missing = [f for f in files if not _is_whole(folder, f, receipt, verify, meter)]
        receipt.write(folder)
        parts = {file: _start(folder, file, receipt) for file in missing}
        _require_room(folder, sum(f.size - part.stat().st_size for f, part in parts.items()))
        left_over = _left_over(folder, files, listing.files, receipt)
        # While something of another revision stands there, what comes must not stand beside it.
        at_once = bool(left_over) or any(_place(folder, file.path).exists() for file in missing)
        for file, part in parts.items():
            url = hub.url(repo_id, listing.revision, file.path)
            _bring(hub, repo_id, url, file, part, meter)
            if not at_once:
                _settle(folder, file, part, receipt)
        if at_once:
            _exchange(folder, parts, left_over, receipt)
        receipt.repo_id, receipt.source = repo_id, hub.title
        receipt.revision = listing.revision
        receipt.write(folder)
    return folder


def _left_over(
    folder: Path, files: list[RemoteFile], listed: Iterable[RemoteFile], receipt: Receipt
) -> list[str]:
    """What an earlier download brought and this revision has not. Files that somebody else put
    there stay, and weights among them are named."""
    needed = {file.path for file in files}
    ours = [
        path
        for path in receipt.left_over({file.path: file.checksum for file in listed}, needed)
        if not _unsound(RemoteFile(path, 0)) and _place(folder, path).is_file()
    ]
    strange = {path.name for path in folder.glob("*.safetensors")} - needed - set(ours)
    if strange:
        log.warning(
            "%s holds weights that are not of this repository: %s. Remove them unless you put "
            "them there.",
            folder,
            ", ".join(sorted(strange)),
        )
    return ours


def _settle(folder: Path, file: RemoteFile, part: Path, receipt: Receipt) -> None:
    place = _place(folder, file.path)
    os.replace(part, place)
    receipt.note(file.path, file.checksum, place)
    receipt.write(folder)


def _exchange(
    folder: Path, parts: dict[RemoteFile, Path], left_over: list[str], receipt: Receipt
) -> None:
    """The old files for the new ones. ``config.json`` goes first and comes last: without it a
    folder is no checkpoint, so that one which is stopped half way is never loaded."""
    config, aside = folder / _CONFIG, folder / f"{_CONFIG}.part"
    fresh = {file.path for file in parts}
    if _CONFIG in fresh or _CONFIG in left_over:
        config.unlink(missing_ok=True)
    elif config.exists():
        os.replace(config, aside)
    for path in left_over:
        _place(folder, path).unlink(missing_ok=True)
        receipt.files.pop(path)
    for file, part in sorted(parts.items(), key=lambda item: item[0].path == _CONFIG):
        _settle(folder, file, part, receipt)
    if _CONFIG not in fresh and aside.exists():
        os.replace(aside, config)


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
    _require_sound(hub, needed)
    # Small files first: what stops early then at least says what it is.
    return sorted(needed, key=lambda file: (file.size, file.path))


def _require_sound(hub: Hub, files: Iterable[RemoteFile]) -> None:
    """Raises ``DownloadError`` for what cannot be written as it is named, on any system."""
    taken: set[str] = set()
    folders: set[str] = set()
    for file in files:
        if what := _unsound(file) or _doubled(file.path, taken, folders):
            shown = file.path if len(file.path) <= 80 else f"{file.path[:80]}…"
            raise DownloadError(f"{hub.title} lists a file {what}: {shown!r}. Nothing was written.")


def _unsound(file: RemoteFile) -> str:
    parts = file.path.split("/")
    if ".." in parts or not parts[0]:
        return "outside the model's folder"
    if any(_BAD_NAME.search(part) for part in parts):
        return "with a name that not every system can write"
    if len(file.path.encode()) > LONGEST_NAME:
        return f"with a name of more than {LONGEST_NAME} bytes"
    if not 0 <= file.size < 1 << 63:
        return "of an impossible size"
    return ""


def _doubled(path: str, taken: set[str], folders: set[str]) -> str:
    """Notes ``path`` as taken, and its folders. Some systems take capitals for small letters."""
    same = unicodedata.normalize("NFC", path).casefold()
    above = {str(parent) for parent in PurePosixPath(same).parents} - {"."}
    if same in taken or same in folders or taken & above:
        return "with a name that another one has too"
    taken.add(same)
    folders |= above
    return ""


def _place(folder: Path, path: str) -> Path:
    """Where the file ``path`` of a repository goes: inside ``folder``, whatever links lie there."""
    place = folder.joinpath(*PurePosixPath(path).parts)
    if not place.parent.resolve().is_relative_to(folder.resolve()):
        raise DownloadError(f"A file would be written outside the model's folder: {path!r}.")
    return place


def _is_whole(folder: Path, file: RemoteFile, receipt: Receipt, verify: bool, meter: Meter) -> bool:
    """Whether the file need not come; counted by ``meter`` if so. Its content is read where the
    receipt does not vouch for it, or to ``verify``."""
    place = _place(folder, file.path)
    if not place.is_file() or place.stat().st_size != file.size or not _header_is_right(place):
        return False
    if file.checksum and (verify or not receipt.vouches(file.path, place, file.checksum)):
        if not _has_checksum(place, file, meter.add):
            meter.done -= file.size
            log.warning("%s differs from the hub's: it is fetched again.", place)
            return False
    else:
        if verify:
            log.warning("%s: the hub tells no checksum, so only its size was compared.", place)
        meter.add(file.size, file.path)
    receipt.note(file.path, file.checksum, place)
    return True


def _has_checksum(path: Path, file: RemoteFile, read: Callable[[int, str], None]) -> bool:
    """Whether the content is what the hub says, if it says. ``read(nbytes, path)`` is called
    after each piece."""
    kind, _, expected = file.checksum.partition(":")
    if not expected:
        return True
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git":
        digest.update(b"blob %d\0" % file.size)
    with path.open("rb") as content:
        while chunk := content.read(16 * CHUNK):
            digest.update(chunk)
            read(len(chunk), file.path)
    return digest.hexdigest() == expected


def _header_is_right(path: Path) -> bool:
    if path.name.removesuffix(".part").endswith(".safetensors"):
        try:
            tensor_names(path)
        except IncompleteCheckpoint:
            return False
    return True


def _start(folder: Path, file: RemoteFile, receipt: Receipt) -> Path:
    """The ``.part`` file that the download continues, empty where there is nothing to continue."""
    place = _place(folder, file.path)
    part = place.with_name(place.name + ".part")
    part.parent.mkdir(parents=True, exist_ok=True)
    # A cut-off file under its final name is a beginning too; only a checksum can confirm it.
    # A whole file of another revision is none.
    if (
        file.checksum
        and not part.exists()
        and _is_short(place, file.size)
        and not receipt.vouches(file.path, place)
    ):
        place.rename(part)
    if not part.exists() or part.stat().st_size > file.size or not file.checksum:
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
    whole = _has_checksum(part, file, lambda nbytes, path: meter.check())
    return whole and _header_is_right(part)


def _fill(hub: Hub, repo_id: str, url: str, file: RemoteFile, part: Path, meter: Meter) -> None:
    """Appends to ``part`` until it has ``file.size`` bytes, through broken connections."""
    import requests

    pauses = iter(PAUSES)
    while (start := part.stat().st_size) < file.size:
        meter.check()
        why = ""
        try:
            why = _append(hub, repo_id, url, file, part, meter)
        except (requests.RequestException, ValueError) as error:
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
