"""Types of arguments on the command line: what argparse reads words as."""

from __future__ import annotations

import argparse

from ..types import Size

_MAX_SIDE = 1_000_000  # pixels, of an image that a reply is about


def integer(text: str) -> int:
    """``1000`` or ``1e3``."""
    try:
        number = float(text) if "e" in text.lower() else int(text)
        if number == int(number):
            return int(number)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from error
    raise argparse.ArgumentTypeError(f"{text!r} is no whole number")


def area(text: str) -> tuple[int, int, int, int]:
    """``X,Y,W,H`` in pixels to left, top, right and bottom."""
    try:
        x, y, width, height = (int(part) for part in text.split(","))
    except ValueError:
        x = y = width = height = -1
    if min(x, y) < 0 or min(width, height) < 1 or max(x + width, y + height) > _MAX_SIDE:
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no rectangle: give X,Y,WIDTH,HEIGHT in pixels, as 10,20,300,200"
        )
    return x, y, x + width, y + height


def size(text: str) -> Size:
    """``640x480``, width first, to (height, width)."""
    try:
        width, height = (int(part) for part in text.lower().split("x"))
    except ValueError:
        width = height = 0
    if not (0 < width <= _MAX_SIDE and 0 < height <= _MAX_SIDE):
        raise argparse.ArgumentTypeError(
            f"{text[:40]!r} is no size: give WIDTHxHEIGHT, as 640x480, up to {_MAX_SIDE} each"
        )
    return height, width
