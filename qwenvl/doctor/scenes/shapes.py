"""Shapes of a scene: their outlines, and a free place for each."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

from .scene import Box, Occupied, Shape, apart
from .vocabulary import COLOURS, RGB, SHAPES

if TYPE_CHECKING:
    from PIL import ImageDraw

Corner = tuple[float, float]

_CROSS = (
    (0.33, 0), (0.67, 0), (0.67, 0.33), (1, 0.33), (1, 0.67), (0.67, 0.67),
    (0.67, 1), (0.33, 1), (0.33, 0.67), (0, 0.67), (0, 0.33), (0.33, 0.33),
)  # fmt: skip
_OUTLINES: dict[str, tuple[Corner, ...]] = {
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "diamond": ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
    "cross": _CROSS,
}
_TRIES = 30


def outline(kind: str, box: Box) -> list[Corner]:
    """Corner points, in pixels, of a shape that fills ``box`` (none for a circle)."""
    unit = _star() if kind == "star" else _OUTLINES.get(kind, ())
    x1, y1, x2, y2 = box
    return [(x1 + a * (x2 - x1), y1 + b * (y2 - y1)) for a, b in unit]


def _star() -> list[Corner]:
    """Five points, stretched so that they fill their box."""
    spikes = [
        (
            math.sin(k * math.pi / 5) * (1 if k % 2 == 0 else 0.42),
            -math.cos(k * math.pi / 5) * (1 if k % 2 == 0 else 0.42),
        )
        for k in range(10)
    ]
    xs, ys = [p[0] for p in spikes], [p[1] for p in spikes]
    return [
        ((x - min(xs)) / (max(xs) - min(xs)), (y - min(ys)) / (max(ys) - min(ys)))
        for x, y in spikes
    ]


def draw_shape(
    rng: random.Random,
    pen: ImageDraw.ImageDraw,
    unit: float,
    size: tuple[int, int],
    occupied: Occupied,
    kind: str | None = None,
    colour: str | None = None,
) -> Shape | None:
    """Draws one shape at a free position, or gives up (None). ``kind`` and ``colour`` are by chance
    where they are not given."""
    width, height = size
    for _ in range(_TRIES):
        side = min(rng.uniform(38, 115) * unit, 0.8 * min(size))
        x1, y1 = rng.uniform(2, width - side - 2), rng.uniform(2, height - side - 2)
        box = (_whole(x1), _whole(y1), _whole(x1 + side), _whole(y1 + side))
        middle = (box[0] + box[2]) / 2
        # The order from left to right must be unambiguous: centres differ by 4 % of the width.
        plain = all(abs(middle - (b[0] + b[2]) / 2) > 0.04 * width for b in occupied.shapes)
        if plain and apart(box, occupied.shapes, 6 * unit) and apart(box, occupied.lines, 5 * unit):
            kind, colour = kind or rng.choice(SHAPES), colour or rng.choice(list(COLOURS))
            paint(pen, kind, box, a_tone(rng, colour))
            occupied.shapes.append(box)
            return Shape(kind, colour, box)
    return None


def a_tone(rng: random.Random, colour: str) -> RGB:
    """The colour of that name, a little off."""
    red, green, blue = (max(0, min(255, c + rng.randint(-12, 12))) for c in COLOURS[colour])
    return red, green, blue


def paint(pen: ImageDraw.ImageDraw, kind: str, box: Box, fill: RGB) -> None:
    """Paints a shape that fills ``box``, of whole pixels."""
    edge = (box[0], box[1], box[2] - 1, box[3] - 1)  # PIL paints the far edge too
    if kind == "circle":
        pen.ellipse(edge, fill=fill)
    else:
        pen.polygon(outline(kind, edge), fill=fill)


def _whole(value: float) -> float:
    return float(round(value))
