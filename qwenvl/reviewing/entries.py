"""Files under review: by indices that stay as they are, in an order that follows the folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import BadOption
from ..folders.listing import Item
from .captions import Stamp

FILTERS = ("all", "without", "captioned", "failed")

_UNSEEN: Stamp = (-1,)


@dataclass(eq=False)
class Entry:
    """A file, with what is known of its caption. ``problem``: why that cannot be shown;
    ``failure``: why it got none. ``is_there``: false of one that was taken away since."""

    __slots__ = ("failure", "is_there", "item", "problem", "stamp", "text", "version")
    item: Item
    text: str
    version: str
    stamp: Stamp
    problem: str
    failure: str
    is_there: bool


class Entries:
    """All files that were ever there. ``order``: the indices of those that are there now;
    ``captioned`` and ``failed``: how many of these; ``listings``: how often the order has changed
    but for files at its end. Not thread-safe."""

    def __init__(self) -> None:
        self.order: list[int] = []
        self.captioned = self.failed = self.listings = 0
        self._all: list[Entry] = []
        self._indices: dict[str, int] = {}  # by relative path

    def __getitem__(self, index: int) -> Entry:
        """Raises ``BadOption``."""
        if not 0 <= index < len(self._all):
            raise BadOption(f"There is no file number {index}.")
        return self._all[index]

    def put_in(self, item: Item, failure: str) -> tuple[int, bool]:
        """The index of a file that is there, and whether its caption is to be read anew. A file
        that was not there is the last until all are put in order."""
        index = self._indices.setdefault(item.relative, len(self._all))
        if index == len(self._all):
            self._all.append(Entry(item, "", "", _UNSEEN, "", "", False))
        entry = self._all[index]
        is_same = entry.is_there and entry.item == item  # another file may be its twin now
        entry.item = item
        if not entry.is_there:
            entry.failure, entry.is_there = failure, True
            self.order.append(index)
            self._count(entry, 1)
        return index, not is_same

    def order_as(self, found: list[int]) -> None:
        """``found``: all that is there, in order."""
        if found == self.order:
            return
        for index in set(self.order).difference(found):
            entry = self._all[index]
            entry.is_there = False
            self._count(entry, -1)
        self.order = found
        self.listings += 1

    def _count(self, entry: Entry, by: int) -> None:
        self.captioned += by * bool(entry.text)
        self.failed += by * bool(entry.failure)

    def read(self, entry: Entry, text: str, version: str, problem: str, stamp: Stamp) -> None:
        """Notes what stands on disk as the caption of ``entry``."""
        if entry.is_there:
            self.captioned += bool(text) - bool(entry.text)
        entry.text, entry.version, entry.problem, entry.stamp = text, version, problem, stamp

    def fail(self, entry: Entry, reason: str) -> None:
        """Notes why ``entry`` got no caption; empty where it did not fail."""
        if entry.is_there:
            self.failed += bool(reason) - bool(entry.failure)
        entry.failure = reason

    def there(self) -> list[tuple[int, Entry]]:
        """What is there now, in order, with the indices."""
        return [(index, self._all[index]) for index in self.order]


def matching(entries: Sequence[tuple[int, Entry]], words: str, only: str) -> list[int]:
    """The indices of those of ``FILTERS`` in whose caption or relative path each of the words
    stands, whatever their case. Raises ``BadOption``."""
    if only not in FILTERS:
        raise BadOption(f"There is no filter {only!r}. Choose one of: {', '.join(FILTERS)}.")
    wanted = words.casefold().split()
    passes: dict[str, Callable[[Entry], bool]] = {
        "all": lambda entry: True,
        "without": lambda entry: not entry.text,
        "captioned": lambda entry: bool(entry.text),
        "failed": lambda entry: bool(entry.failure),
    }

    def has(entry: Entry) -> bool:
        text = f"{entry.item.relative}\n{entry.text}".casefold()
        return all(word in text for word in wanted)

    return [index for index, entry in entries if passes[only](entry) and (not wanted or has(entry))]
