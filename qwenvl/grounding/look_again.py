"""Looking again: each box cropped with a margin and located once more, kept if better by score."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Generator, Sequence

from ..backends.base import Backend
from ..query import Query
from ..tiles import Tile
from ..types import Box, Result, Size, Task
from .found import Found, found_in
from .merging import IOU_THRESHOLD, iou, is_one_label
from .views import query_about

MARGIN = 0.5
"""Share of a box's longer side that is shown around it, and at least ``MIN_MARGIN`` pixels."""

MIN_MARGIN = 16

MIN_IOU = 0.3
"""A box that overlaps the first one less is another thing."""


def looked_again(
    found: Sequence[Found],
    query: Query,
    backend: Backend,
    task_of: Callable[[str], Task],
    is_inside: Callable[[Found], bool],
) -> Generator[Sequence[Query], Sequence[Result], tuple[list[Found], int]]:
    """Asks once more about each of ``found``, boxes with scores, in a step of a method.

    ``task_of(label)`` looks for a label, with scores. Returns the boxes in their order, each as it
    was or the better one in its place, and how many could not be compared for want of scores.
    A reply that fails or finds nothing changes nothing, nor does a box that is not ``is_inside``
    the regions, or that is now the thing of another box.
    """
    size = query.picture.shape[-2:]  # type: ignore[union-attr]
    places = [_around(item.shape, size) for item in found]
    replies = yield [
        dataclasses.replace(
            query_about(place, dataclasses.replace(query, task=task_of(_words(item))), backend),
            keep_unreadable=True,
        )
        for item, place in zip(found, places, strict=True)
    ]
    pairs = [
        (item, _closest(item, found_in(reply, place)))
        for item, place, reply in zip(found, places, replies, strict=True)
    ]
    unscored = sum(
        item.shape.score is None or (again is not None and again.shape.score is None)
        for item, again in pairs
    )
    kept = list(found)
    for index, (item, again) in enumerate(pairs):
        better, others = _better(item, again), [*kept[:index], *kept[index + 1 :]]
        if is_inside(better) and not any(_becomes_one(item, better, other) for other in others):
            kept[index] = better
    return kept, unscored


def _words(item: Found) -> str:
    """What to look for: its label, or else the query that found it."""
    return " ".join(item.shape.label.split()).strip(" ,，、;；.\"'“”") or item.query


def _around(shape: object, size: Size) -> Tile:
    assert isinstance(shape, Box)
    margin = max(MIN_MARGIN, MARGIN * max(shape.x2 - shape.x1, shape.y2 - shape.y1))
    height, width = size
    return (
        max(0, math.floor(shape.x1 - margin)),
        max(0, math.floor(shape.y1 - margin)),
        min(width, math.ceil(shape.x2 + margin)),
        min(height, math.ceil(shape.y2 + margin)),
    )


def _closest(item: Found, again: Sequence[Found]) -> Found | None:
    """The one of ``again`` that overlaps the box most, if that is enough to be the same thing."""
    if not again:
        return None
    best = max(again, key=lambda other: _iou(item.shape, other.shape))
    return best if _iou(item.shape, best.shape) >= MIN_IOU else None


def _better(item: Found, again: Found | None) -> Found:
    if again is None:
        return item
    before, after = item.shape.score, again.shape.score
    if before is None or after is None or after <= before:
        return item
    place = {name: again.entry[name] for name in ("bbox_2d", "score")}
    shape = dataclasses.replace(again.shape, label=item.shape.label)
    return dataclasses.replace(
        item, shape=shape, entry={**item.entry, **place}, data={**item.data, **place}
    )


def _becomes_one(before: Found, after: Found, other: Found) -> bool:
    """Whether ``after``, in the place of ``before``, is the same thing as ``other``."""
    if before.query != other.query or not is_one_label(before, other):
        return False
    return _iou(after.shape, other.shape) > IOU_THRESHOLD >= _iou(before.shape, other.shape)


def _iou(a: object, b: object) -> float:
    return iou(a, b) if isinstance(a, Box) and isinstance(b, Box) else 0.0
