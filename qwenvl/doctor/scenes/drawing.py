"""Scene drawer: pictures of plain coloured shapes, of printed capitals and digits, or of both.

Everything follows from the seed: the same seed draws the same picture on every machine with the
same Pillow. Lengths are often in units, one unit being 1/224 of the picture's mean side, because
the bundled model always sees about 224 x 224 pixels, whatever the size of the original.
"""

from __future__ import annotations

import math
import random

from .lines import print_line
from .scene import Line, Occupied, Scene
from .shapes import draw_shape
from .vocabulary import DARK, INK_ON_DARK, INK_ON_LIGHT, LIGHT

KINDS = ("shapes", "text", "mixed")


def picture_size(rng: random.Random) -> tuple[int, int]:
    """Width and height in pixels: sides 200..900, aspect ratio 1:2 to 2:1."""
    while True:
        side, aspect = (
            math.exp(rng.uniform(math.log(220), math.log(820))),
            math.exp(rng.uniform(-0.69, 0.69)),
        )
        width, height = round(side * aspect**0.5), round(side / aspect**0.5)
        if min(width, height) >= 200 and max(width, height) <= 900:
            return width, height


def draw(seed: int | str, kind: str | None = None, size: tuple[int, int] | None = None) -> Scene:
    """The scene of this seed.

    ``kind`` is one of ``KINDS``, by default by chance; ``size`` is (width, height) in pixels.
    Raises ``Unavailable`` where Pillow is too old or has no FreeType.
    """
    from PIL import Image, ImageDraw

    rng = random.Random(f"nano scene {seed}")
    size = size or picture_size(rng)
    kind = kind or rng.choice(KINDS)
    unit = math.sqrt(size[0] * size[1]) / 224
    ground = rng.choice(("light", "dark"))
    picture = Image.new("RGB", size, rng.choice(LIGHT if ground == "light" else DARK))
    pen = ImageDraw.Draw(picture)
    ink = rng.choice(INK_ON_LIGHT if ground == "light" else INK_ON_DARK)
    occupied = Occupied()
    lines: list[Line] = []
    for _ in range({"shapes": 0, "mixed": 1}.get(kind, rng.randint(1, 3))):
        line = print_line(rng, pen, ink, unit, size, occupied)
        if line:
            lines.append(line)
    wanted = {"shapes": rng.randint(1, 4), "mixed": rng.randint(1, 3), "text": 0}[kind]
    shapes = [s for s in (draw_shape(rng, pen, unit, size, occupied) for _ in range(wanted)) if s]
    return Scene(
        picture,
        tuple(sorted(shapes, key=lambda s: s.centre[0])),
        tuple(sorted(lines, key=lambda line: line.box[1])),
        ground,
    )
