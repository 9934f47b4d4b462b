"""Scenes: synthetic pictures with exact ground truth, each determined by its seed.

The bundled model is trained and evaluated on them, and the doctor asks any model about them.
Importing this imports no Pillow; drawing does.
"""

from .cards import Card, draw_card
from .clips import VERBS, Actor, Clip, Event, draw_clip
from .drawing import draw, picture_size
from .groups import Group, draw_count, draw_look_alikes
from .scene import Line, Scene, Shape
from .vocabulary import CARD_KEYS, COLOURS, DIGITS, LETTERS, SHAPES

__all__ = [
    "CARD_KEYS",
    "COLOURS",
    "DIGITS",
    "LETTERS",
    "SHAPES",
    "VERBS",
    "Actor",
    "Card",
    "Clip",
    "Event",
    "Group",
    "Line",
    "Scene",
    "Shape",
    "draw",
    "draw_card",
    "draw_clip",
    "draw_count",
    "draw_look_alikes",
    "picture_size",
]
