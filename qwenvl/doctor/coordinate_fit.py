"""Coordinate fit: which coordinate space puts a model's boxes where the shapes are.

Takes the numbers as the model wrote them, before any family's rule has mapped them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..types import Family, Size
from .matching import Labelled, matched

Space = Literal["0-1000", "0-1024", "0-1", "input_pixels", "picture_pixels"]

SPACES: Mapping[Space, str] = {
    "0-1000": "0-1000 along each side",
    "0-1024": "0-1024 along each side",
    "0-1": "fractions of the sides, 0-1",
    "input_pixels": "pixels of the resized picture",
    "picture_pixels": "pixels of the original picture",
}
_RELATIVE: Mapping[int, Space] = {1000: "0-1000", 1024: "0-1024"}  # by ``Family.box_scale``

MIN_BOXES = 8
"""Boxes that it takes to tell."""
_MIN_GAIN = 0.02  # of the mean IoU; less is no other space, but a model's own inaccuracy
_MIN_ERRORS = 3.0  # standard errors that the gain must reach
_MIN_IOU = 0.3  # mean; below it a space does not fit at all


@dataclass(frozen=True)
class RawReply:
    """The boxes of one reply. ``truth``: names and boxes in pixels of the picture. ``found``:
    labels and numbers, x1, y1, x2, y2, as written. Sizes are (height, width)."""

    truth: Sequence[Labelled]
    found: Sequence[Labelled]
    image_size: Size
    input_size: Size


@dataclass(frozen=True)
class CoordinateFit:
    """``boxes``: true ones in replies that hold boxes. ``iou``: by space, the mean over them, 0 for
    one that was missed. ``best`` is None where there are too few, or none fits. ``differs``:
    ``best`` is another space than the family's, and clearly so."""

    expected: Space
    best: Space | None
    boxes: int
    differs: bool = False
    iou: Mapping[Space, float] = field(default_factory=dict)


def space_of(family: Family) -> Space:
    """The space that the replies of ``family`` are read in."""
    return "input_pixels" if family.coordinates == "absolute" else _RELATIVE[family.box_scale]


def fit(replies: Sequence[RawReply], expected: Space) -> CoordinateFit:
    """Which space fits best, where replies are read in ``expected``."""
    used = [reply for reply in replies if reply.found]
    boxes = sum(len(reply.truth) for reply in used)
    if boxes < MIN_BOXES:
        return CoordinateFit(expected, None, boxes)
    ious = {space: [iou for reply in used for iou in _ious(reply, space)] for space in SPACES}
    means = {space: statistics.fmean(values) for space, values in ious.items()}
    best = max(means, key=lambda space: means[space])
    if means[best] < _MIN_IOU:
        return CoordinateFit(expected, None, boxes, iou=means)
    if not _is_clear([a - b for a, b in zip(ious[best], ious[expected], strict=True)]):
        best = expected
    return CoordinateFit(expected, best, boxes, best != expected, means)


def _is_clear(gains: Sequence[float]) -> bool:
    """Whether gains, box by box, are more than chance (a paired test)."""
    mean, error = statistics.fmean(gains), statistics.stdev(gains) / math.sqrt(len(gains))
    return mean > max(_MIN_GAIN, _MIN_ERRORS * error)


def _ious(reply: RawReply, space: Space) -> list[float]:
    height, width = reply.image_size
    across, down = _sides(reply, space)
    scale = width / across, height / down
    found = [
        (label, _sorted_corners([v * scale[k % 2] for k, v in enumerate(values)]))
        for label, values in reply.found
    ]
    return matched(reply.truth, found)


def _sides(reply: RawReply, space: Space) -> tuple[float, float]:
    """Width and height of the picture, measured in ``space``."""
    sides: dict[Space, tuple[float, float]] = {
        "0-1000": (1000, 1000),
        "0-1024": (1024, 1024),
        "0-1": (1, 1),
        "input_pixels": (reply.input_size[1], reply.input_size[0]),
        "picture_pixels": (reply.image_size[1], reply.image_size[0]),
    }
    return sides[space]


def _sorted_corners(values: Sequence[float]) -> tuple[float, ...]:
    (x1, x2), (y1, y2) = sorted(values[0::2]), sorted(values[1::2])
    return x1, y1, x2, y2
