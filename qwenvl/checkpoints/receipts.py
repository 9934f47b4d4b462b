"""Download receipts: what a download brought into a model's folder, kept there as
``.download.json``.

Hashing a checkpoint takes a minute. With a receipt each file is hashed once: as long as its size
and modification time are unchanged, so is its content.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

NAME = ".download.json"


@dataclass(frozen=True)
class VerifiedFile:
    """A file as it was last verified: the hub's checksum, its size in bytes, its modification time
    in nanoseconds."""

    checksum: str
    size: int
    mtime_ns: int


@dataclass
class Receipt:
    """``repo_id`` and ``source``: of the last download, whether it finished or not; ``revision``:
    of the last that did, empty before that."""

    repo_id: str = ""
    source: str = ""
    revision: str = ""
    files: dict[str, VerifiedFile] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Receipt:
        """An empty receipt where there is none that can be read: then all is hashed once more."""
        try:
            content = json.loads((folder / NAME).read_text(encoding="utf-8"))
            rows = content.pop("files").items()
            files = {str(path): VerifiedFile(**row) for path, row in rows}
            return cls(**content, files=files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls()

    def write(self, folder: Path) -> None:
        """Raises ``OSError``."""
        part = folder / f"{NAME}.part"
        part.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")
        os.replace(part, folder / NAME)

    def add(self, name: str, checksum: str, path: Path) -> None:
        """Enters the file ``name`` of the repository, which lies at ``path`` and has that
        checksum."""
        state = path.stat()
        self.files[name] = VerifiedFile(checksum, state.st_size, state.st_mtime_ns)

    def vouches(self, name: str, path: Path, checksum: str | None = None) -> bool:
        """Whether ``path`` is unchanged since it was entered, with that checksum (None: any)."""
        entry = self.files.get(name)
        if entry is None or (checksum is not None and entry.checksum != checksum):
            return False
        state = path.stat()
        return (state.st_size, state.st_mtime_ns) == (entry.size, entry.mtime_ns)

    def outdated(self, checksums: Mapping[str, str], needed: Collection[str]) -> list[str]:
        """Entered files that are not ``needed`` and, going by the ``checksums`` of all files of a
        revision, are not part of it."""
        return sorted(
            name
            for name, entry in self.files.items()
            if name not in needed and checksums.get(name) != entry.checksum
        )
