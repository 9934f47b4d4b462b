"""Edits of captions, which can be undone and done again."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadImage, QwenVLError
from .captions import Captions, Held, text_of, version_of
from .entries import Entries, Entry

MOST_UNDONE = 1000
"""Edits that can be undone."""

_PASSED_OVER = "This edit is passed over."


class Conflict(QwenVLError):
    """The caption is not what the edit was made on. ``index``: the file's."""

    def __init__(self, index: int, message: str):
        super().__init__(message)
        self.index = index


class _DiskError(BadImage):
    """A caption cannot be read or written now; perhaps it can the next time."""


@dataclass(frozen=True)
class _Edit:
    index: int
    before: Held
    after: Held


class Edits:
    """What was done to the captions of ``entries``. Not thread-safe."""

    def __init__(self, captions: Captions, entries: Entries):
        self._captions, self._entries = captions, entries
        self._undo: list[_Edit] = []
        self._redo: list[_Edit] = []

    def counts(self) -> dict[str, int]:
        return {"undo": len(self._undo), "redo": len(self._redo)}

    def edit(self, index: int, text: str, version: str) -> bool:
        """Writes ``text``, unless that is what stands there: then it is False. Raises as
        ``Collection.edit``."""
        entry = self._entries[index]
        _check_there(entry)
        before = self._now(entry)
        if version_of(before) != version:
            raise Conflict(index, "The caption was changed meanwhile.")
        after = self._captions.form(text)
        if after == before or (after is None and not text_of(before)):
            return False
        self._put(entry, after)
        self._undo = [*self._undo[1 - MOST_UNDONE :], _Edit(index, before, after)]
        self._redo.clear()
        return True

    def undo(self) -> int | None:
        """Raises as ``Collection.undo``."""
        return self._move(self._undo, self._redo, is_undo=True)

    def redo(self) -> int | None:
        return self._move(self._redo, self._undo, is_undo=False)

    def _move(self, source: list[_Edit], target: list[_Edit], is_undo: bool) -> int | None:
        if not source:
            return None
        edit = source[-1]
        entry = self._entries[edit.index]
        old, new = (edit.after, edit.before) if is_undo else (edit.before, edit.after)
        try:
            _check_there(entry)
            if version_of(self._now(entry)) != version_of(old):
                why = f"The caption of {entry.item.relative} was changed since by another program."
                raise Conflict(edit.index, f"{why} {_PASSED_OVER}")
            self._put(entry, new)
        except _DiskError:
            raise
        except Conflict:
            source.pop()
            raise
        except BadImage as error:
            source.pop()
            raise BadImage(f"{error} {_PASSED_OVER}") from error
        target.append(source.pop())
        return edit.index

    def _now(self, entry: Entry) -> Held:
        try:
            return self._captions.held(entry.item)
        except OSError as error:
            raise _DiskError(f"The caption cannot be read: {error.strerror}.") from error

    def _put(self, entry: Entry, held: Held) -> None:
        try:
            self._captions.put(entry.item, held)
        except OSError as error:
            raise _DiskError(f"The caption cannot be written: {error.strerror}.") from error


def _check_there(entry: Entry) -> None:
    """Raises ``BadImage`` for a file that is gone."""
    if not entry.is_there:
        raise BadImage(f"{entry.item.relative} is gone: its caption is left as it is.")
