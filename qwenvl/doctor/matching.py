"""Matching of boxes: intersection over union (IoU), and one found box for each true one."""

from __future__ import annotations

from collections.abc import Sequence

Corners = Sequence[float]
"""(x1, y1, x2, y2)"""
Labelled = tuple[str, Corners]


def overlap(a: Corners, b: Corners) -> float:
    """Intersection over union of two boxes, 0..1."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(0, width) * max(0, height)
    return inside / max(
        1e-9, (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside
    )


def matched(truth: Sequence[Labelled], found: Sequence[Labelled]) -> list[float]:
    """For each true (label, box) the best IoU among found ones of that label, each used once."""
    pairs = sorted(
        (
            (overlap(t[1], f[1]), i, j)
            for i, t in enumerate(truth)
            for j, f in enumerate(found)
            if t[0] == f[0]
        ),
        reverse=True,
    )
    best, used = [0.0] * len(truth), set()
    taken = set()
    for value, i, j in pairs:
        if i not in taken and j not in used:
            best[i] = value
            taken.add(i)
            used.add(j)
    return best
