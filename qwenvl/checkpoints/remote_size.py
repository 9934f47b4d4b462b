"""Remote size: how much a repository's download will bring, asked of its hub before it begins."""

from __future__ import annotations

import shutil
import time
from functools import lru_cache
from pathlib import Path

from .hubs import hub_for
from .references import Reference
from .repository_files import select_files

_SECONDS = 300  # that an answer is kept: a page asks at every change of a setting


def download_bytes(reference: Reference) -> int:
    """Bytes of the files that a download of ``reference`` fetches. Raises ``DownloadError`` where
    the hub does not tell, or there is nothing that could be loaded."""
    return _download_bytes(reference, int(time.monotonic() / _SECONDS))


@lru_cache(maxsize=64)
def _download_bytes(reference: Reference, _time: int) -> int:
    hub = hub_for(reference.source)
    listing = hub.listing(reference.repo_id, reference.revision or None)
    files = select_files(hub, reference.repo_id, listing.files, with_code=False)
    return sum(file.size for file in files)


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk where ``folder`` is or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
