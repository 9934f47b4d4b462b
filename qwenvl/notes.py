"""Notes: sentences beside an answer on how it came about. One that is true of a whole run stands
beside each of its answers, and is shown with the first."""

from __future__ import annotations

from collections.abc import Iterable


class RunNote(str):
    """A note on what was asked, and not on the answer: other answers of a run have the same."""

    __slots__ = ()


class NotesOfRun:
    """The notes of one run, as they are to be shown."""

    def __init__(self) -> None:
        self._shown: set[str] = set()

    def clear(self) -> None:
        """Another run begins."""
        self._shown.clear()

    def new(self, notes: Iterable[str]) -> list[str]:
        """Of the ``notes`` beside an answer, those to be shown: not what is true of the whole run
        and was shown before."""
        found = []
        for note in notes:
            if not isinstance(note, RunNote):
                found.append(note)
            elif note not in self._shown:
                self._shown.add(note)
                found.append(note)
        return found
