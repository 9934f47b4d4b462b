"""Synthetic scenes: pictures with exact ground truth.

A scene is a picture of plain coloured shapes, of printed capitals and digits,
or of both. Everything follows from the seed: the same seed draws the same
picture on every machine with the same Pillow. Lengths inside this file are
often in `unit`s, one unit being 1/224 of the picture's mean side, because the
model always sees about 224 x 224 pixels, whatever the size of the original.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

SHAPES = ("circle", "square", "triangle", "star", "diamond", "cross")
COLOURS = {
    "red": (220, 30, 35),
    "orange": (250, 140, 20),
    "yellow": (245, 220, 30),
    "green": (30, 160, 60),
    "blue": (30, 80, 220),
    "purple": (125, 40, 165),
    "pink": (250, 140, 190),
}
LIGHT = ((255, 255, 255), (236, 236, 236), (250, 245, 228), (226, 236, 246))
DARK = ((0, 0, 0), (38, 38, 38), (20, 26, 52), (44, 26, 30))
INK_ON_LIGHT = ((0, 0, 0), (45, 45, 45), (20, 30, 110), (120, 15, 20))
INK_ON_DARK = ((255, 255, 255), (215, 215, 215), (250, 240, 150), (170, 225, 250))
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
PRINTED = (
    "HELLO WORLD APPLE HOUSE RIVER STONE LIGHT NIGHT WATER MUSIC TABLE CHAIR PAPER GREEN QUEEN "
    "ZEBRA TIGER HORSE BREAD CLOCK CLOUD DREAM EARTH FIELD FRUIT GLASS GRASS HEART JUICE KNIFE "
    "LEMON MONEY OCEAN PIANO PLANT RADIO SHEEP SMILE SNAKE SUGAR TRAIN VOICE WHALE BIRD BOOK "
    "CAKE DOOR EXIT FISH GOLD HAND ICE JAZZ KEY LAMP MOON NEST OPEN PARK QUIZ RAIN SALE SHOP "
    "STAR STOP TAXI TREE VIEW WIND YES NO ZOO BANK CAFE HOTEL MENU FIRE COLD FREE LOVE SUMMER "
    "WINTER SPRING AUTUMN SILVER ORANGE YELLOW PURPLE GARDEN WINDOW MARKET BRIDGE STREET CASTLE "
    "DOCTOR "
)
WORDS = PRINTED.split()


@dataclass(frozen=True)
class Shape:
    """One coloured shape. `box` is (x1, y1, x2, y2) in pixels of the picture."""

    kind: str
    colour: str
    box: tuple[float, float, float, float]

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Line:
    """One printed line. `box` bounds the ink, `centres` has (x, y) per character; pixels."""

    text: str
    box: tuple[float, float, float, float]
    centres: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scene:
    """The picture (PIL, RGB) and its truth.

    Shapes go left to right by centre, lines top to bottom; `ground` is light or dark.
    """

    picture: Image.Image
    shapes: tuple[Shape, ...]
    lines: tuple[Line, ...]
    ground: str


@lru_cache(maxsize=512)
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size)


@lru_cache(maxsize=8192)
def _ink(size: int, char: str) -> tuple[int, int, int, int]:
    """Where the ink of a character lies, from the middle of its base line, in pixels."""
    # getbbox alone counts the advance to the next character as ink.
    left, top, _, _ = _font(size).getbbox(char, anchor="ms")
    x1, y1, x2, y2 = _font(size).getmask(char, mode="L").getbbox()
    return left + x1, top + y1, left + x2, top + y2


def outline(kind: str, box: tuple[float, float, float, float]) -> list[tuple[float, float]]:
    """Corner points, in pixels, of a shape that fills `box` (none for a circle)."""
    unit = {
        "square": [(0, 0), (1, 0), (1, 1), (0, 1)],
        "triangle": [(0.5, 0), (1, 1), (0, 1)],
        "diamond": [(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)],
        "cross": [
            (a, b)
            for a, b in (
                (0.33, 0),
                (0.67, 0),
                (0.67, 0.33),
                (1, 0.33),
                (1, 0.67),
                (0.67, 0.67),
                (0.67, 1),
                (0.33, 1),
                (0.33, 0.67),
                (0, 0.67),
                (0, 0.33),
                (0.33, 0.33),
            )
        ],
    }.get(kind)
    if kind == "star":  # five points, then stretched so that it fills its box
        spikes = [
            (
                math.sin(k * math.pi / 5) * (1 if k % 2 == 0 else 0.42),
                -math.cos(k * math.pi / 5) * (1 if k % 2 == 0 else 0.42),
            )
            for k in range(10)
        ]
        xs, ys = [p[0] for p in spikes], [p[1] for p in spikes]
        unit = [
            ((x - min(xs)) / (max(xs) - min(xs)), (y - min(ys)) / (max(ys) - min(ys)))
            for x, y in spikes
        ]
    x1, y1, x2, y2 = box
    return [(x1 + a * (x2 - x1), y1 + b * (y2 - y1)) for a, b in unit or []]


def _apart(box, others, gap) -> bool:
    return all(
        box[2] + gap < o[0] or o[2] + gap < box[0] or box[3] + gap < o[1] or o[3] + gap < box[1]
        for o in others
    )


def _text(rng: random.Random, most: int) -> str:
    """A word, a string of random letters, or a number, of at most `most` characters."""
    roll = rng.random()
    if roll < 0.3:
        fitting = [w for w in WORDS if len(w) <= most]
        if fitting:
            return rng.choice(fitting)
    length = rng.randint(2, max(2, min(most, 8)))
    return "".join(rng.choice(LETTERS if roll < 0.72 else DIGITS) for _ in range(length))


def _line(rng, draw, ink, unit, size, taken) -> Line | None:
    """Prints one line at a free position, or gives up (None). Characters are equally spaced."""
    width, height = size
    step = rng.uniform(25, 33) * unit
    text = _text(rng, int(width * 0.92 / step))
    font = _font(max(8, round(step * 1.22)))
    ascent = -font.getbbox("H", anchor="ms")[1]
    for _ in range(30):
        x = rng.uniform(0.03 * width, 0.97 * width - step * len(text)) + step / 2
        base = rng.uniform(0.03 * height + ascent, 0.97 * height - 0.15 * ascent)
        inks = [_ink(font.size, c) for c in text]
        at = [(round(x + k * step), round(base)) for k in range(len(text))]
        box = (
            min(a[0] + i[0] for a, i in zip(at, inks, strict=True)),
            min(a[1] + i[1] for a, i in zip(at, inks, strict=True)),
            max(a[0] + i[2] for a, i in zip(at, inks, strict=True)),
            max(a[1] + i[3] for a, i in zip(at, inks, strict=True)),
        )
        # Lines never share a row.
        row = (0, box[1], width, box[3])
        free = _apart(row, taken["lines"], 16 * unit) and _apart(box, taken["shapes"], 5 * unit)
        if free and box[0] >= 0 and box[2] <= width and box[1] >= 0 and box[3] <= height:
            for place, char in zip(at, text, strict=True):
                draw.text(place, char, font=font, fill=ink, anchor="ms")
            taken["lines"].append(row)
            return Line(text, tuple(map(float, box)), tuple((a[0], a[1] - ascent / 2) for a in at))
    return None


def _shape(rng, draw, unit, size, taken) -> Shape | None:
    """Draws one shape at a free position, or gives up (None)."""
    width, height = size
    for _ in range(30):
        side = min(rng.uniform(38, 115) * unit, 0.8 * min(size))
        w, h = side, side
        x1, y1 = rng.uniform(2, width - w - 2), rng.uniform(2, height - h - 2)
        box = tuple(float(round(v)) for v in (x1, y1, x1 + w, y1 + h))
        middle = (box[0] + box[2]) / 2
        # The order from left to right must be unambiguous: centres differ by 4 % of the width.
        plain = all(abs(middle - (b[0] + b[2]) / 2) > 0.04 * width for b in taken["shapes"])
        if (
            plain
            and _apart(box, taken["shapes"], 6 * unit)
            and _apart(box, taken["lines_ink"], 5 * unit)
        ):
            kind, colour = rng.choice(SHAPES), rng.choice(list(COLOURS))
            fill = tuple(max(0, min(255, c + rng.randint(-12, 12))) for c in COLOURS[colour])
            edge = (box[0], box[1], box[2] - 1, box[3] - 1)  # PIL paints the far edge too
            if kind == "circle":
                draw.ellipse(edge, fill=fill)
            else:
                draw.polygon(outline(kind, edge), fill=fill)
            taken["shapes"].append(box)
            return Shape(kind, colour, box)
    return None


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
    """Draw the scene of this seed.

    `kind` is shapes, text or mixed, by default by chance; `size` is (width, height) in pixels.
    """
    rng = random.Random(f"nano scene {seed}")
    size = size or picture_size(rng)
    kind = kind or rng.choice(("shapes", "text", "mixed"))
    unit = math.sqrt(size[0] * size[1]) / 224
    ground = rng.choice(("light", "dark"))
    picture = Image.new("RGB", size, rng.choice(LIGHT if ground == "light" else DARK))
    pen = ImageDraw.Draw(picture)
    ink = rng.choice(INK_ON_LIGHT if ground == "light" else INK_ON_DARK)
    taken = {"shapes": [], "lines": [], "lines_ink": []}
    lines: list[Line] = []
    for _ in range({"shapes": 0, "mixed": 1}.get(kind, rng.randint(1, 3))):
        line = _line(rng, pen, ink, unit, size, taken)
        if line:
            lines.append(line)
            taken["lines_ink"].append(line.box)
    wanted = {"shapes": rng.randint(1, 4), "mixed": rng.randint(1, 3), "text": 0}[kind]
    shapes = [s for s in (_shape(rng, pen, unit, size, taken) for _ in range(wanted)) if s]
    return Scene(
        picture,
        tuple(sorted(shapes, key=lambda s: s.centre[0])),
        tuple(sorted(lines, key=lambda line: line.box[1])),
        ground,
    )
