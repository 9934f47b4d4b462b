"""Remote size: how much a repository's download will bring, asked of its hub before it begins."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

from .hubs import hub_for
from .references import Reference
from .repository_files import select_files

_SECONDS = 300
"""That an answer is kept: a page asks at every change of a setting."""

_KNOWN: dict[Reference, tuple[float, int]] = {}
"""When each hub was asked, and its answer."""


def known_bytes(reference: Reference) -> int | None:
    """What ``download_bytes`` gave a short while ago; None where the hub was not asked."""
    asked, found = _KNOWN.get(reference, (0.0, 0))
    return found if asked and time.monotonic() - asked < _SECONDS else None


def download_bytes(reference: Reference) -> int:
    """Bytes of the files that a download of ``reference`` fetches. Raises ``DownloadError`` where
    the hub does not tell, or there is nothing that could be loaded."""
    if (known := known_bytes(reference)) is not None:
        return known
    hub = hub_for(reference.source)
    listing = hub.listing(reference.repo_id, reference.revision or None)
    files = select_files(hub, reference.repo_id, listing.files, with_code=False)
    found = sum(file.size for file in files)
    _KNOWN[reference] = time.monotonic(), found
    return found


def free_bytes(folder: Path) -> int:
    """Bytes that are free on the disk where ``folder`` is or will be."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
