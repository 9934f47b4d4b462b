"""Cards: pictures of a panel with lines such as ``NAME: HELLO``, and what stands under each key."""

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
    """A line of a card: ``key: value``, printed as ``line``."""

    key: str
    value: str
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
    width, height = size or picture_size(rng)
    grounds, inks = rng.choice(((LIGHT, INK_ON_LIGHT), (DARK, INK_ON_DARK)))
    around, inside = rng.sample(grounds, 2)
    ink = rng.choice(inks)
    keys = rng.sample(CARD_KEYS, rng.randint(2, 4))
    missing = [key for key in CARD_KEYS if key not in keys]
    pairs = [(key, some_text(rng, _LONGEST_VALUE)) for key in keys]

    picture = Image.new("RGB", (width, height), around)
    pen = ImageDraw.Draw(picture)
    left, top = 0.04 * width, 0.04 * height
    pen.rectangle((left, top, width - left, height - top), fill=inside, outline=ink)
    texts = [f"{key}: {value}" for key, value in pairs]
    row = 0.88 * height / len(texts)
    step = min(0.84 * width / max(map(len, texts)), 0.5 * row, 25 * math.sqrt(width * height) / 224)
    fields = []
    for number, (text, pair) in enumerate(zip(texts, pairs, strict=True)):
        x, base = (
            0.08 * width + step / 2,
            0.06 * height + (number + 0.5) * row + ascent_of(step) / 2,
        )
        print_at(pen, ink, text, x, base, step)
        fields.append(Field(*pair, line_at(text, x, base, step)))
    asked = (rng.choice(missing),) if rng.random() < 0.35 else ()
    return Card(picture, tuple(fields), asked)
