"""Sidecars: a caption's own file beside its picture."""

from __future__ import annotations

import codecs
import errno
import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from ..errors import BadImage
from . import files
from .journals import Journal, Keys, digest
from .listing import Item, key_of
from .state import State
from .trainers import Trainer

Existing = Literal["skip", "overwrite", "append"]
"""What becomes of a caption that is there already."""

_KIND = "sidecars-"
_SHORT = 64  # bytes of a file that may be blank
_BLANKS = b"\0 \t\r\n"


class Changed(Exception):
    """A caption is no longer what it was when its file was asked about."""


class SidecarStore:
    """Captions in sidecars. ``identity`` of the run: where one with the same was broken off that
    does not skip what is there, what that has done is not done again.

    A sidecar is written as a whole or not at all. One that is written over is backed up before,
    unless it was once; what it had at first is kept. An empty one counts as not there, since
    trainers fail on it."""

    def __init__(self, state: State, trainer: Trainer, existing: Existing, identity: str):
        self._state, self._trainer, self._existing = state, trainer, existing
        self._done = Keys()
        self._journal: Journal | None = None
        if existing != "skip":
            self._kind = f"{_KIND}{identity}"
            self._journal = Journal(state.journal_of(self._kind))
            journals = state.journals(self._kind)
            self._done = Keys((key, 0) for one in journals for key in self._finished(one))

    def begin(self) -> None:
        """Drops what the journals of runs with other settings say of these files: they are not gone
        on with. A run that only adds what is not there leaves them."""
        if self._journal:
            going_on = {journal.path for journal in self._state.journals(self._kind)}
            for journal in self._state.journals(_KIND):
                if journal.path not in going_on:
                    self._state.forget(journal)

    def path_of(self, item: Item) -> Path:
        return self._trainer.sidecars(item.path)[0]

    def has(self, item: Item) -> bool:
        """Whether there is nothing to be done about ``item``. What is in the way of its sidecar,
        such as a folder of that name, counts as none: ``put`` names it."""
        return (not self._journal or item.key in self._done) and not self._is_blank(item)

    def problem(self, item: Item) -> str:
        """Why ``item`` can have no sidecar of its own; empty where it can."""
        if item.twin:
            return (
                f"{item.twin} lies beside it, and trainers read the same caption file for both. "
                "Rename one of them."
            )
        path = self.path_of(item)
        try:
            path.stat()
        except FileNotFoundError:
            return ""
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return "The name of its caption file would be too long: give it a shorter one."
            return f"Its caption {path.name} cannot be read: {error.strerror}."
        return ""

    def held(self, item: Item) -> int:
        """What ``put`` may write over, as it is when ``item`` is asked about: 64 bits of it, 0 of
        nothing. Raises ``BadImage``, as ``old``."""
        return digest(self._content(item)) if self._existing != "skip" else 0

    def old(self, item: Item) -> str:
        """The caption that is there; empty where there is none. Raises ``BadImage``, which costs
        this picture alone, where it cannot be read."""
        try:
            return self._content(item).decode("utf-8-sig").strip(_BLANKS.decode())
        except UnicodeDecodeError as error:
            name = self.path_of(item).name
            why = f"Its caption {name} cannot be read as UTF-8: save it in that encoding."
            raise BadImage(why) from error

    def put(self, item: Item, caption: str, held: int) -> None:
        """``held``: of the same ``item``, from when it was asked about. Raises ``Changed`` where
        another caption stands there by now, to which one may only be appended; ``OSError``; and
        ``BadImage`` as ``old``."""
        path, there = self.path_of(item), self._content(item)
        if self._existing == "append":
            if old := self.old(item):
                caption = self._trainer.behind(old, caption)
        elif digest(there) != held:
            raise Changed
        data = self._trainer.sidecar(caption)
        if self._journal is None:
            files.write(path, data)
            return
        if there:
            self._state.back_up(path)
        # Write-ahead: after a crash in between, the file itself says which of both it holds.
        self._journal.add(file=item.relative, sidecar=path.name, holds=_digest(data))
        files.write(path, data, durable=bool(there))
        self._journal.add(file=item.relative, done=True)

    def replace(self, item: Item, data: bytes | None) -> None:
        """Makes ``data`` the whole sidecar of ``item``; None takes it away. What it had at first
        is kept. Raises ``OSError``, and ``BadImage`` as ``old``."""
        path = self._clear_path(item)
        was_there = not self._is_blank(item)
        if was_there:
            self._state.back_up(path)
        if data is None:
            path.unlink(missing_ok=True)
        else:
            files.write(path, data, durable=was_there)

    def finish(self, is_complete: bool) -> None:
        """The run has gone through all files: the next one begins anew, unless some failed."""
        if self._journal and is_complete:
            self._journal.close()
            for journal in self._state.journals(self._kind):
                self._state.forget(journal)

    def notes(self) -> list[str]:
        """A sidecar whose picture is gone is in nobody's way."""
        return []

    def close(self) -> None:
        if self._journal:
            self._journal.close()

    def _clear_path(self, item: Item) -> Path:
        """Of the sidecar, where nothing but a file stands in its place. Raises ``BadImage``."""
        path = self.path_of(item)
        if path.exists() and not path.is_file():
            raise BadImage(f"{path.name} is in the way of its caption, and is no file: rename it.")
        return path

    def _content(self, item: Item) -> bytes:
        """All of the sidecar; nothing where there is none, or a blank one. Raises ``BadImage``."""
        path = self._clear_path(item)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise BadImage(f"Its caption {path.name} cannot be read: {error.strerror}.") from error
        return b"" if _is_empty(data) else data

    def _is_blank(self, item: Item) -> bool:
        path = self.path_of(item)
        try:
            state = path.stat()
            if not stat.S_ISREG(state.st_mode):
                return True
            if state.st_size > _SHORT:
                return False
            return _is_empty(path.read_bytes())
        except FileNotFoundError:
            return True
        except OSError:
            return False  # not ours to write over

    def _finished(self, journal: Journal) -> Iterator[int]:
        """Of what an earlier run has done, that which it did not come to note included."""
        begun: dict[str, tuple[str, str]] = {}
        for row in journal.rows():
            relative = row["file"]
            if row.get("done"):
                begun.pop(relative, None)
                yield key_of(relative)
            else:
                begun[relative] = str(row.get("sidecar")), str(row.get("holds"))
        for relative, (name, holds) in begun.items():
            path = self._state.root / os.path.dirname(relative) / name
            try:
                if _digest(path.read_bytes()) == holds:
                    yield key_of(relative)
            except OSError:
                continue


def _is_empty(data: bytes) -> bool:
    return not data.removeprefix(codecs.BOM_UTF8).strip(_BLANKS)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
