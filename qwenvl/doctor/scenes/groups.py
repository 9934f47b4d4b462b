"""Groups of shapes that are alike: a shape beside its look-alikes, and shapes to be counted."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from .drawing import picture_size
from .scene import Occupied, Scene, Shape
from .shapes import draw_shape
from .vocabulary import COLOURS, DARK, LIGHT, SHAPES

_Name = tuple[str, str]
"""Kind and colour."""


@dataclass(frozen=True)
class Group:
    """A scene, and the ``name`` of what is to be found or counted in it: a colour and a kind, or a
    kind alone. It may be of none."""

    scene: Scene
    name: str

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Those of that name."""
        return tuple(s for s in self.scene.shapes if self.name in (s.name, s.kind))


def draw_look_alikes(seed: int | str, size: tuple[int, int] | None = None) -> Group:
    """Shapes of the same kind in other colours, shapes in the same colour of other kinds and, for
    every other seed, the one between them that has both. ``size``: (width, height) in pixels."""
    rng = random.Random(f"nano look-alikes {seed}")
    kind, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    wanted = _look_alikes(rng, kind, colour, rng.randint(2, 3))
    if rng.random() < 0.5:
        wanted.append((kind, colour))
    rng.shuffle(wanted)
    return Group(_drawn(rng, wanted, size), f"{colour} {kind}")


def draw_count(seed: int | str, size: tuple[int, int] | None = None) -> Group:
    """None to five shapes of one name, beside look-alikes. ``size``: (width, height) in pixels."""
    rng = random.Random(f"nano count {seed}")
    kind, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
    wanted = [(kind, colour)] * rng.randint(0, 5) + _look_alikes(rng, kind, colour, 2)
    rng.shuffle(wanted)
    return Group(_drawn(rng, wanted, size), rng.choice((f"{colour} {kind}", kind)))


def _look_alikes(rng: random.Random, kind: str, colour: str, number: int) -> list[_Name]:
    """Half of them of the same kind in another colour, half of another kind in the same colour."""
    kinds, colours = [k for k in SHAPES if k != kind], [c for c in COLOURS if c != colour]
    first = rng.randint(0, 1)
    return [
        (kind, rng.choice(colours)) if (first + index) % 2 else (rng.choice(kinds), colour)
        for index in range(number)
    ]


def _drawn(rng: random.Random, wanted: Sequence[_Name], size: tuple[int, int] | None) -> Scene:
    """A scene of the ``wanted`` shapes; those that find no room are left out."""
    from PIL import Image, ImageDraw

    size = size or picture_size(rng)
    unit = math.sqrt(size[0] * size[1]) / 224
    ground = rng.choice(("light", "dark"))
    picture = Image.new("RGB", size, rng.choice(LIGHT if ground == "light" else DARK))
    pen, occupied = ImageDraw.Draw(picture), Occupied()
    drawn = [draw_shape(rng, pen, unit, size, occupied, kind, colour) for kind, colour in wanted]
    shapes = sorted((shape for shape in drawn if shape), key=lambda shape: shape.centre[0])
    return Scene(picture, tuple(shapes), (), ground)
