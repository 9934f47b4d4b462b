"""Search: what is asked of one picture to find things in it, in one request or in several."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..backends.base import Backend
from ..query import Method, Query, Steps
from ..tasks import act, ground
from ..types import Result, Task
from ..unicode import well_formed
from .found import CountedResult, Found, found_in, joined


def queries(find: str) -> tuple[str, ...]:
    """The queries in ``find``, one a line, each once: names separated by commas, or a referring
    expression. Empty where there is none."""
    lines = (" ".join(line.split()) for line in well_formed(find).splitlines())
    return tuple(dict.fromkeys(line for line in lines if line.strip(" ,，、;；.\"'“”")))


@dataclass(frozen=True, eq=False)
class Search:
    """How things are looked for. ``tasks``: by query; ``max_count``: at most this many of each (0:
    all)."""

    tasks: Mapping[str, Task]
    max_count: int = 0

    @property
    def task(self) -> Task:
        """The task that stands for all: they are alike but for their words."""
        return next(iter(self.tasks.values()))

    @property
    def method(self) -> Method | None:
        """How to ask; None where one request is all it takes."""
        return self._steps if len(self.tasks) > 1 else None

    def counts(self, result: Result) -> dict[str, int]:
        """How many a result of this search has of each query, in order; nothing is said of those
        without an answer that could be read."""
        if result.error:
            return {}
        if isinstance(result, CountedResult):
            return dict(result.counts)
        items = result.data if isinstance(result.data, list) else result.points
        return {next(iter(self.tasks)): len(items)}

    def _steps(self, backend: Backend, query: Query) -> Steps:
        height, width = query.picture.shape[-2:]  # type: ignore[union-attr]
        tile = (0, 0, width, height)
        asked = [dataclasses.replace(query, task=task, method=None) for task in self.tasks.values()]
        replies = yield asked
        found = {
            words: self._tagged(words, found_in(reply, tile)[: self.max_count or None])
            for words, reply in zip(self.tasks, replies, strict=True)
            if not reply.error
        }
        return joined(found, replies)

    def _tagged(self, words: str, found: Sequence[Found]) -> Sequence[Found]:
        return [item.tagged(words) for item in found] if len(self.tasks) > 1 else found


KINDS = (*ground.KINDS, act.KIND)
"""What can be looked for: places of things, or what to do on a screen."""


def search(
    find: str,
    kind: str = "boxes",
    max_count: int = 0,
    min_score: float = 0,
    scores: bool = False,
    screen: str = act.SCREENS[0],
    strict: str = "auto",
) -> Search:
    """A search for ``find``: queries as ``queries`` reads them, each asked in a request of its own.
    For the kind ``action`` all of it is one goal, to be reached on the ``screen`` (see
    ``tasks.act``).

    The result holds what was found for the first query, then for the second ...; with several, each
    item has its ``query``. Other arguments as of ``tasks.ground``; ``max_count`` applies to each
    query. Raises ``BadOption``.
    """
    if kind == act.KIND:
        return Search({well_formed(find).strip(): act.act(find, screen, min_score, scores)})
    tasks = {
        words: ground.ground(words, kind, max_count, min_score, scores, strict)
        for words in queries(find) or ("",)
    }
    return Search(tasks, max_count)
