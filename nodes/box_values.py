"""Values of the BOUNDING_BOX socket: of results, and any node's in whole pixels; boxes to points,
masks and drawings. Pure functions."""

from __future__ import annotations

import json
import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..qwenvl import coordinates
from ..qwenvl.errors import BadOption
from ..qwenvl.media import draw, images
from ..qwenvl.types import Box, Result, Size
from ..qwenvl.unicode import well_formed

Frame = Sequence[Mapping[str, Any]]
"""The BOUNDING_BOX dicts of one picture."""

_SIDES = ("x", "y", "width", "height")
_MAX_COORDINATE = 1e15  # pixels; larger than any picture, and not exact as a float


def bounding_box(box: Box, text: str = "") -> dict[str, Any]:
    """One BOUNDING_BOX dict in whole pixels, rounded outwards, inside the picture and at least 1 by
    1. ``score`` is present only if it was computed. ``text``: the text in the box, for OCR."""
    x1, y1, x2, y2 = coordinates.integer_box(box)
    found = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "label": box.label}
    if box.score is not None:
        found["score"] = box.score
    return {**found, "metadata": _metadata(box.label, text)}


def _metadata(label: str, text: str = "") -> dict[str, Any]:
    """The ``metadata`` that core's own nodes read: type, text, description, palette."""
    kind, label = ("text", "") if text else ("obj", label)
    return {"type": kind, "text": text, "desc": label, "palette": []}


def bounding_boxes(results: Sequence[Result], read: bool = False) -> list[list[dict[str, Any]]]:
    """BOUNDING_BOX of a batch: for each picture, in order, a list of dicts (empty: nothing found).
    ``read``: whether the boxes are of text from OCR."""
    return [
        [
            bounding_box(box, text)
            for box, text in zip(
                result.boxes, _texts(result) if read else [""] * len(result.boxes), strict=True
            )
        ]
        for result in results
    ]


def elements(frame: Frame, size: Size) -> list[dict[str, Any]]:
    """The boxes of one picture of ``size`` as core's Create Bounding Boxes gives them to layout
    prompts: ``type``, ``bbox`` ``[y1, x1, y2, x2]`` in 0-1000, ``text`` of texts, ``desc``."""
    height, width = size
    found = []
    for box in frame:
        metadata = box["metadata"]
        sides = (
            (box["y"], height),
            (box["x"], width),
            (box["y"] + box["height"], height),
            (box["x"] + box["width"], width),
        )
        text = {"text": metadata["text"]} if metadata["type"] == "text" else {}
        bbox = [round(value * 1000 / side) for value, side in sides]
        found.append({"type": metadata["type"], "bbox": bbox, **text, "desc": metadata["desc"]})
    return found


def _texts(result: Result) -> list[str]:
    """The text in each box of an OCR result; "" for other boxes."""
    blocks = result.data if isinstance(result.data, list) else []
    if len(blocks) != len(result.boxes):
        return [""] * len(result.boxes)
    return [str(block.get("text") or "") for block in blocks]


def points_json(result: Result, size: Size) -> str:
    """``[{"x", "y"}, ...]`` as segmentation nodes read it: the points, or the boxes' centres."""
    points = result.points or [coordinates.centre(box) for box in result.boxes]
    pixels = [coordinates.integer_point(point, size) for point in points]
    return json.dumps([{"x": x, "y": y} for x, y in pixels])


def batch_of(value: Any) -> list[Any]:
    """Any node's BOUNDING_BOX value as a list for each picture. One box, or one flat list, belongs
    to a single picture. Raises ``BadOption`` for anything but lists of boxes."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is None:
        return [[]]
    if _is_box(value):
        return [[value]]
    if not isinstance(value, list | tuple):
        raise _no_boxes(value)
    if not value or any(_is_box(item) for item in value):
        return [list(value)]
    for frame in value:
        if not isinstance(frame, list | tuple | None):
            raise _no_boxes(frame)
    return [list(frame or ()) for frame in value]


def frames(value: Any, count: int, size: Size) -> list[Frame]:
    """Any node's BOUNDING_BOX value as lists of boxes in whole pixels inside ``count`` pictures,
    with both ``label`` and ``metadata`` if either holds a label.

    One dict or one flat list applies to every picture, as in ComfyUI's own nodes; four numbers are
    x, y, width and height. Boxes are clipped to the picture. Raises ``BadOption`` for invalid
    boxes, and if the numbers of lists and pictures differ.
    """
    batch = batch_of(value)
    if len(batch) == 1:
        batch = batch * count
    if len(batch) != count:
        raise BadOption(
            f"There are boxes for {len(batch)} pictures, but {count} pictures. Connect the IMAGE "
            "that the boxes were found in."
        )
    return [[clipped for box in frame if (clipped := _clipped(box, size))] for frame in batch]


def _is_box(value: Any) -> bool:
    four = isinstance(value, list | tuple) and len(value) == 4
    return isinstance(value, Mapping) or (
        four and all(isinstance(side, numbers.Real) for side in value)
    )


def _no_boxes(value: Any, why: str = "") -> BadOption:
    shown = repr(value)
    shown = shown if len(shown) <= 100 else f"{shown[:100]}…"
    why = why or "A box is a dict of x, y, width and height in pixels; a picture has a list of them"
    return BadOption(f"The bboxes hold {shown}. {why}.")


def _clipped(box: Any, size: Size) -> dict[str, Any] | None:
    """``box`` in whole pixels, clipped to the picture; None if it lies outside."""
    if not _is_box(box):
        raise _no_boxes(box)
    if not isinstance(box, Mapping):
        box = dict(zip(_SIDES, box, strict=True))
    x, y, box_width, box_height = (_coordinate(box, name) for name in _SIDES)
    height, width = size
    left, top = (
        max(0, math.floor(min(x, x + box_width))),
        max(0, math.floor(min(y, y + box_height))),
    )
    right, bottom = (
        min(width, math.ceil(max(x, x + box_width))),
        min(height, math.ceil(max(y, y + box_height))),
    )
    if right <= left or bottom <= top:
        return None
    area = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return {**_with_label(box), **area}


def _coordinate(box: Mapping[str, Any], name: str) -> float:
    try:
        number = float(box[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= _MAX_COORDINATE:
        raise _no_boxes(dict(box), f"Its {name} must be a number of pixels")
    return number


def _with_label(box: Mapping[str, Any]) -> dict[str, Any]:
    """The box with its label for both our nodes and core's, and without an invalid score."""
    found, label = dict(box), label_of(box)
    score = found.get("score", 0)
    if not isinstance(score, numbers.Real) or not math.isfinite(score):
        del found["score"]
    if label:
        metadata = box.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        own = {} if metadata.get("desc") or metadata.get("text") else {"desc": label}
        found.update(label=label, metadata={**_metadata(""), **metadata, **own})
    return found


def label_of(box: Mapping[str, Any]) -> str:
    """A box's ``label``, or else the one in core's ``metadata``; "" if it has none."""
    if label := box.get("label"):
        return well_formed(str(label))
    metadata = box.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    names = ("text", "desc", "name") if metadata.get("type") == "text" else ("desc", "name", "text")
    return next((well_formed(str(metadata[name])) for name in names if metadata.get(name)), "")


def annotated(
    image: Any, results: Sequence[Result], check: Callable[[], None] | None = None
) -> Any:
    """IMAGE ``[B, H, W, 3]``: the pictures with boxes and points drawn on them. ``check`` is called
    before each item; what it raises reaches the caller."""
    pairs = zip(images.drawable_pictures(image), results, strict=True)
    return images.to_image(
        [
            draw.annotate(picture, result.boxes, result.points, check, result.cuboids)
            for picture, result in pairs
        ]
    )


def masks(image: Any, results: Sequence[Result]) -> Any:
    """MASK ``[B, H, W]``: 1 inside the boxes of each picture."""
    import torch

    height, width = image.shape[-3:-1]
    return torch.stack([draw.mask((height, width), result.boxes) for result in results])
