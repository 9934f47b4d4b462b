"""Folder listing: pictures and clips below a folder, found as they are asked for."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import re
import unicodedata
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadOption
from ..media.image_files import FORMATS

CLIP_SUFFIXES = frozenset(
    (".mp4", ".mkv", ".webm", ".mov", ".avi", ".m4v", ".mpg", ".mpeg", ".flv", ".wmv")
)
"""Of video files, lower case: those that musubi-tuner reads, and common others."""

UNREAD_SUFFIXES = frozenset(
    (
        ".heic", ".heif", ".hif", ".jxl", ".psd", ".svg", ".exr", ".cr2", ".cr3", ".nef", ".arw",
        ".dng", ".raf", ".orf", ".rw2",
    )
)  # fmt: skip
"""Of picture files that are not read, lower case, and that somebody may miss: those of phones,
cameras and drawing programs."""

MASK_ENDINGS = ("-masklabel.png", "-condlabel.png")
"""How names of masks and conditioning pictures end, which lie beside the pictures that they are
about (OneTrainer, taggui)."""

NO_PICTURES = frozenset(("__macosx", "@eadir"))
"""Folders, lower case, of what systems keep about pictures, with files that are named as these."""

SORTED = 100_000
"""Names of one folder that are sorted; a folder of more is gone through as the disk has it, so that
memory does not grow with it."""

LEADS_OUT = "It is a link that leads out of the folders that may be used."

_PART = 10_000
_REPEATS = re.compile(r"^\d+_(?=.)")


@dataclass(frozen=True)
class Item:
    """A picture or, with ``is_clip``, a video file. ``relative``: its path below ``root``, the
    folder that is gone through, with slashes. ``twin``: the file beside it that comes first,
    pictures before clips, of those that differ from it in their suffix alone, where it is not that
    itself: a trainer that reads sidecars reads the same one for both. Names that differ in case or
    in their Unicode form count as the same, as they are on other systems. ``double``: of these, the
    first whose name is the same but for its Unicode form: a table has one row for both."""

    root: Path
    relative: str
    is_clip: bool = False
    twin: str = ""
    double: str = ""

    @property
    def path(self) -> Path:
        return self.root / self.relative

    @property
    def key(self) -> int:
        """64 bits of the relative path, the same on all systems."""
        return key_of(self.relative)

    @property
    def folder(self) -> str:
        """The name of the folder that it lies in, without the number of repeats that sd-scripts
        reads from names such as ``10_cat``."""
        parent = self.path.parent
        name = parent.name if parent.name not in ("", os.pardir) else parent.resolve().name
        return _REPEATS.sub("", name)


def key_of(relative: str) -> int:
    """64 bits of a relative path with slashes: of its NFC form, since macOS writes others."""
    name = unicodedata.normalize("NFC", relative).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


@dataclass(frozen=True)
class Shard:
    """The part ``number`` of ``count``, counted from 1, of a folder that several machines share. A
    file belongs to one shard, by its relative path. Raises ``BadOption``."""

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            count = max(1, self.count)
            raise BadOption(
                f"There is no shard {self.number}/{self.count}: of {count}, the first is 1/{count} "
                f"and the last {count}/{count}."
            )

    @classmethod
    def of(cls, text: str) -> Shard:
        """``2/4``."""
        found = re.fullmatch(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*", text)
        if not found:
            raise BadOption(f"{text!r} is no shard: write its number and how many, as 2/4.")
        return cls(int(found[1]), int(found[2]))

    def has(self, item: Item) -> bool:
        return item.key % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"


def listing(
    root: Path,
    on_error: Callable[[str, str], None] | None = None,
    within: Path | None = None,
    is_busy: Callable[[Path], bool] = lambda folder: False,
    clips: bool = True,
    on_unread: Callable[[str], None] | None = None,
) -> Iterator[Item]:
    """The pictures and clips in ``root`` and the folders below it, each once: names in their order,
    those of a folder before those of the folders in it; of folders whose names differ in their
    Unicode form alone, only the first. Links to folders are followed, and lead to no folder twice;
    none that leads out of ``within``, a resolved path, if one is given.

    Hidden files and folders are passed over, and masks (``MASK_ENDINGS``). ``clips``: whether a
    clip may be the twin of a picture. What cannot be read or is left out, such as folders below
    that ``is_busy`` is true of, is told to ``on_error(relative path, why)``; pictures of
    ``UNREAD_SUFFIXES``, to ``on_unread(relative path)``. Raises ``BadOption`` where ``root`` is no
    folder."""
    if not root.is_dir():
        raise BadOption(f"{root} is no folder.")
    seen: set[tuple[int, int]] = set()
    waiting = [("", root)]
    while waiting:
        relative, folder = waiting.pop()
        try:
            state = folder.stat()
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            if leads_out(folder, within):
                if on_error:
                    on_error(relative, LEADS_OUT)
                continue
            if relative and is_busy(folder):
                if on_error:
                    on_error(relative, "Another run is captioning this folder. Wait for its end.")
                continue
            yield from _items(root, folder, relative, clips)
            if on_unread:
                for name in _unread(folder):
                    on_unread(_join(relative, name))
            below = _below(folder, relative, on_error)
        except OSError as error:
            if on_error:
                on_error(relative or ".", f"This folder cannot be read: {error.strerror}.")
            continue
        waiting += [(_join(relative, name), folder / name) for name in reversed(below)]


def leads_out(path: Path, within: Path | None) -> bool:
    """Whether ``path`` is a link out of ``within``, a resolved path, or to itself; None: none
    is."""
    if within is None or not path.is_symlink():
        return False
    try:
        return not path.resolve().is_relative_to(within)
    except (OSError, RuntimeError):  # a link to itself, before Python 3.13
        return True


def _join(relative: str, name: str) -> str:
    return f"{relative}/{name}" if relative else name


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        for entry in found:
            if not entry.name.startswith("."):
                yield entry


def _below(folder: Path, relative: str, on_error: Callable[[str, str], None] | None) -> list[str]:
    """The names of the folders in it that are gone into, in order: of names that are the same but
    for their Unicode form, the first, since a table and a shard cannot tell their files apart."""
    first: dict[str, str] = {}
    for name in sorted(entry.name for entry in _entries(folder) if _is_folder(entry)):
        other = first.setdefault(_composed(name), name)
        if other != name and on_error:
            on_error(_join(relative, name), same_but_for_its_form(other))
    return list(first.values())


def same_but_for_its_form(other: str) -> str:
    """Why a file or folder is left out beside ``other``."""
    return (
        f"{other} lies beside it, whose name is the same but for its Unicode form. Rename one of "
        "them."
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir() and entry.name.lower() not in NO_PICTURES
    except OSError:
        return False


def _items(root: Path, folder: Path, relative: str, clips: bool) -> Iterator[Item]:
    """Of one folder. Its names are gone through twice: first to see which differ in their suffix
    alone, by 64 bits of each."""
    keys = array("Q")
    names: list[str] = []
    for name in _names(folder):
        keys.append(key_of(_stem(name)))
        if len(keys) <= SORTED:
            names.append(name)
    first = _first_of_twins(folder, keys, clips)
    ordered = sorted(names) if len(keys) <= SORTED else _names(folder)
    del keys, names
    for name in ordered:
        twin, double = (first.get(one, name) for one in (_stem(name), _composed(name)))
        others = ("" if one == name else one for one in (twin, double))
        yield Item(root, _join(relative, name), _is_clip(name), *others)


def _names(folder: Path) -> Iterator[str]:
    """Of pictures and clips."""
    known = CLIP_SUFFIXES | picture_suffixes()
    for entry in _entries(folder):
        name = entry.name
        is_mask = name.lower().endswith(MASK_ENDINGS)
        if _suffix(name) in known and not is_mask and not _is_folder(entry):
            yield name


def _unread(folder: Path) -> Iterator[str]:
    others = UNREAD_SUFFIXES - picture_suffixes()
    return (entry.name for entry in _entries(folder) if _suffix(entry.name) in others)


def _first_of_twins(folder: Path, keys: array[int], clips: bool) -> dict[str, str]:
    """The first name by each stem that several files have, and by each name but for its form."""
    ordered = sorted(keys) if len(keys) <= SORTED else _sorted(keys)
    shared = {one for one, other in itertools.pairwise(ordered) if one == other}
    first: dict[str, str] = {}
    for name in _names(folder) if shared else ():
        stem = _stem(name)
        if key_of(stem) in shared and (clips or not _is_clip(name)):
            for same in (stem, _composed(name)):
                first[same] = min(first.get(same, name), name, key=_is_clip_and_name)
    return first


def _sorted(keys: array[int]) -> Iterator[int]:
    """In order, without an object for each."""
    import numpy as np

    for part in np.array_split(np.sort(np.frombuffer(keys, np.uint64)), len(keys) // _PART + 1):
        yield from part.tolist()


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _is_clip(name: str) -> bool:
    return _suffix(name) in CLIP_SUFFIXES


def _is_clip_and_name(name: str) -> tuple[bool, str]:
    return _is_clip(name), name


def _stem(name: str) -> str:
    """The same for names that differ in suffix, case or Unicode form; it ends in a slash, which no
    name does."""
    return f"{_composed(os.path.splitext(name)[0].casefold())}/"


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """Suffixes, lower case, of the picture files that are read."""
    from PIL import Image

    known = Image.registered_extensions()
    return frozenset(suffix.lower() for suffix, form in known.items() if form in FORMATS)
