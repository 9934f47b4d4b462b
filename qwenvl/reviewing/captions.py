"""Captions under review: what is held of one file, and its replacement, in sidecars and tables."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Protocol

from ..errors import BadImage, BadOption, QwenVLError
from ..folders.listing import Item, Shard
from ..folders.sidecars import SidecarStore
from ..folders.state import State
from ..folders.tables import TableStore
from ..folders.trainers import Trainer

MAX_BYTES = 1 << 20
"""Longest caption file that is shown."""

Held = bytes | None
"""What stands on disk as a file's caption; None: nothing."""

Stamp = tuple[int, ...]
"""Changes whenever what stands on disk may have changed."""


class Captions(Protocol):
    """Where captions stand. ``held`` and ``put`` raise ``BadImage``, which costs one file alone,
    ``BadOption`` for a table that cannot be read, and ``OSError``; ``form`` raises ``BadImage`` for
    what the trainer does not read."""

    def stamp(self, item: Item) -> Stamp: ...

    def held(self, item: Item) -> Held: ...

    def put(self, item: Item, held: Held) -> None: ...

    def form(self, text: str) -> Held: ...


def captions_of(folder: Path, trainer: Trainer) -> Captions:
    state = State(folder, Shard(), folder.resolve())
    if trainer.has_sidecars:
        return SidecarCaptions(state, trainer)
    return TableCaptions(state, trainer)


def has_one_line(trainer: Trainer) -> bool:
    """Whether a line end in a caption becomes a blank. It does not where each line is a caption of
    its own."""
    return trainer.one_line and not trainer.choices


def _caption(trainer: Trainer, text: str) -> str:
    """``text`` as the trainer can read it, with all captions that it holds. Raises ``BadImage``
    for what is no JSON object, where the trainer reads nothing else."""
    if not trainer.choices:
        caption = trainer.caption(text)
        if caption and trainer.task:
            _check_object(caption, trainer)
        return caption
    lines = re.split(r"\r\n?|\n", text)
    return "\n".join(filter(None, map(trainer.caption, lines)))


def _check_object(caption: str, trainer: Trainer) -> None:
    try:
        value = json.loads(caption)
    except (ValueError, RecursionError) as error:
        raise BadImage(
            f"The trainer {trainer.name} reads JSON, and this is none: {error}."
        ) from error
    if not isinstance(value, dict):
        raise BadImage(
            f"The trainer {trainer.name} reads a JSON object: put the caption's fields in braces."
        )


def text_of(held: Held) -> str:
    """Raises ``BadImage``."""
    try:
        return (held or b"").decode("utf-8-sig").strip("\0 \t\r\n")
    except UnicodeDecodeError as error:
        why = "The caption cannot be read as UTF-8: save its file in that encoding."
        raise BadImage(why) from error


def version_of(held: Held) -> str:
    """The same for the same content, by which an edit tells what it was made on."""
    return "" if held is None else hashlib.blake2b(held, digest_size=12).hexdigest()


def is_inside(path: Path, root: Path) -> bool:
    """Whether ``path`` lies below ``root``, whatever links lead to."""
    real = os.path.realpath(path)
    return real.startswith(os.path.join(_real(root), ""))


@functools.lru_cache(8)
def _real(root: Path) -> str:
    return os.path.realpath(root)


class SidecarCaptions:
    """A text file beside each picture."""

    def __init__(self, state: State, trainer: Trainer):
        self._root, self._trainer = state.root, trainer
        self._store = SidecarStore(state, trainer, "skip", "")

    def stamp(self, item: Item) -> Stamp:
        return _stamp(self._store.path_of(item))

    def held(self, item: Item) -> Held:
        path = self._path_of(item)
        try:
            with path.open("rb") as file:
                found = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        if len(found) > MAX_BYTES:
            raise BadImage(f"{path.name} is longer than {MAX_BYTES >> 20} MiB: it is no caption.")
        return found

    def put(self, item: Item, held: Held) -> None:
        self._path_of(item)
        self._store.replace(item, held)

    def form(self, text: str) -> Held:
        caption = _caption(self._trainer, text)
        return self._trainer.sidecar(caption) if caption else None

    def _path_of(self, item: Item) -> Path:
        path = self._store.path_of(item)
        if item.twin:
            raise BadImage(
                f"{item.twin} lies beside {item.path.name}, and trainers read the same caption "
                "file for both. Rename one of them."
            )
        if not is_inside(path, self._root):
            raise BadImage(f"{path.name} is a link out of the folder: its caption is left alone.")
        return path


class TableCaptions:
    """Rows of the trainer's tables, which are read again when they have changed."""

    def __init__(self, state: State, trainer: Trainer):
        self._state, self._trainer = state, trainer
        self._store = TableStore(state, trainer, "overwrite", "review")
        self._read: Stamp = ()
        self._texts: dict[int, str] = {}
        self._problem = ""

    def stamp(self, item: Item) -> Stamp:
        return tuple(part for path in self._store.paths for part in _stamp(path))

    def held(self, item: Item) -> Held:
        stamp = self.stamp(item)
        if stamp != self._read:
            self._texts, self._problem = self._all()
            self._read = stamp
        if self._problem:
            raise BadOption(self._problem)
        text = self._texts.get(item.key)
        return None if text is None else text.encode("utf-8", "surrogatepass")

    def _all(self) -> tuple[dict[int, str], str]:
        """The captions; or none, and why the tables cannot be read, which is not tried again for
        each file."""
        try:
            return dict(self._store.captions()), ""
        except QwenVLError as error:
            return {}, str(error)

    def put(self, item: Item, held: Held) -> None:
        for path in self._store.paths:
            if not is_inside(path, self._state.root):
                raise BadImage(f"{path.name} is a link out of the folder: it is left alone.")
            if path.exists():
                self._state.back_up(path)
        text = None if held is None else held.decode("utf-8", "surrogatepass")
        self._store.replace(item, text)

    def form(self, text: str) -> Held:
        caption = _caption(self._trainer, text)
        return caption.encode() if caption else None


def _stamp(path: Path) -> Stamp:
    try:
        state = path.stat()
    except OSError:
        return ()
    return state.st_mtime_ns, state.st_ctime_ns, state.st_size, state.st_ino
