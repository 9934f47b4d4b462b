"""Why files have got no caption, by the lists that caption runs leave in the folder."""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path
from typing import Any

from ..folders.journals import Journal
from ..folders.state import FAILED, FOLDER

log = logging.getLogger(__name__)


class Failures:
    """Failures of the last caption runs over ``folder``, a list a shard. A line without a reason
    says that its file has been captioned since."""

    def __init__(self, folder: Path):
        self._folder = folder / FOLDER
        self._stamp: Any = None
        self._reasons: dict[str, str] = {}

    def read(self) -> set[str]:
        """The files of which the lists say something else than when they were read last."""
        paths = sorted(self._folder.glob(f"*{FAILED}"))
        with contextlib.suppress(OSError):  # one that a run has just taken away
            stamp = [(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths]
            if stamp != self._stamp:
                before, self._reasons = self._reasons, {}
                for path in paths:
                    self._reasons.update((file, why) for file, why in _last(path).items() if why)
                self._stamp = stamp
                return {file for file, _ in before.items() ^ self._reasons.items()}
        return set()

    def of(self, file: str) -> str:
        """Why this file, by its relative path, got no caption; empty where it did not fail."""
        return self._reasons.get(file, "")

    def settle(self, file: str) -> None:
        """Notes that this file has a caption now. A run may be adding to the same list."""
        for path in self._folder.glob(f"*{FAILED}"):
            try:
                if _last(path).get(file):
                    journal = Journal(path)
                    journal.add(file=file, reason="")
                    journal.close()
            except OSError as error:
                log.warning("%s still names %s: %s", path, file, error)


def _last(path: Path) -> dict[str, str]:
    """The last reason that is given for each file."""
    return {row["file"]: str(row.get("reason", "")) for row in Journal(path).rows()}
