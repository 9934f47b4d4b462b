"""Pinhole camera: 3-D boxes before the camera, projected into pixels. Standard library only.

The arithmetic of boxes is that of ``cookbooks/3d_grounding.ipynb`` in QwenLM/Qwen3-VL. A box is
``(x, y, z, x_size, y_size, z_size, a, b, c)``: centre and sizes in metres, x to the right, y down,
z away from the camera; then three angles in half turns (1 is 180 degrees), about the x, the y and
the z axis, applied in this order. (The prompt calls them roll, pitch, yaw; the notebook turns by
them as pitch, yaw, roll.)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .types import Size

Corner = tuple[float, float]

FIELD_OF_VIEW = 60.0
"""Degrees; what the notebook assumes of a picture whose camera is unknown."""

EDGES = tuple(
    (first, second)
    for first, second in itertools.combinations(range(8), 2)
    if (first ^ second) in (1, 2, 4)
)
"""The twelve edges of a box, by the indices of its corners."""

_SIGNS = tuple(itertools.product((1, -1), repeat=3))
_MAX_PIXELS = 1e6  # from the picture; a corner beside the camera is projected without end


@dataclass(frozen=True)
class Camera:
    """Focal lengths and principal point, in pixels."""

    fx: float
    fy: float
    cx: float
    cy: float


def camera_of(size: Size, field_of_view: float = FIELD_OF_VIEW) -> Camera:
    """The camera of a picture of ``size`` whose longer side spans ``field_of_view`` degrees.

    Its pixels are square, as those of real cameras: the notebook's own files of known cameras have
    ``fx`` = ``fy``, although for unknown ones it gives the same angle to both sides.
    """
    height, width = size
    focal = max(height, width) / (2 * math.tan(math.radians(field_of_view) / 2))
    return Camera(focal, focal, width / 2, height / 2)


def projected(box: Sequence[float], camera: Camera) -> tuple[Corner, ...]:
    """The eight corners (x, y) of a box in pixels, which may lie outside the picture, in the order
    of the signs +++, ++-, +-+, ... of their offsets; empty where one of them is not in front of the
    camera."""
    centre, sizes, angles = box[:3], box[3:6], box[6:9]
    corners = []
    for signs in _SIGNS:
        offset = [sign * size / 2 for sign, size in zip(signs, sizes, strict=True)]
        x, y, z = (a + b for a, b in zip(centre, _turned(offset, angles), strict=True))
        if z <= 0:
            return ()
        corners.append((camera.fx * (x / z) + camera.cx, camera.fy * (y / z) + camera.cy))
    if any(abs(value) > _MAX_PIXELS for corner in corners for value in corner):
        return ()
    return tuple(corners)


def _turned(offset: Sequence[float], angles: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = offset
    a, b, c = (math.pi * angle for angle in angles)
    y, z = y * math.cos(a) - z * math.sin(a), y * math.sin(a) + z * math.cos(a)
    x, z = x * math.cos(b) + z * math.sin(b), -x * math.sin(b) + z * math.cos(b)
    x, y = x * math.cos(c) - y * math.sin(c), x * math.sin(c) + y * math.cos(c)
    return x, y, z
