"""Overlays: the boxes and points that the page draws over a picture, and a thumbnail of it."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from ...qwenvl import coordinates
from ...qwenvl.errors import BadImage
from ...qwenvl.media import draw, images
from ...qwenvl.media.image_processor import resize
from ...qwenvl.types import Box, Point
from .optional_import import optional_import

_MAX_SIDE = 1024  # pixels of a thumbnail's longer side
_MAX_COUNT = 32  # thumbnails a batch; further pictures show their boxes on an empty ground
_FOLDER = "qwen_vl"  # below ComfyUI's temporary folder, which ComfyUI empties itself

log = logging.getLogger(__name__)


def overlay(
    images: Any, boxes: Sequence[Sequence[Box]], points: Sequence[Sequence[Point]] = ()
) -> list[dict[str, Any]]:
    """One entry a picture: ``size`` (height, width), ``boxes`` and ``points`` in its pixels with
    their colours, and ``picture``, where ComfyUI serves a thumbnail (None: nowhere).

    ``images``: an IMAGE ``[B, H, W, C]``, or a list of pictures ``[H, W, C]`` that may differ in
    size. Where they are None, the size is the extent of the boxes.
    """
    points = points or [()] * len(boxes)
    pictures = [None] * len(boxes) if images is None else images
    return [
        {
            "size": _extent(picture_boxes) if picture is None else list(picture.shape[:2]),
            "boxes": [_box(box) for box in picture_boxes],
            "points": [_point(point) for point in picture_points],
            "picture": None if picture is None or index >= _MAX_COUNT else _thumbnail(picture),
        }
        for index, (picture, picture_boxes, picture_points) in enumerate(
            zip(pictures, boxes, points, strict=True)
        )
    ]


def _extent(boxes: Sequence[Box]) -> list[int]:
    """(height, width) of the smallest picture that holds ``boxes``."""
    edges = [coordinates.integer_box(box) for box in boxes]
    return [max((y2 for *_, y2 in edges), default=1), max((x2 for _, _, x2, _ in edges), default=1)]


def _box(box: Box) -> dict[str, Any]:
    """In the whole pixels of BOUNDING_BOX, by which the page identifies a box."""
    x1, y1, x2, y2 = coordinates.integer_box(box)
    found = {"x1": x1, "y1": y1, "x2": x2, "y2": y2, "label": box.label}
    score = {} if box.score is None else {"score": box.score}
    return {**found, **score, "colour": _css(box.label)}


def _point(point: Point) -> dict[str, Any]:
    return {"x": point.x, "y": point.y, "label": point.label, "colour": _css(point.label)}


def _css(label: str) -> str:
    return "rgb({}, {}, {})".format(*draw.colour(label))


def _thumbnail(picture: Any) -> dict[str, str] | None:
    """A small JPEG of one picture ``[H, W, C]`` in ComfyUI's temporary folder.

    Named by a hash of its content: nodes and runs that show the same picture share one file, which
    the page need not fetch again.
    """
    folder = optional_import("folder_paths", "get_temp_directory")
    # ComfyUI creates the folder when it starts; where there is none, there is no page either.
    if folder is None or not (temporary := Path(folder())).is_dir():
        return None
    try:
        data = _jpeg(picture)
        name = f"{hashlib.sha256(data).hexdigest()[:32]}.jpg"
        file = temporary / _FOLDER / name
        if not file.exists():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(data)
    except (OSError, BadImage) as error:
        log.warning("The picture is not shown in its node: %s", error)
        return None
    return {"filename": name, "subfolder": _FOLDER, "type": "temp"}


def _jpeg(picture: Any) -> bytes:
    from PIL import Image

    # Of large pictures only every nth pixel is read: a thumbnail needs no more.
    step = max(1, max(picture.shape[:2]) // _MAX_SIDE)
    pixels = images.drawable_pictures(picture[::step, ::step])[0]
    height, width = pixels.shape[-2:]
    scale = min(1.0, _MAX_SIDE / max(height, width))
    small = resize(pixels, (max(1, round(height * scale)), max(1, round(width * scale))))
    file = BytesIO()
    Image.fromarray(small.movedim(0, -1).contiguous().cpu().numpy()).save(file, "JPEG", quality=85)
    return file.getvalue()
