"""Cards: landscape panels with lines such as ``NAME: HELLO``, the key small and the value large,
and what stands behind each key."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .drawing import picture_size
from .lines import ascent_of, line_at, print_at, some_text
from .scene import Line
from .vocabulary import CARD_KEYS, DARK, INK_ON_DARK, INK_ON_LIGHT, LIGHT

if TYPE_CHECKING:
    from PIL import Image

_LONGEST_VALUE = 6


@dataclass(frozen=True)
class Field:
    """A line of a card, ``key: value``. ``label`` is the key as it is printed, with its colon, and
    ``line`` the value."""

    key: str
    value: str
    label: Line
    line: Line


@dataclass(frozen=True)
class Card:
    """The picture (PIL, RGB) and its truth. ``missing``: keys that are not on it, but can be asked
    for too."""

    picture: Image.Image
    fields: tuple[Field, ...]
    missing: tuple[str, ...]

    @property
    def values(self) -> dict[str, str | None]:
        """What a right answer holds, by key: None for those that are missing."""
        return {field.key: field.value for field in self.fields} | dict.fromkeys(self.missing)


def draw_card(seed: int | str, size: tuple[int, int] | None = None) -> Card:
    """The card of this seed: two to four fields, and for every third card or so a missing key.
    ``size``: (width, height) in pixels. Raises ``Unavailable`` as ``draw`` does."""
    from PIL import Image, ImageDraw

    rng = random.Random(f"nano card {seed}")
    width, height = size or _landscape(rng)
    grounds, inks = rng.choice(((LIGHT, INK_ON_LIGHT), (DARK, INK_ON_DARK)))
    around, inside = rng.sample(grounds, 2)
    ink = rng.choice(inks)
    keys = rng.sample(CARD_KEYS, rng.randint(2, 4))
    missing = [key for key in CARD_KEYS if key not in keys]
    values = [some_text(rng, _LONGEST_VALUE) for _ in keys]

    picture = Image.new("RGB", (width, height), around)
    pen = ImageDraw.Draw(picture)
    left, top = 0.03 * width, 0.04 * height
    pen.rectangle((left, top, width - left, height - top), fill=inside, outline=ink)
    row = 0.88 * height / len(keys)
    unit = math.sqrt(width * height) / 224
    letters = max(map(len, keys)) + 1
    small = min(0.3 * width / letters, 0.4 * row, 14 * unit)
    column = 0.06 * width + small * (letters + 0.5)
    large = min((0.93 * width - column) / max(map(len, values)), 0.6 * row, 30 * unit)
    fields = []
    for number, (key, value) in enumerate(zip(keys, values, strict=True)):
        base = 0.06 * height + (number + 0.5) * row + ascent_of(large) / 2
        places = ((f"{key}:", 0.06 * width + small / 2, small), (value, column + large / 2, large))
        for text, x, step in places:
            print_at(pen, ink, text, x, base, step)
        label, line = (line_at(text, x, base, step) for text, x, step in places)
        fields.append(Field(key, value, label, line))
    asked = (rng.choice(missing),) if rng.random() < 0.35 else ()
    return Card(picture, tuple(fields), asked)


def _landscape(rng: random.Random) -> tuple[int, int]:
    while True:
        width, height = picture_size(rng)
        if width >= 1.1 * height:
            return width, height
