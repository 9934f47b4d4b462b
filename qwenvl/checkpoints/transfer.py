"""Resumable transfer: fills a ``.part`` file over HTTP through broken connections, and verifies
size, checksum and safetensors header."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import DownloadError, IncompleteCheckpoint
from .hubs import Hub, RemoteFile, refusal, unreachable
from .safetensors_header import tensor_names

CHUNK = 1 << 16
"""Bytes; a broken connection costs at most so many."""
RETRY_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds before each retry after a broken connection; starts again once bytes arrived."""
TIMEOUT = (10.0, 15.0)
"""Seconds to connect, and without a byte before the connection counts as broken: the longest that
somebody who cancels may have to wait."""

Progress = Callable[[int, int, str], None]
Check = Callable[[], None]


class Meter:
    """Counts the bytes of a whole download for ``progress``, and calls ``check`` at each step."""

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


def transfer(hub: Hub, repo_id: str, url: str, file: RemoteFile, part: Path, meter: Meter) -> None:
    """Completes ``part``. A continued file that fails verification is fetched once more, whole.
    Raises ``DownloadError``, and what the callbacks of ``meter`` raise."""
    was_continued = part.stat().st_size > 0
    meter.add(part.stat().st_size, file.path)
    _fill(hub, repo_id, url, file, part, meter)
    if _is_valid(part, file, meter):
        return
    part.write_bytes(b"")
    meter.done -= file.size
    if was_continued:
        _fill(hub, repo_id, url, file, part, meter)
        if _is_valid(part, file, meter):
            return
        part.write_bytes(b"")
    raise DownloadError(
        f"{file.path} of {repo_id} arrived damaged from {hub.title}. Try again; if it stays so, "
        "choose another source."
    )


def matches_checksum(path: Path, file: RemoteFile, on_read: Callable[[int, str], None]) -> bool:
    """Whether the content has the hub's checksum; True where the hub gives none.
    ``on_read(nbytes, path)`` is called after each piece."""
    kind, _, expected = file.checksum.partition(":")
    if not expected:
        return True
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git":
        digest.update(b"blob %d\0" % file.size)
    with path.open("rb") as content:
        while chunk := content.read(16 * CHUNK):
            digest.update(chunk)
            on_read(len(chunk), file.path)
    return digest.hexdigest() == expected


def has_valid_header(path: Path) -> bool:
    """Whether a safetensors file is whole, going by its header; True for any other file."""
    if path.name.removesuffix(".part").endswith(".safetensors"):
        try:
            tensor_names(path)
        except IncompleteCheckpoint:
            return False
    return True


def _is_valid(part: Path, file: RemoteFile, meter: Meter) -> bool:
    is_equal = matches_checksum(part, file, lambda nbytes, path: meter.check())
    return is_equal and has_valid_header(part)


def _fill(hub: Hub, repo_id: str, url: str, file: RemoteFile, part: Path, meter: Meter) -> None:
    """Appends to ``part`` until it has ``file.size`` bytes, through broken connections."""
    import requests

    delays = iter(RETRY_DELAYS)
    while (start := part.stat().st_size) < file.size:
        meter.check()
        why = ""
        try:
            why = _append(hub, repo_id, url, file, part, meter)
        except (requests.RequestException, ValueError) as error:
            why = type(error).__name__
        if part.stat().st_size > start:
            delays = iter(RETRY_DELAYS)
        elif part.stat().st_size < file.size:
            delay = next(delays, None)
            if delay is None:
                host = str(urlsplit(url).hostname)
                raise unreachable(hub.title, host, why or "the connection broke")
            _sleep(delay, meter)


def _sleep(seconds: float, meter: Meter) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        meter.check()
        time.sleep(min(left, 0.1))


def _append(hub: Hub, repo_id: str, url: str, file: RemoteFile, part: Path, meter: Meter) -> str:
    """One request. Returns why nothing came, where the hub is only busy."""
    import requests

    start = part.stat().st_size
    headers = {**hub.headers, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code in (408, 429) or response.status_code >= 500:
            return f"HTTP {response.status_code}"
        if response.status_code not in (200, 206):
            raise refusal(hub.title, repo_id, response.status_code)
        if start and response.status_code == 200:  # a hub without ranges sends the whole file
            meter.done -= start
            start = 0
        with part.open("ab" if start else "wb") as content:
            for chunk in response.iter_content(CHUNK):
                if content.tell() + len(chunk) > file.size:
                    raise DownloadError(f"{hub.title} sends more of {file.path} than it announced.")
                content.write(chunk)
                meter.add(len(chunk), file.path)
    return ""
