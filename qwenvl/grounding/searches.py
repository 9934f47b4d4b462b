"""Search: what is asked of one picture to find things in it, in one request or in several."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from .. import camera
from ..backends.base import Backend
from ..errors import BadOption
from ..query import Method, Query, Steps
from ..replies import scores as scoring
from ..tasks import act, boxes_3d, ground
from ..tiles import Tile
from ..types import Result, Size, Task
from ..unicode import well_formed
from .found import CountedResult, Found, found_in, joined
from .look_again import looked_again
from .merging import merged
from .regions import Region
from .views import MIN_TILE, query_about, views


def queries(find: str) -> tuple[str, ...]:
    """The queries in ``find``, one a line, each once: names separated by commas, or a referring
    expression. Empty where there is none."""
    lines = (" ".join(line.split()) for line in well_formed(find).splitlines())
    return tuple(dict.fromkeys(line for line in lines if line.strip(" ,，、;；.\"'“”")))


@dataclass(frozen=True, eq=False)
class Search:
    """How things are looked for.

    ``task``: what is asked where one request is all it takes, and how all others are asked but for
    their words. ``tasks``: by query, with all that they find. ``max_count``: at most this many of
    each query (0: all). ``tile``: side in pixels of the tiles that the picture is shown in, besides
    as a whole (0: only as a whole). ``again``: how to ask once more about each box in its own crop,
    by label (None: it is not done). ``regions``: the parts that are shown, and where what is found
    must lie (None: the whole picture). ``min_score``: what is found with less is left out, once
    all views have had their say.
    """

    task: Task
    tasks: Mapping[str, Task]
    kind: str = "boxes"
    max_count: int = 0
    tile: int = 0
    again: Callable[[str], Task] | None = None
    regions: Sequence[Region] | None = None
    min_score: float = 0

    @property
    def method(self) -> Method | None:
        """How to ask; None where one request is all it takes."""
        is_whole = not self.tile and self.regions is None
        is_plain = len(self.tasks) == 1 and is_whole and not self.again
        return None if is_plain else self._steps

    def within(self, regions: Sequence[Region] | None) -> Search:
        """The same search in the ``regions`` of a picture alone. Raises ``BadOption`` where that
        makes no sense."""
        if regions is not None and self.kind in _WHOLE:
            raise BadOption(f"inside is given, but {_WHOLE[self.kind]}")
        return dataclasses.replace(self, regions=regions)

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
        size = query.picture.shape[-2:]  # type: ignore[union-attr]
        shown = views(size, self.regions, self.tile, only_tiles=self.kind == "points")
        places = [(words, view) for words in self.tasks for view in shown]
        replies = yield [
            query_about(view, dataclasses.replace(query, task=self.tasks[words]), backend)
            for words, view in places
        ]
        found: dict[str, list[Found]] = {} if shown else {words: [] for words in self.tasks}
        seen: dict[str, list[Tile]] = {words: [] for words in self.tasks}
        complete: dict[str, list[Tile]] = {words: [] for words in self.tasks}
        for (words, view), reply in zip(places, replies, strict=True):
            if not reply.error:
                found.setdefault(words, []).extend(found_in(reply, view, words))
                seen[words].append(view)
                if reply.finish_reason == "stop":
                    complete[words].append(view)
        kept = [
            item
            for words in found
            for item in self._kept(found[words], seen[words], complete[words], size)
        ]
        notes: tuple[str, ...] = () if shown else ("There is no region to look in.",)
        if self.again and kept:
            kept, unscored = yield from looked_again(
                kept, query, backend, self.again, self._is_inside
            )
            notes += _unscored_note(unscored)
        notes += scoring.unscored_note([item.shape.score for item in kept], self.min_score)
        return joined({words: _of(words, kept) for words in found}, len(self.tasks), replies, notes)

    def _kept(
        self, found: Sequence[Found], seen: Sequence[Tile], complete: Sequence[Tile], size: Size
    ) -> Sequence[Found]:
        """What counts of everything that was found for one query in the views ``seen``, of which
        some have ``complete`` replies."""
        inside = [item for item in found if self._is_inside(item)]
        sure = [item for item in inside if scoring.is_kept(item.shape.score, self.min_score)]
        if len(seen) > 1:
            unsure = [i for i in inside if not scoring.is_kept(i.shape.score, self.min_score)]
            sure = merged(sure, seen, size, complete, unsure)
        return sure[: self.max_count or None]

    def _is_inside(self, item: Found) -> bool:
        return self.regions is None or any(region.holds(item.shape) for region in self.regions)


def _of(words: str, found: Sequence[Found]) -> list[Found]:
    return [item for item in found if item.query == words]


def _unscored_note(count: int) -> tuple[str, ...]:
    if not count:
        return ()
    return (
        f"{count} boxes were not looked at again to any use: this model's replies come without "
        "the probabilities that scores are computed from.",
    )


KINDS = (*ground.KINDS, act.KIND, boxes_3d.KIND)
"""What can be looked for: places of things, in the picture or in space, or what to do on a
screen."""

_WHOLE = {
    act.KIND: "actions are asked of a whole screen. Leave it out, or choose another kind.",
    boxes_3d.KIND: "places in space are told of a whole picture. Leave it out, or choose another "
    "kind.",
}


def search(
    find: str,
    kind: str = "boxes",
    max_count: int = 0,
    min_score: float = 0,
    scores: bool = False,
    screen: str = act.SCREENS[0],
    strict: str = "auto",
    tile: int = 0,
    look_again: bool = False,
    field_of_view: float = camera.FIELD_OF_VIEW,
) -> Search:
    """A search for ``find``: queries as ``queries`` reads them, each asked in a request of its own.
    For the kind ``action`` all of it is one goal, to be reached on the ``screen`` (see
    ``tasks.act``). ``field_of_view`` is for the kind ``boxes_3d`` (see ``tasks.boxes_3d``).

    The result holds what was found for the first query, then for the second ...; with several, each
    item has its ``query``. Other arguments as of ``tasks.ground`` and ``Search``; ``max_count``
    applies to each query, and ``look_again`` computes scores. Raises ``BadOption``.
    """
    if tile and tile < MIN_TILE:
        raise BadOption(f"Tiles of {tile} px are too small: use 0 (none), or {MIN_TILE} and more.")
    if look_again and kind != "boxes":
        raise BadOption(f"look_again is on, but it compares boxes, and the kind is {kind}.")
    if tile and kind in _WHOLE:
        raise BadOption(f"There are to be tiles, but {_WHOLE[kind]}")
    if kind == act.KIND:
        goal = act.act(find, screen, min_score, scores, strict)
        return Search(goal, {well_formed(find).strip(): goal}, kind)
    own = queries(find) or ("",)
    in_space = partial(boxes_3d.boxes_3d, field_of_view=field_of_view)
    task_of = partial(
        in_space if kind == boxes_3d.KIND else partial(ground.ground, kind=kind),
        scores=scores or look_again or min_score > 0,
        strict=strict,
    )
    tasks = {words: task_of(words) for words in own}
    whole = task_of(own[0], max_count=max_count, min_score=min_score)
    again = task_of if look_again else None
    return Search(whole, tasks, kind, max_count, tile, again, min_score=min_score)
