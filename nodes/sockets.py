"""Socket types, and results in the shapes that travel on them. Pure functions."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..qwenvl import coordinates, draw, images
from ..qwenvl.errors import BadOption
from ..qwenvl.types import Box, Result, Size

Model = io.Custom("QWEN_VL")
# By name rather than ``io.BoundingBox``, which older ComfyUI lacks and which would show a widget.
BoundingBoxes = io.Custom("BOUNDING_BOX")

ADVANCED: Mapping[str, Any] = {"optional": True, "extra_dict": {"advanced": True}}
"""Arguments of an input that the front end folds away and that a caller may leave out. Spelt so
that every ComfyUI with V3 takes it."""

Frame = Sequence[Mapping[str, Any]]
"""The BOUNDING_BOX dicts of one picture."""


def schema(**fields: Any) -> io.Schema:
    """An ``io.Schema`` in the pack's category, less what this ComfyUI does not know yet."""
    known = {field.name for field in dataclasses.fields(io.Schema)}
    fields = {"category": "Qwen-VL", **fields}
    return io.Schema(**{name: value for name, value in fields.items() if name in known})


def max_new_tokens(default: int, top: int) -> io.Int.Input:
    """The length limit of nodes whose sampling is fixed."""
    return io.Int.Input(
        "max_new_tokens",
        default=default,
        min=1,
        max=top,
        tooltip="The longest a reply may get; one that is cut off is reported.",
        **ADVANCED,
    )


STOP = "stop"


def unreadable() -> io.Combo.Input:
    """What to do with a reply that is not in the form asked for."""
    return io.Combo.Input(
        "when_unreadable",
        options=[STOP, "keep going"],
        default=STOP,
        tooltip="When a reply is not in the form asked for: stop with an error that names the "
        "picture, or keep going with the raw reply and no boxes for it.",
        **ADVANCED,
    )


def box_outputs() -> list[io.Output]:
    """The outputs of every node that gives boxes."""
    return [
        BoundingBoxes.Output(
            "bboxes", tooltip="Per picture a list of boxes in its pixels, with labels."
        ),
        io.Image.Output("annotated", tooltip="The pictures with what was found drawn on them."),
    ]


def bounding_box(box: Box) -> dict[str, Any]:
    """One BOUNDING_BOX dict: the least whole pixels that hold the box, inside the picture and at
    least 1 by 1. ``score`` is there only where one was computed."""
    x1, y1, x2, y2 = coordinates.whole_box(box)
    found = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "label": box.label}
    return found if box.score is None else {**found, "score": box.score}


def bounding_boxes(results: Sequence[Result]) -> list[list[dict[str, Any]]]:
    """BOUNDING_BOX of a batch: per picture, in order, a list of dicts (empty: nothing found)."""
    return [[bounding_box(box) for box in result.boxes] for result in results]


def found_json(result: Result) -> str:
    """What was found in one picture, as JSON: a list, in pixels of the picture.

    An unreadable reply that the user chose to go on past is an object instead, with the reply in
    it, so that it is not taken for "nothing found".
    """
    if result.error:
        return json.dumps({"unreadable": result.text}, ensure_ascii=False)
    return result.text


def points_json(result: Result, size: Size) -> str:
    """``[{"x", "y"}, ...]`` as segmentation nodes read it: the points, or the boxes' middles."""
    points = result.points or [coordinates.centre(box) for box in result.boxes]
    places = [coordinates.whole_point(point, size) for point in points]
    return json.dumps([{"x": x, "y": y} for x, y in places])


def frames(value: Any, count: int, size: Size) -> list[Frame]:
    """BOUNDING_BOX as any node sends it, as lists of whole boxes inside ``count`` pictures.

    One dict or one flat list holds for every picture, as in ComfyUI's own nodes. What lies
    outside the picture is cut off. Raises ``BadOption`` where lists and pictures do not pair.
    """
    if isinstance(value, Mapping):
        value = [[value]]
    elif not value or isinstance(value[0], Mapping):
        value = [value or []]
    if len(value) == 1:
        value = value * count
    if len(value) != count:
        raise BadOption(
            f"There are boxes for {len(value)} pictures, but {count} pictures. Connect the IMAGE "
            "that the boxes were found in."
        )
    return [[whole for box in frame if (whole := _whole(box, size))] for frame in value]


def _whole(box: Mapping[str, Any], size: Size) -> dict[str, Any] | None:
    height, width = size
    left, top = max(0, math.floor(box["x"])), max(0, math.floor(box["y"]))
    right = min(width, math.ceil(box["x"] + box["width"]))
    bottom = min(height, math.ceil(box["y"] + box["height"]))
    if right <= left or bottom <= top:
        return None
    return {**box, "x": left, "y": top, "width": right - left, "height": bottom - top}


def annotated(
    image: Any, results: Sequence[Result], check: Callable[[], None] | None = None
) -> Any:
    """IMAGE ``[B, H, W, 3]``: the pictures with what was found drawn on them. ``check`` is called
    before each item; what it raises reaches the caller."""
    pairs = zip(images.pictures(image), results, strict=True)
    return images.to_image(
        [draw.annotate(picture, result.boxes, result.points, check) for picture, result in pairs]
    )


def masks(image: Any, results: Sequence[Result]) -> Any:
    """MASK ``[B, H, W]``: 1 inside the boxes of each picture."""
    import torch

    height, width = image.shape[-3:-1]
    return torch.stack([draw.mask((height, width), result.boxes) for result in results])
