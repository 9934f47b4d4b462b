"""Colour palettes: the colours that a picture, or a part of it, is mostly made of, measured from
its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..coordinates import integer_box
from ..types import Box

if TYPE_CHECKING:
    from torch import Tensor

_SIDE = 256
"""Pixels along the longer side of what is measured; of larger pictures every n-th pixel."""

_CLUSTERS = 24
_LEAST_SHARE = 0.01
_ALIKE = 32
"""Distance in 8-bit RGB below which two colours count as one."""

_RIM = 0.25
"""Of a box's sides: how far around it its surroundings reach."""


def palette(picture: Tensor, count: int, box: Box | None = None) -> list[str]:
    """At most ``count`` colours ``#RRGGBB`` of a picture (uint8 ``[3, H, W]``), the most frequent
    first; those under 1 % are left out.

    With a ``box``, those within it; colours that are more frequent around it than in it belong to
    the background and are left out, unless there are no others. Colours are found by median cut
    (Heckbert 1982), refined by k-means, as Pillow has them; each is the median of its pixels.
    """
    import numpy as np

    height, width = picture.shape[-2:]
    inner = (0, 0, width, height) if box is None else integer_box(box)
    left, top, right, bottom = _grown(inner, width, height)
    step = max(1, -(-max(right - left, bottom - top) // _SIDE))
    pixels = picture[:, top:bottom:step, left:right:step].movedim(0, -1).cpu().numpy()
    is_inner = np.zeros(pixels.shape[:2], dtype=bool)
    is_inner[_steps(inner[1], inner[3], top, step), _steps(inner[0], inner[2], left, step)] = True
    colours = pixels[is_inner]
    labels = _clusters(pixels)
    shares = _shares(labels[is_inner])
    around = _shares(labels[~is_inner])
    medians = {label: np.median(colours[labels[is_inner] == label], axis=0) for label in shares}
    own = [label for label in shares if shares[label] >= around.get(label, 0)] or list(shares)
    kept: list[Any] = []
    for label in sorted(own, key=lambda label: -shares[label]):
        far = (np.linalg.norm(medians[label] - other) >= _ALIKE for other in kept)
        if (shares[label] >= _LEAST_SHARE or not kept) and all(far):
            kept.append(medians[label])
    return ["#" + "".join(f"{round(value):02X}" for value in colour) for colour in kept[:count]]


def _grown(inner: tuple[int, int, int, int], width: int, height: int) -> tuple[int, int, int, int]:
    """With the surroundings, inside the picture."""
    x1, y1, x2, y2 = inner
    wide, high = round((x2 - x1) * _RIM) + 1, round((y2 - y1) * _RIM) + 1
    return max(0, x1 - wide), max(0, y1 - high), min(width, x2 + wide), min(height, y2 + high)


def _steps(start: int, stop: int, first: int, step: int) -> slice:
    """Which of the pixels ``first``, ``first + step``, ... lie from ``start`` up to ``stop``; where
    none does, the last one before."""
    low, high = (-(-(edge - first) // step) for edge in (start, stop))
    return slice(min(low, high - 1), high)


def _clusters(pixels: Any) -> Any:
    """A label for each pixel, by its colour."""
    import numpy as np
    from PIL import Image

    found = Image.fromarray(np.ascontiguousarray(pixels)).quantize(
        _CLUSTERS, method=Image.Quantize.MEDIANCUT, kmeans=2, dither=Image.Dither.NONE
    )
    return np.asarray(found)


def _shares(labels: Any) -> dict[int, float]:
    import numpy as np

    values, counts = np.unique(labels, return_counts=True)
    return {int(v): float(c) / len(labels) for v, c in zip(values, counts, strict=True)}
