"""Text rendering: single lines in the bundled fonts, with fallback for each character.

The first font that has a character draws it, so that labels may mix scripts; system fonts are the
fallback for scripts that the bundled ones lack.
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

MAX_LENGTH = 256
"""Longest text in characters. No longer label fits on a picture: the text size is a 42nd of the
picture's longer side, and the narrowest characters are a fifth of that wide."""

FOLDER = Path(__file__).with_name("fonts")
_BUNDLED = tuple(
    str(FOLDER / f"{name}.ttf")
    for name in (
        "WenQuanYiMicroHei",
        "NotoSansArabic",
        "NotoSansDevanagari",
        "NotoSansHebrew",
        "NotoSansThai",
    )
)
# Fonts of Linux, Windows and macOS that cover many scripts.
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
# Right-to-left scripts, and scripts with contextual letter forms: they need complex text layout,
# which Pillow does through Raqm.
_NEEDS_LAYOUT = re.compile(
    r"[\u0590-\u0dff\u0f00-\u109f\u1780-\u17ff\u1800-\u18af\ufb1d-\ufdff\ufe70-\ufefc]"
)
_JOINERS = "\u200c\u200d"
_NO_CHARACTER = "\U0010ffff"
_PROBE = 16

Run = tuple[str, str]
"""A font's file name and the text that it draws."""


@dataclass(frozen=True)
class Line:
    """A laid-out line of text. ``size`` and ``width`` in pixels."""

    runs: tuple[Run, ...]
    size: int
    width: float

    def draw(self, canvas: Any, x: float, y: float, ink: str) -> None:
        """Draws it on an ``ImageDraw``, from ``x``, vertically centred at ``y``."""
        baseline = y + 0.35 * self.size
        for name, text in self.runs:
            font = _font(name, self.size)
            canvas.text((x, baseline), text, fill=ink, font=font, anchor="ls")
            x += font.getlength(text)


def line(text: str, size: int, room: float) -> Line | None:
    """Lays ``text`` out in one line of at most ``room`` pixels, truncated with an ellipsis.

    Symbols that no font has are left out. None if nothing is left to draw, or if a letter or digit
    is in no font, since the word would have gaps.
    """
    text = _drawable(text)
    if not text:
        return None
    full = _lay_out(text, size)
    if full.width <= room:
        return full

    def truncated(length: int) -> Line:
        return _lay_out(text[:length].rstrip() + "…", size)

    fitting = bisect_right(range(len(text)), room, key=lambda length: truncated(length).width)
    return truncated(max(0, fitting - 1))


def _drawable(text: str) -> str:
    text = " ".join(text.split())
    # Truncated before anything is measured: the rest could not be drawn anyway.
    if len(text) > MAX_LENGTH:
        text = text[:MAX_LENGTH] + "…"
    # A lone surrogate is not a character, and no font has it.
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    kept = [""]
    for char in unicodedata.normalize("NFC", text):
        joins = char in _JOINERS and _NEEDS_LAYOUT.match(kept[-1])
        if char == " " or joins or _font_for(char):
            kept.append(char)
        elif unicodedata.category(char)[0] in "LN":
            return ""
    return " ".join("".join(kept).split())


def _lay_out(text: str, size: int) -> Line:
    runs = list(_runs(text))
    # Raqm orders the characters within a run; a right-to-left line has its runs reversed too.
    if next(filter(None, map(_direction, text)), "") in ("R", "AL"):
        runs.reverse()
    return Line(tuple(runs), size, sum(_font(name, size).getlength(part) for name, part in runs))


def _direction(char: str) -> str:
    """The bidirectional class of a letter; "" for neutral characters."""
    kind = unicodedata.bidirectional(char)
    return kind if kind in ("L", "R", "AL") else ""


def _runs(text: str) -> Iterator[Run]:
    """Splits ``text`` into runs, each as long as its font has the characters: fewer seams, and
    spaces and punctuation in the font of the words."""
    font, part = "", ""
    for char in text:
        if part and (char == " " or char in _JOINERS or _has(font, char)):
            part += char
            continue
        if part:
            yield font, part
        font, part = _font_for(char) or _BUNDLED[0], char
    yield font, part


@lru_cache(maxsize=1 << 14)
def _font_for(char: str) -> str | None:
    return next((name for name in (*_BUNDLED, *_SYSTEM) if _has(name, char)), None)


@lru_cache(maxsize=1 << 16)
def _has(name: str, char: str) -> bool:
    """Whether a font has a visible glyph for ``char``."""
    from PIL import features

    if _NEEDS_LAYOUT.match(char) and not features.check("raqm"):
        return False
    font = _font(name, _PROBE)
    if font is None:
        return False
    glyph = bytes(font.getmask(char))
    return any(glyph) and glyph != bytes(font.getmask(_NO_CHARACTER))


@lru_cache(maxsize=64)
def _font(name: str, size: int) -> Any:
    """The font, or None if this system has not got it. Raises ``OSError`` for a bundled one."""
    from PIL import ImageFont

    try:
        return ImageFont.truetype(name, size)
    except OSError:
        if name in _BUNDLED:
            raise
        return None
