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


def some_text(rng: random.Random, most: int) -> str:
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
    text = some_text(rng, int(width * 0.92 / step))
    ascent = ascent_of(step)
    for _ in range(_TRIES):
        x = rng.uniform(0.03 * width, 0.97 * width - step * len(text)) + step / 2
        base = rng.uniform(0.03 * height + ascent, 0.97 * height - 0.15 * ascent)
        line = line_at(text, x, base, step)
        box = line.box
        row = (0.0, box[1], float(width), box[3])
        free = apart(row, occupied.rows, 16 * unit) and apart(box, occupied.shapes, 5 * unit)
        if free and box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height:
            print_at(pen, ink, text, x, base, step)
            occupied.rows.append(row)
            occupied.lines.append(box)
            return line
    return None


def ascent_of(step: float) -> float:
    """The height of capitals, in pixels, where ``step`` pixels lie between two of them."""
    return -_font(_font_size(step)).getbbox("H", anchor="ms")[1]


def line_at(text: str, x: float, base: float, step: float) -> Line:
    """Where ``text`` is printed: the middle of its first character at ``x``, its base line at
    ``base``, ``step`` pixels from one character to the next. Blanks have no ink."""
    at = _places(text, x, base, step)
    inked = [(a, _ink(_font_size(step), c)) for a, c in zip(at, text, strict=True) if c != " "]
    box = (
        float(min(a[0] + i[0] for a, i in inked)),
        float(min(a[1] + i[1] for a, i in inked)),
        float(max(a[0] + i[2] for a, i in inked)),
        float(max(a[1] + i[3] for a, i in inked)),
    )
    return Line(text, box, tuple((a[0], a[1] - ascent_of(step) / 2) for a in at))


def print_at(
    pen: ImageDraw.ImageDraw, ink: RGB, text: str, x: float, base: float, step: float
) -> None:
    """Prints ``text`` where ``line_at`` says."""
    font = _font(_font_size(step))
    for place, char in zip(_places(text, x, base, step), text, strict=True):
        pen.text(place, char, font=font, fill=ink, anchor="ms")


def _places(text: str, x: float, base: float, step: float) -> list[tuple[int, int]]:
    return [(round(x + k * step), round(base)) for k in range(len(text))]


def _font_size(step: float) -> int:
    return max(8, round(step * 1.22))
