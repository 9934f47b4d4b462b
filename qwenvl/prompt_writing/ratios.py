"""Aspect ratios that replies name, and the sizes in pixels that they come to."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ..types import Size

_RATIO = re.compile(r"\s*(\d{1,5}(?:\.\d+)?)\s*[:：/x×]\s*(\d{1,5}(?:\.\d+)?)\s*")
_PICTURE = re.compile(r"<?\s*(?:image|picture)?\s*(\d{1,3})\s*>?", re.IGNORECASE)
MOST_EXTREME = 200
"""Of the longer side to the shorter one; what lies beyond is no picture."""


def ratio_of(text: str) -> float | None:
    """Width by height of ``16:9``; None where ``text`` is no ratio."""
    match = _RATIO.fullmatch(text)
    width, height = (float(side) for side in match.groups()) if match else (0.0, 0.0)
    if not (width and height) or max(width / height, height / width) > MOST_EXTREME:
        return None
    return width / height


def followed(text: str, sizes: Sequence[Size]) -> float | None:
    """Width by height of the picture that ``<image2>`` names, of pictures of ``sizes``; None where
    it names none of them."""
    match = _PICTURE.fullmatch(text.strip())
    number = int(match[1]) if match else 0
    if not 1 <= number <= len(sizes):
        return None
    height, width = sizes[number - 1]
    return width / height


def size_of(ratio: float, pixels: int, multiple: int) -> Size:
    """(height, width) of about ``pixels`` in that ratio, each side a multiple of ``multiple``."""
    wide = max(ratio, 1 / ratio)
    short = _rounded(math.sqrt(pixels / wide), multiple)
    long = _rounded(short * wide, multiple)
    return (short, long) if ratio >= 1 else (long, short)


def _rounded(side: float, multiple: int) -> int:
    return max(1, round(side / multiple)) * multiple
