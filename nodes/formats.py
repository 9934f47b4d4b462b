"""Box formats: BOUNDING_BOX dicts in the formats of other packs. Pure functions and a table."""

from __future__ import annotations

import dataclasses
import json
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..qwenvl.types import Size
from .box_values import Frame

# The attributes that Impact Pack's nodes read from a segment.
Seg = namedtuple(
    "Seg",
    "cropped_image cropped_mask confidence crop_region bbox label control_net_wrapper",
    defaults=(None,),
)


def xyxy(box: Mapping[str, Any]) -> list[int]:
    """Left, top, right, bottom in pixels."""
    return [box["x"], box["y"], box["x"] + box["width"], box["y"] + box["height"]]


def xywh(box: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Left, top, width, height in pixels."""
    return box["x"], box["y"], box["width"], box["height"]


def corner_fractions(box: Mapping[str, Any], size: Size) -> list[float]:
    """The four corners, clockwise from the top left, as x, y fractions of the picture."""
    left, top, right, bottom = xyxy(box)
    height, width = size
    outline = (left, top, right, top, right, bottom, left, bottom)
    return [value / (height if i % 2 else width) for i, value in enumerate(outline)]


def thousandths(box: Mapping[str, Any], size: Size) -> list[int]:
    """Top, left, bottom, right in 0-1000 of the picture's height and width."""
    left, top, right, bottom = xyxy(box)
    height, width = size
    return [
        round(value * 1000 / side)
        for value, side in ((top, height), (left, width), (bottom, height), (right, width))
    ]


def seg(box: Mapping[str, Any], size: Size, crop_factor: float) -> Seg:
    """One Impact Pack segment: the box filled, in a crop ``crop_factor`` times its size."""
    import numpy as np

    height, width = size
    left, top, right, bottom = xyxy(box)
    extra_x = round(box["width"] * (crop_factor - 1) / 2)
    extra_y = round(box["height"] * (crop_factor - 1) / 2)
    crop = (
        max(0, left - extra_x),
        max(0, top - extra_y),
        min(width, right + extra_x),
        min(height, bottom + extra_y),
    )
    filled = np.zeros((crop[3] - crop[1], crop[2] - crop[0]), dtype=np.float32)
    filled[top - crop[1] : bottom - crop[1], left - crop[0] : right - crop[0]] = 1
    # Impact Pack filters by this number and gives 1 to every segment no detector has scored.
    confidence = box.get("score", 1.0)
    return Seg(None, filled, confidence, crop, (left, top, right, bottom), box.get("label", ""))


def nested_xyxy(batch: Sequence[Frame], size: Size, crop_factor: float) -> list[list[list[int]]]:
    return [[xyxy(box) for box in frame] for frame in batch]


def flat_xyxy(batch: Sequence[Frame], size: Size, crop_factor: float) -> list[list[int]]:
    return [xyxy(box) for box in batch[0]]


def xywh_tuples(
    batch: Sequence[Frame], size: Size, crop_factor: float
) -> list[tuple[int, int, int, int]]:
    return [xywh(box) for frame in batch for box in frame]


def florence_phrases(
    batch: Sequence[Frame], size: Size, crop_factor: float
) -> list[dict[str, Any]]:
    return [
        {
            "bboxes": [xyxy(box) for box in frame],
            "labels": [box.get("label", "") for box in frame],
        }
        for frame in batch
    ]


def florence_lines(batch: Sequence[Frame], size: Size, crop_factor: float) -> list[dict[str, Any]]:
    return [
        {"label": box.get("label", ""), "box": corner_fractions(box, size)}
        for frame in batch
        for box in frame
    ]


def impact(batch: Sequence[Frame], size: Size, crop_factor: float) -> list[tuple[Size, list[Seg]]]:
    return [(size, [seg(box, size, crop_factor) for box in frame]) for frame in batch]


def ideogram(batch: Sequence[Frame], size: Size, crop_factor: float) -> list[str]:
    return [json.dumps([thousandths(box, size) for box in frame]) for frame in batch]


@dataclasses.dataclass(frozen=True)
class Format:
    """One output of the converter. ``convert(boxes per picture, size, crop factor)`` returns its
    value, or a list with one for each picture if ``per_picture``."""

    name: str
    socket: str
    tooltip: str
    convert: Callable[[Sequence[Frame], Size, float], list[Any]]
    per_picture: bool = False


FORMATS = (
    Format(
        "sam2", "BBOX", "SAM2 on pictures: per picture a list of [x1, y1, x2, y2].", nested_xyxy
    ),
    Format("sam2_video", "BBOX", "SAM2 on video: the first picture's [x1, y1, x2, y2].", flat_xyxy),
    Format(
        "xywh", "BBOX", "KJNodes, Easy-Use: (x, y, width, height) of all pictures.", xywh_tuples
    ),
    Format("florence2", "JSON", "Florence-2 detection: per picture [x1, y1, x2, y2].", nested_xyxy),
    Format(
        "florence2_phrases",
        "JSON",
        "Florence-2 phrase grounding: per picture bboxes and labels.",
        florence_phrases,
    ),
    Format(
        "florence2_ocr",
        "JSON",
        "Florence-2 OCR: label and four corners as fractions of the picture.",
        florence_lines,
    ),
    Format("segs", "SEGS", "Impact Pack segments, one SEGS a picture.", impact, True),
    Format(
        "ideogram", "STRING", "[[y1, x1, y2, x2], ...] in 0-1000, one a picture.", ideogram, True
    ),
)
