"""Scene values: a picture of shapes and printed lines, and where each of them lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

Box = tuple[float, float, float, float]
"""(x1, y1, x2, y2) in pixels of the picture."""


@dataclass(frozen=True)
class Shape:
    """One coloured shape, which fills its ``box``."""

    kind: str
    colour: str
    box: Box

    @property
    def name(self) -> str:
        return f"{self.colour} {self.kind}"

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Line:
    """One printed line. ``box`` bounds the ink, ``centres`` has (x, y) per character; pixels."""

    text: str
    box: Box
    centres: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Scene:
    """The picture (PIL, RGB) and its truth.

    Shapes go left to right by centre, lines top to bottom; ``ground`` is light or dark.
    """

    picture: Image.Image
    shapes: tuple[Shape, ...]
    lines: tuple[Line, ...]
    ground: str


class Occupied:
    """What is taken in a picture so far: boxes of ``shapes``, of ``lines``, and whole ``rows`` of
    lines, which never share one."""

    def __init__(self) -> None:
        self.shapes: list[Box] = []
        self.lines: list[Box] = []
        self.rows: list[Box] = []


def apart(box: Box, others: list[Box], gap: float) -> bool:
    """Whether at least ``gap`` pixels lie between ``box`` and each of ``others``."""
    return all(
        box[2] + gap < o[0] or o[2] + gap < box[0] or box[3] + gap < o[1] or o[3] + gap < box[1]
        for o in others
    )
