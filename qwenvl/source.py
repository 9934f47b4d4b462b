"""Source: requests that come up while others are answered."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from .types import Request


class Source(Protocol):
    """Gives requests as they come up."""

    def more(self, wait: bool) -> Sequence[Request] | None:
        """A few that are ready now, none where none is; at least one where it may ``wait``, which
        it may while no other is being answered. None: no more will come."""
        ...


class Begun:
    """``source``, of which the first requests were taken: they are given again."""

    def __init__(self, first: Sequence[Request], source: Source):
        self._first, self._source = first, source

    @classmethod
    def of(cls, source: Source) -> Begun | None:
        """None where there is none: nothing has to be made ready to answer."""
        first = source.more(wait=True)
        return None if first is None else cls(first, source)

    def more(self, wait: bool) -> Sequence[Request] | None:
        """See ``Source.more``."""
        first, self._first = self._first, ()
        return first or self._source.more(wait)
