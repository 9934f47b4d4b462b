"""Printed lines of a scene: words, letters and digits at equal steps, in the font that Pillow
brings, so that they look the same on every machine."""

from __future__ import annotations

import random
from functools import lru_cache
from typing import TYPE_CHECKING

from ...errors import Unavailable
from .scene import Line, Occupied, apart
from .vocabulary import DIGITS, LETTERS, RGB, WORDS

if TYPE_CHECKING:
    from PIL import ImageDraw, ImageFont

_TRIES = 30


@lru_cache(maxsize=512)
def _font(size: int) -> ImageFont.FreeTypeFont:
    from PIL import ImageFont

    try:
        font = ImageFont.load_default(size)
    except (TypeError, ImportError) as error:  # Pillow before 10.1, or built without FreeType
        raise Unavailable(
            "Drawing scenes needs Pillow 10.1 or newer with FreeType. Update it with: "
            "pip install -U pillow"
        ) from error
    assert isinstance(font, ImageFont.FreeTypeFont)  # any other only without a size
    return font


@lru_cache(maxsize=8192)
def _ink(size: int, char: str) -> tuple[float, float, float, float]:
    """Where the ink of a character lies, from the middle of its base line, in pixels."""
    # getbbox alone counts the advance to the next character as ink.
    left, top, _, _ = _font(size).getbbox(char, anchor="ms")
    x1, y1, x2, y2 = _font(size).getmask(char, mode="L").getbbox()
    return left + x1, top + y1, left + x2, top + y2


def _text(rng: random.Random, most: int) -> str:
    """A word, a string of random letters, or a number, of at most ``most`` characters."""
    roll = rng.random()
    if roll < 0.3:
        fitting = [w for w in WORDS if len(w) <= most]
        if fitting:
            return rng.choice(fitting)
    length = rng.randint(2, max(2, min(most, 8)))
    return "".join(rng.choice(LETTERS if roll < 0.72 else DIGITS) for _ in range(length))


def print_line(
    rng: random.Random,
    pen: ImageDraw.ImageDraw,
    ink: RGB,
    unit: float,
    size: tuple[int, int],
    occupied: Occupied,
) -> Line | None:
    """Prints one line at a free position, or gives up (None). Characters are equally spaced."""
    width, height = size
    step = rng.uniform(25, 33) * unit
    text = _text(rng, int(width * 0.92 / step))
    font_size = max(8, round(step * 1.22))
    font = _font(font_size)
    ascent = -font.getbbox("H", anchor="ms")[1]
    for _ in range(_TRIES):
        x = rng.uniform(0.03 * width, 0.97 * width - step * len(text)) + step / 2
        base = rng.uniform(0.03 * height + ascent, 0.97 * height - 0.15 * ascent)
        inks = [_ink(font_size, c) for c in text]
        at = [(round(x + k * step), round(base)) for k in range(len(text))]
        box = (
            float(min(a[0] + i[0] for a, i in zip(at, inks, strict=True))),
            float(min(a[1] + i[1] for a, i in zip(at, inks, strict=True))),
            float(max(a[0] + i[2] for a, i in zip(at, inks, strict=True))),
            float(max(a[1] + i[3] for a, i in zip(at, inks, strict=True))),
        )
        row = (0.0, box[1], float(width), box[3])
        free = apart(row, occupied.rows, 16 * unit) and apart(box, occupied.shapes, 5 * unit)
        if free and box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height:
            for place, char in zip(at, text, strict=True):
                pen.text(place, char, font=font, fill=ink, anchor="ms")
            occupied.rows.append(row)
            occupied.lines.append(box)
            return Line(text, box, tuple((a[0], a[1] - ascent / 2) for a in at))
    return None
