"""Scenes: synthetic pictures with exact ground truth, each determined by its seed.

The bundled model is trained and evaluated on them, and the doctor asks any model about them.
Importing this imports no Pillow; drawing does.
"""

from .drawing import draw, picture_size
from .scene import Line, Scene, Shape
from .vocabulary import COLOURS, DIGITS, LETTERS, SHAPES

__all__ = [
    "COLOURS",
    "DIGITS",
    "LETTERS",
    "SHAPES",
    "Line",
    "Scene",
    "Shape",
    "draw",
    "picture_size",
]
