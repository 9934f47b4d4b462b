"""Single lines of text, set in the fonts that come with the pack.

The first font that has a letter draws it, so that a label of several scripts is whole; the
system's fonts stand in for scripts that ours lack.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

LONGEST = 256
"""Characters. No label of more fits on a picture: its letters are a 42nd of the picture's longer
side in size, and the narrowest advance by a fifth of that."""

FOLDER = Path(__file__).with_name("fonts")
_OURS = tuple(
    str(FOLDER / f"{name}.ttf")
    for name in (
        "WenQuanYiMicroHei",
        "NotoSansArabic",
        "NotoSansDevanagari",
        "NotoSansHebrew",
        "NotoSansThai",
    )
)
# What Linux, Windows and macOS ship for many scripts at once.
_SYSTEM = (
    "NotoSansCJK-Regular.ttc",
    "DejaVuSans.ttf",
    "FreeSerif.ttf",
    "segoeui.ttf",
    "Nirmala.ttc",
    "Nirmala.ttf",
    "LeelawUI.ttf",
    "Arial Unicode.ttf",
)
# Written from right to left, or with letters that change beside others: readable only where
# Pillow can lay them out, for which it needs Raqm.
_NEEDS_LAYOUT = re.compile(
    r"[\u0590-\u0dff\u0f00-\u109f\u1780-\u17ff\u1800-\u18af\ufb1d-\ufdff\ufe70-\ufefc]"
)
_JOINERS = "\u200c\u200d"
_NO_CHARACTER = "\U0010ffff"
_PROBE = 16

Run = tuple[str, str]
"""A font and the text that it draws."""


@dataclass(frozen=True)
class Line:
    """Text set in ``size`` pixels. ``width`` in pixels."""

    runs: tuple[Run, ...]
    size: int
    width: float

    def draw(self, canvas: Any, x: float, y: float, ink: str) -> None:
        """On an ``ImageDraw``, from ``x``, with the middle of the letters at ``y``."""
        baseline = y + 0.35 * self.size
        for name, text in self.runs:
            font = _font(name, self.size)
            canvas.text((x, baseline), text, fill=ink, font=font, anchor="ls")
            x += font.getlength(text)


def line(text: str, size: int, room: float) -> Line | None:
    """``text`` on one line at most ``room`` pixels wide, cut with an ellipsis where it is longer.

    Symbols that no font has are left out. None where nothing is left to draw, or where a letter
    or digit is in no font, so that a word would stand there with holes.
    """
    text = _drawable(text)
    if not text:
        return None
    whole = _set(text, size)
    if whole.width <= room:
        return whole

    def beginning(length: int) -> Line:
        return _set(text[:length].rstrip() + "…", size)

    fitting = bisect_right(range(len(text)), room, key=lambda length: beginning(length).width)
    return beginning(max(0, fitting - 1))


def _drawable(text: str) -> str:
    text = " ".join(text.split())
    # Before anything is measured: what comes later cannot be seen.
    if len(text) > LONGEST:
        text = text[:LONGEST] + "…"
    # Half of a surrogate pair is no character, and no font draws it.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    kept = [""]
    for char in unicodedata.normalize("NFC", text):
        joins = char in _JOINERS and _NEEDS_LAYOUT.match(kept[-1])
        if char == " " or joins or _font_for(char):
            kept.append(char)
        elif unicodedata.category(char)[0] in "LN":
            return ""
    return " ".join("".join(kept).split())


def _set(text: str, size: int) -> Line:
    runs = list(_runs(text))
    # Within a run Raqm orders the letters; a line that begins from the right has its runs so too.
    if next(filter(None, map(_direction, text)), "") in ("R", "AL"):
        runs.reverse()
    return Line(tuple(runs), size, sum(_font(name, size).getlength(part) for name, part in runs))


def _direction(char: str) -> str:
    """The bidirectional class of a letter; empty for what takes its neighbours' direction."""
    kind = unicodedata.bidirectional(char)
    return kind if kind in ("L", "R", "AL") else ""


def _runs(text: str) -> Iterator[Run]:
    """A run goes on as long as its font has the letters: fewer seams, and blanks and full stops
    of the same design as the words."""
    font, part = "", ""
    for char in text:
        if part and (char == " " or char in _JOINERS or _has(font, char)):
            part += char
            continue
        if part:
            yield font, part
        font, part = _font_for(char) or _OURS[0], char
    yield font, part


@lru_cache(maxsize=1 << 14)
def _font_for(char: str) -> str | None:
    return next((name for name in (*_OURS, *_SYSTEM) if _has(name, char)), None)


@lru_cache(maxsize=1 << 16)
def _has(name: str, char: str) -> bool:
    """Whether a font has a glyph of ``char`` that can be seen."""
    from PIL import features

    if _NEEDS_LAYOUT.match(char) and not features.check("raqm"):
        return False
    font = _font(name, _PROBE)
    if font is None:
        return False
    seen = bytes(font.getmask(char))
    return any(seen) and seen != bytes(font.getmask(_NO_CHARACTER))


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> Any:
    """The font, or None where this system has not got it. Ours are there: for them raises
    ``OSError``."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype(name, size)
    except OSError:
        if name in _OURS:
            raise
        return None
