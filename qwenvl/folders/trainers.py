"""Trainers: in which files, and in which form, programs that train models read captions. The data
is in ``trainers.yaml``."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import BadOption
from ..unicode import well_formed
from ..yaml_files import Fields, read_mapping
from .listing import CLIP_SUFFIXES, picture_suffixes

FILE = Path(__file__).with_name("trainers.yaml")
STORES = ("sidecar", "jsonl", "csv")
DEFAULT = "kohya"

_TEXTS = ("extension", "table", "clip_table", "path", "clip_path", "text", "task", "source")
_FLAGS = ("absolute", "one_line", "choices", "line_end", "only_extension", "mixed", "imagefolder")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufeff]")


@dataclass(frozen=True)
class Trainer:
    """One trainer's form; ``trainers.yaml`` says what each field means."""

    name: str
    title: str
    store: str
    extension: str = ""
    table: str = ""
    clip_table: str = ""
    path: str = ""
    clip_path: str = ""
    text: str = ""
    absolute: bool = False
    one_line: bool = True
    choices: bool = False
    line_end: bool = True
    only_extension: bool = False
    task: str = ""
    mixed: bool = True
    imagefolder: bool = False
    source: str = ""

    @property
    def has_sidecars(self) -> bool:
        return self.store == "sidecar"

    def sidecars(self, picture: Path) -> list[Path]:
        """The file of its own that the caption of ``picture`` goes into, where it has one."""
        return [picture.with_suffix(self.extension)] if self.has_sidecars else []

    def tables(self, folder: Path) -> list[Path]:
        """The files that the captions of all of ``folder`` go into, where there are such."""
        return [folder / name for name in (self.table, self.clip_table) if name]

    def caption(self, text: str) -> str:
        """``text`` as the trainer can read it; empty where nothing is left."""
        text = _CONTROL.sub(" ", well_formed(text))
        return " ".join(text.split()) if self.one_line else text.strip()

    def behind(self, old: str, caption: str) -> str:
        """The caption that is there, and another one with it."""
        if self.choices:
            return f"{old}\n{caption}"
        return f"{self.caption(old)}{', ' if self.one_line else chr(10)}{caption}"

    def sidecar(self, caption: str) -> bytes:
        """What its file holds."""
        return f"{caption}\n".encode() if self.line_end else caption.encode()

    def with_extension(self, extension: str) -> Trainer:
        """With sidecars of this suffix. Raises ``BadOption``."""
        if not self.has_sidecars:
            raise BadOption(f"The trainer {self.name!r} reads a table, which has no extension.")
        suffix = f".{extension.strip().lstrip('.')}"
        if not re.fullmatch(r"\.[\w-]{1,32}(\.[\w-]{1,32})?", suffix):
            raise BadOption(f"{extension!r} is no extension: write one such as txt or caption.")
        if self.only_extension and suffix != self.extension:
            raise BadOption(
                f"The trainer {self.name!r} reads captions in {self.extension} files alone: leave "
                f"out the extension {suffix}."
            )
        last = f".{suffix.rpartition('.')[2].lower()}"
        if last in picture_suffixes() | CLIP_SUFFIXES:
            raise BadOption(
                f"Captions with the extension {suffix} would take the place of pictures. Choose "
                "one such as txt."
            )
        return dataclasses.replace(self, extension=suffix)


@functools.cache
def trainers() -> Mapping[str, Trainer]:
    """All of them, by name."""
    return {name: _trainer(name, values) for name, values in read_mapping(FILE).items()}


def trainer(name: str = DEFAULT, extension: str = "") -> Trainer:
    """By name; ``extension``: of its sidecars, where it is not the usual one. Raises
    ``BadOption``."""
    if name not in trainers():
        raise BadOption(f"There is no trainer {name!r}. Choose one of: {', '.join(trainers())}.")
    found = trainers()[name]
    return found.with_extension(extension) if extension else found


def _trainer(name: str, values: Mapping[str, object]) -> Trainer:
    fields = Fields(FILE, values, f"{name}: ")
    title, store = fields.text("title"), fields.choice("store", STORES, STORES[0])
    own: dict[str, Any] = {field: fields.text(field, "") for field in _TEXTS}
    flags = {field: fields.flag(field) for field in _FLAGS}
    own.update((field, value) for field, value in flags.items() if value is not None)
    fields.end()
    return Trainer(name, title, store, **own)
