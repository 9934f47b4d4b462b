"""Linking: which of the boxes found in each frame are of one and the same thing. Pure functions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from ..types import Box

MOST_BOXES = 64
"""Of a frame: the time grows with the square of their number."""

_RANK = 0.02  # what the model names first is a little likelier meant


def linked(
    frames: Sequence[Sequence[Box]], check: Callable[[], None] = lambda: None
) -> list[int | None]:
    """Which box of each frame belongs to the one thing; None where a frame has no box.

    The path through the frames with the least change in all (Viterbi): of each step the distance
    that the middle moves, as a share of the box's diagonal but at most 2, and what the boxes do not
    overlap (1 - IoU). Frames without a box are stepped over; of one with very many the first
    ``MOST_BOXES`` are looked at. ``check`` is called for each frame.
    """
    frames = [boxes[:MOST_BOXES] for boxes in frames]
    here = [number for number, boxes in enumerate(frames) if boxes]
    chosen: list[int | None] = [None] * len(frames)
    if not here:
        return chosen
    costs = [_RANK * rank for rank in range(len(frames[here[0]]))]
    origins: list[list[int]] = []
    for before, number in itertools.pairwise(here):
        check()
        reached, came_from = [], []
        for rank, box in enumerate(frames[number]):
            steps = [
                cost + change(earlier, box)
                for cost, earlier in zip(costs, frames[before], strict=True)
            ]
            best = min(range(len(steps)), key=steps.__getitem__)
            reached.append(steps[best] + _RANK * rank)
            came_from.append(best)
        costs = reached
        origins.append(came_from)
    at = min(range(len(costs)), key=costs.__getitem__)
    chosen[here[-1]] = at
    for number, came_from in zip(reversed(here[:-1]), reversed(origins), strict=True):
        at = came_from[at]
        chosen[number] = at
    return chosen


def change(one: Box, other: Box) -> float:
    """How unlike two boxes are: 0 for equal ones, at most 3."""
    x = (one.x1 + one.x2 - other.x1 - other.x2) / 2
    y = (one.y1 + one.y2 - other.y1 - other.y2) / 2
    diagonal = max(_diagonal(one), _diagonal(other), 1e-6)
    return min(2.0, math.hypot(x, y) / diagonal) + 1 - overlap(one, other)


def overlap(one: Box, other: Box) -> float:
    """Intersection over union; 0 of two boxes without an area."""
    width = min(one.x2, other.x2) - max(one.x1, other.x1)
    height = min(one.y2, other.y2) - max(one.y1, other.y1)
    common = max(0.0, width) * max(0.0, height)
    either = _area(one) + _area(other) - common
    return common / either if either > 0 else 0.0


def between(one: Box, other: Box, share: float) -> Box:
    """The box ``share`` (0 to 1) of the way from ``one`` to ``other``."""
    x1, y1, x2, y2 = (
        a + (b - a) * share
        for a, b in ((one.x1, other.x1), (one.y1, other.y1), (one.x2, other.x2), (one.y2, other.y2))
    )
    return Box(x1, y1, x2, y2, one.label)


def scaled(box: Box, across: float, down: float) -> Box:
    """The box in a picture that is so many times as wide and as high."""
    corners = (box.x1 * across, box.y1 * down, box.x2 * across, box.y2 * down)
    return Box(*corners, box.label, box.score)


def _area(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)


def _diagonal(box: Box) -> float:
    return math.hypot(box.x2 - box.x1, box.y2 - box.y1)
