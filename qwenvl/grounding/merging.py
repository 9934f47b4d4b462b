"""Merging of what was found in several overlapping views of one picture: each thing once.

The smallest view that holds a thing whole shows it largest, so that one decides: a box that lies
whole in a smaller view counts only if it was found there. Of the others non-maximum suppression
keeps one each; a box that a view's edge cuts gives way to the whole one. A point has no extent to
compare: it counts in the one view whose middle is nearest. A view whose reply was cut decides
nothing, since it may have come to less than it saw; nor does one that was unsure of the very thing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..coordinates import EDGE_TOLERANCE
from ..errors import Unavailable
from ..tiles import Tile, is_cut
from ..types import Box, Cuboid, Point, Size
from .found import Found

IOU_THRESHOLD = 0.5
"""Boxes of one label that overlap more are one thing."""

COVERED = 0.3
"""Share of a cut box that lies in another one, from which on it is a part of that. No more, since a
model that sees half a thing draws a whole one, shifted."""


def merged(
    found: Sequence[Found],
    views: Sequence[Tile],
    size: Size,
    complete: Sequence[Tile],
    unsure: Sequence[Found] = (),
) -> list[Found]:
    """``found`` in ``views``, in its order, without those that another view has better.

    ``size``: of the picture (height, width). ``complete``: the views whose replies came to their
    end; ``unsure``: what a threshold left out. Raises ``Unavailable`` without torchvision."""
    kept = [
        item
        for item in found
        if isinstance(item.shape, Point) and _owner(item.shape, views, complete) == item.tile
    ]
    boxes = [
        item
        for item in found
        if isinstance(item.shape, Box) and not _is_seen_closer(item, complete, size, unsure)
    ]
    kept += _merged_boxes(boxes, size)
    chosen = set(map(id, kept))
    return [item for item in found if id(item) in chosen]


def iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a.x2, b.x2) - max(a.x1, b.x1), min(a.y2, b.y2) - max(a.y1, b.y1)
    common = max(0.0, width) * max(0.0, height)
    return common / (_extent(a) + _extent(b) - common)


def is_one_label(a: Found, b: Found) -> bool:
    return _name(a.shape) == _name(b.shape)


def _owner(point: Point, views: Sequence[Tile], complete: Sequence[Tile]) -> Tile:
    """The view that a point lies deepest in: of the complete ones, if any holds it."""

    def depth(view: Tile) -> float:
        return max(_off(point.x, view[0::2]), _off(point.y, view[1::2]))

    return min([view for view in complete if depth(view) <= 1] or views, key=depth)


def _off(value: float, ends: tuple[int, ...]) -> float:
    """How far a coordinate is from the middle between ``ends``, whose own distance is 1."""
    low, high = ends
    return abs(2 * value - low - high) / (high - low)


def _is_seen_closer(
    item: Found, views: Sequence[Tile], size: Size, unsure: Sequence[Found]
) -> bool:
    """Whether a smaller one of ``views`` than the one that a box was found in holds it whole, and
    was not ``unsure`` of it."""
    return any(
        _area(view) < _area(item.tile)
        and _is_whole(item.shape, view, size)
        and not any(other.tile == view and _is_same(item, other) for other in unsure)
        for view in views
    )


def _is_same(a: Found, b: Found) -> bool:
    if not (isinstance(a.shape, Box) and isinstance(b.shape, Box)):
        return False
    return is_one_label(a, b) and iou(a.shape, b.shape) > IOU_THRESHOLD


def _is_whole(shape: object, view: Tile, size: Size) -> bool:
    """Whether a box ends within ``view``. Close to the edge it may go on beyond it: models do not
    draw the last few pixels."""
    assert isinstance(shape, Box)
    inside = (
        view[0] <= shape.x1 and view[1] <= shape.y1 and shape.x2 <= view[2] and shape.y2 <= view[3]
    )
    margin = EDGE_TOLERANCE * max(view[2] - view[0], view[3] - view[1])
    return inside and not is_cut(shape, view, size, margin)


def _merged_boxes(found: Sequence[Found], size: Size) -> list[Found]:
    if len(found) < 2:
        return list(found)
    import torch

    try:
        from torchvision.ops import batched_nms
    except (ImportError, RuntimeError) as error:
        raise Unavailable(
            f"Boxes of overlapping tiles are merged by torchvision, which cannot be used here "
            f"({error}). Install the release that goes with your torch: pip install torchvision"
        ) from error

    shapes = [item.shape for item in found if isinstance(item.shape, Box)]
    corners = torch.tensor([[box.x1, box.y1, box.x2, box.y2] for box in shapes])
    names = [_name(box) for box in shapes]
    labels = torch.tensor([names.index(name) for name in names])
    cut = [not _is_whole(item.shape, item.tile, size) for item in found]
    best_first = sorted(
        range(len(found)), key=lambda i: (cut[i], -(shapes[i].score or 0), _area(found[i].tile))
    )
    ranks = torch.empty(len(found))
    ranks[best_first] = torch.arange(len(found), 0, -1.0)
    kept = batched_nms(corners, ranks, labels, IOU_THRESHOLD).tolist()

    def is_part(i: int, j: int) -> bool:
        is_better = not cut[j] or _extent(shapes[j]) > _extent(shapes[i])
        is_same = i != j and names[i] == names[j]
        return is_same and is_better and _covered(shapes[i], shapes[j]) >= COVERED

    return [found[i] for i in kept if not (cut[i] and any(is_part(i, j) for j in kept))]


def _name(shape: Box | Point | Cuboid) -> str:
    return shape.label.strip().casefold()


def _area(tile: Tile) -> int:
    return (tile[2] - tile[0]) * (tile[3] - tile[1])


def _covered(part: Box, whole: Box) -> float:
    """Share of a box that lies in another."""
    width = min(part.x2, whole.x2) - max(part.x1, whole.x1)
    height = min(part.y2, whole.y2) - max(part.y1, whole.y1)
    return max(0.0, width) * max(0.0, height) / _extent(part)


def _extent(box: Box) -> float:
    return (box.x2 - box.x1) * (box.y2 - box.y1)
