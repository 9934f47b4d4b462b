"""What downloads brought into a model's folder, kept beside it as ``.download.json``.

Hashing a checkpoint takes a minute. With this a file is hashed once: as long as its size and time
stay what they were, so does its content.
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
class Entry:
    """A file that was right when it was last looked at: the hub's checksum, and what the file
    system said of it (bytes, nanoseconds)."""

    checksum: str
    size: int
    mtime_ns: int


@dataclass
class Receipt:
    """``revision``: of the last download that came to its end; empty before that."""

    repo_id: str = ""
    source: str = ""
    revision: str = ""
    files: dict[str, Entry] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> Receipt:
        """An empty one where there is none that can be read: then all is hashed once more."""
        try:
            told = json.loads((folder / NAME).read_text(encoding="utf-8"))
            files = {str(path): Entry(**entry) for path, entry in told.pop("files").items()}
            return cls(**told, files=files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls()

    def write(self, folder: Path) -> None:
        """Raises ``OSError``."""
        draft = folder / f"{NAME}.part"
        draft.write_text(json.dumps(dataclasses.asdict(self), indent=1), encoding="utf-8")
        os.replace(draft, folder / NAME)

    def note(self, path: str, checksum: str, place: Path) -> None:
        """``place`` holds the file ``path`` of that checksum."""
        state = place.stat()
        self.files[path] = Entry(checksum, state.st_size, state.st_mtime_ns)

    def vouches(self, path: str, place: Path, checksum: str | None = None) -> bool:
        """Whether ``place`` is as it was noted, with that checksum (None: any)."""
        entry = self.files.get(path)
        if entry is None or (checksum is not None and entry.checksum != checksum):
            return False
        state = place.stat()
        return (state.st_size, state.st_mtime_ns) == (entry.size, entry.mtime_ns)

    def left_over(self, checksums: Mapping[str, str], needed: Collection[str]) -> list[str]:
        """Noted files that are not ``needed`` and, going by the ``checksums`` of all files of a
        revision, are not part of it."""
        return sorted(
            path
            for path, entry in self.files.items()
            if path not in needed and checksums.get(path) != entry.checksum
        )
