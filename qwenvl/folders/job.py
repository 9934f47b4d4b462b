"""Jobs: what is to be done about a folder, what has become of it, and who is told."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from ..backends.base import Backend
from ..errors import BadOption
from ..query import Query
from ..types import Spec
from .asking import Asking
from .listing import Item, Shard
from .reading import Sizes
from .sidecars import Existing
from .templates import Template
from .trainers import Trainer, trainer

MOST_LISTED = 20
"""Failures that a summary names; all are told to the reporter."""


_ANSWERING = ("checkpoint", "model", "quantization", "yarn", "adapters")


def model_of(spec: Spec) -> str:
    """Of a model, what its replies depend on: not where it is, nor how fast it answers."""
    return repr([spec.name, *(getattr(spec, name, None) for name in _ANSWERING)])


@dataclass(frozen=True, eq=False)
class Job:
    """A folder to caption.

    ``asking``: what is asked about each file. ``trainer``: which files captions are written to.
    ``template``: the caption around the reply. ``existing``: what becomes of captions that are
    there. ``shard``: only this part of the files.
    ``near_duplicates``: a picture gets the reply of one that was asked about in the same run and
    differs from it in at most so many bits of 64 (see ``duplicates``); None: each is asked about.
    ``sizes``: how many files are read ahead. ``model``: which one it is, by which a run
    that was broken off is told from another one (see ``model_of``). ``within``: a resolved path out
    of which no link leads (None: links are followed wherever they lead).

    Raises ``BadOption`` where there is no such folder, and for what does not go together."""

    folder: Path
    asking: Asking
    trainer: Trainer = field(default_factory=trainer)
    template: Template = field(default_factory=Template)
    existing: Existing = "skip"
    shard: Shard = field(default_factory=Shard)
    near_duplicates: int | None = None
    sizes: Sizes = field(default_factory=Sizes)
    model: str = ""
    within: Path | None = None

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise BadOption(
                f"{self.folder} is a file: name the folder that it lies in."
                if self.folder.exists()
                else f"There is no folder {self.folder}."
            )
        if self.existing == "append" and not self.trainer.has_sidecars:
            raise BadOption(
                f"The trainer {self.trainer.name!r} reads a table with one caption a picture: "
                "nothing can be appended there. Overwrite, or choose a trainer with text files."
            )
        if self.existing == "append" and self.trainer.task:
            raise BadOption(
                f"The trainer {self.trainer.name!r} reads JSON, behind which nothing can stand: "
                "overwrite instead."
            )
        if self.asking.refine and self.existing == "skip":
            raise BadOption(
                "Captions that are there are to be refined, and to be skipped: choose overwrite. "
                "The old ones are backed up."
            )
        if self.asking.refine and self.near_duplicates is not None:
            raise BadOption(
                "Captions that are there are to be refined, each its own, and near-duplicates are "
                "to get the same one: leave out near_duplicates, or refine."
            )
        if self.trainer.task and not self.template.is_plain:
            raise BadOption(
                f"The trainer {self.trainer.name!r} reads JSON, around which nothing can stand: "
                "leave out template, trigger, prefix and suffix."
            )
        wanted = self.trainer.task
        if wanted and self.asking.task.name != wanted:
            raise BadOption(
                f"The trainer {self.trainer.name!r} reads replies to the task {wanted!r} alone, "
                f"and the task is {self.asking.task.name!r}."
            )
        if ("tags" in self.template.names) != (self.asking.tags is not None):
            raise BadOption("Tags are asked for if, and only if, the template has {tags}.")
        if self.near_duplicates is not None and not 0 <= self.near_duplicates <= 16:
            raise BadOption(
                f"near_duplicates is {self.near_duplicates}; it may be 0 to 16 of 64 bits."
            )

    def query(self, backend: Backend, item: Item, media: Any, old: str = "") -> Query:
        """What is asked about ``item``. ``media``: what is in it; ``old``: the caption that is
        there, to be refined."""
        template = self.template
        return self.asking.query(
            backend,
            media,
            item.is_clip,
            template.bare(item, old),
            partial(template.filled, item),
            "text" in template.names,
        )

    @property
    def identity(self) -> str:
        """Of all that captions depend on: runs with the same go on with one another."""
        words = (self.model, self.asking.identity, self.template, self.trainer, self.existing)
        return hashlib.blake2b(repr(words).encode(), digest_size=6).hexdigest()


@dataclass
class Summary:
    """What has become of a folder. ``found``: files that this run had to do with; of these
    ``captioned`` (by a ``survey``: that would be asked about), ``skipped`` (a caption was there),
    ``passed_over`` (clips that nothing is asked about) and ``same`` (captioned with the reply about
    a near-duplicate). ``failed``: files, and folders that could not be read; ``unreadable`` of them
    had a reply that could not be read. ``failures``: the first of them, relative path and reason.
    ``unread``: pictures of kinds that are not read, by suffix, which are not among ``found``.
    ``notes``: what the trainer will make of the folder that its owner may not expect."""

    found: int = 0
    captioned: int = 0
    skipped: int = 0
    failed: int = 0
    unreadable: int = 0
    passed_over: int = 0
    same: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Reporter:
    """Is told how a run goes; by default nothing is done with it. Called from the
    caller's thread and from those that go through the folder, but never from two at once. What it
    raises ends the run, but for ``counted``."""

    def counted(self, total: int) -> None:
        """Once it is known: how many files there are in the shard."""

    def asking(self, items: Sequence[Item]) -> None:
        """Before these files are asked about, beside those that are: the observer's indices count
        all that were told here. Those that cannot be read have ``failed`` before."""

    def captioned(self, item: Item, caption: str) -> None:
        """It is written; in a ``survey`` it would be asked about, and ``caption`` is empty."""

    def skipped(self, item: Item, reason: str) -> None:
        """It has a caption, which stays."""

    def passed_over(self, item: Item, reason: str) -> None:
        """Nothing is asked about files of its kind."""

    def unread(self, relative: str) -> None:
        """It is a picture of a kind that is not read."""

    def failed(self, relative: str, reason: str) -> None:
        """It has got no caption, a folder could not be read, or it is the twin of another file."""

    def note(self, item: Item, note: str) -> None:
        """What the reader should know about an answer."""
