"""Reading order of lines by their boxes: columns, and what spans them (a recursive X-Y cut)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from ..types import Box

SPANNING = 0.6
"""Share of a region's width from which a line in it is taken to go across its columns."""

VERTICAL = 1.5
"""Height to width of a line that is written downwards."""


def is_vertical(box: Box) -> bool:
    return box.y2 - box.y1 > VERTICAL * (box.x2 - box.x1)


def reading_order(boxes: Sequence[Box]) -> list[int]:
    """Indices of ``boxes`` in the order in which a page of them is read.

    From top to bottom and left to right, column by column where a gap of a line's height or more
    goes through all lines between two that span it. Where most lines are vertical, columns are
    read from right to left, as in Chinese and Japanese.
    """
    if not boxes:
        return []
    if sum(map(is_vertical, boxes)) * 2 > len(boxes):
        # The same problem, turned by a quarter: what was the right is the top.
        turned = [Box(box.y1, -box.x2, box.y2, -box.x1) for box in boxes]
        return reading_order_of_rows(turned)
    return reading_order_of_rows(boxes)


def reading_order_of_rows(boxes: Sequence[Box]) -> list[int]:
    """As ``reading_order``, for horizontal lines."""
    line = statistics.median(box.y2 - box.y1 for box in boxes)
    return _ordered(boxes, list(range(len(boxes))), line)


def _ordered(boxes: Sequence[Box], indices: list[int], line: float) -> list[int]:
    if len(indices) < 2:
        return indices
    columns = _columns(boxes, indices, line)
    if len(columns) > 1:
        return [index for column in columns for index in _ordered(boxes, column, line)]
    left = min(boxes[index].x1 for index in indices)
    width = max(boxes[index].x2 for index in indices) - left
    spanning = [i for i in indices if boxes[i].x2 - boxes[i].x1 >= SPANNING * width]
    others = [index for index in indices if index not in set(spanning)]
    if not spanning or not others:
        return _rows(boxes, indices)
    found: list[int] = []
    for span in sorted(spanning, key=lambda index: boxes[index].y1):
        middle = (boxes[span].y1 + boxes[span].y2) / 2
        above = [i for i in others if (boxes[i].y1 + boxes[i].y2) / 2 < middle]
        others = [index for index in others if index not in set(above)]
        found += [*_ordered(boxes, above, line), span]
    return found + _ordered(boxes, others, line)


def _columns(boxes: Sequence[Box], indices: list[int], gap: float) -> list[list[int]]:
    """Groups of lines from left to right, between any two of which there is a ``gap``."""
    groups: list[list[int]] = []
    end = 0.0
    for index in sorted(indices, key=lambda index: boxes[index].x1):
        if not groups or boxes[index].x1 - end >= gap:
            groups.append([])
        groups[-1].append(index)
        end = max(end, boxes[index].x2) if len(groups[-1]) > 1 else boxes[index].x2
    return groups


def _rows(boxes: Sequence[Box], indices: list[int]) -> list[int]:
    """From top to bottom; lines that stand beside one another from left to right."""
    rows: list[list[int]] = []
    bottom = 0.0
    for index in sorted(indices, key=lambda index: boxes[index].y1):
        box = boxes[index]
        if not rows or (box.y1 + box.y2) / 2 > bottom:
            rows.append([])
            bottom = box.y2
        rows[-1].append(index)
    return [index for row in rows for index in sorted(row, key=lambda index: boxes[index].x1)]
