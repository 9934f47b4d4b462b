"""Questions about scenes: what is asked of each, and how much of its truth a result holds."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..fine_tunes import FineTune
from ..tasks.describe import describe
from ..tasks.ground import ground
from ..tasks.ocr import ocr
from ..types import Box, Result, Task
from .matching import Labelled, matched
from .scenes import COLOURS, Scene, Shape, draw

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["describe", "read", "boxes", "points"]
KINDS: tuple[Kind, ...] = ("describe", "read", "boxes", "points")

FOUND_IOU = 0.5
"""A box with at least this intersection over union has found its shape."""

_MAX_NAMES = 2  # asked for at once: of three the bundled model often forgets one
_SCENE_KINDS = ("mixed", "shapes", "text")
# Width and height in pixels. They are not both near 1000, neither here nor once the picture is
# resized, so that coordinates in pixels cannot be taken for relative ones.
_SIZES = ((1280, 960), (960, 1280), (1440, 810), (1152, 1152), (810, 1440))
_INPUT_SHARE = 0.5  # of a picture's pixels that the model sees

_KIND_WORDS = {
    "circle": "circles?|dis[ck]s?|dots?|circular",
    "square": "squares?",
    "triangle": "triangles?|triangular",
    "star": "stars?",
    "diamond": "diamonds?|rhombus(?:es)?",
    "cross": "cross(?:es)?|plus(?:es)?",
}
_COLOUR_WORDS = {"purple": "purple|violet", "pink": "pink|magenta"}

_COLOUR_OR_KIND = "|".join((*COLOURS, *_COLOUR_WORDS.values(), *_KIND_WORDS.values()))
# Words that begin the next thing of a description.
_OTHER_THING = rf"(?:an?|the|one|two|three|four|and|or|with|no|on|{_COLOUR_OR_KIND})\b"


@dataclass(frozen=True)
class Question:
    """One task about one scene. ``names``: what is to be found, if anything."""

    kind: Kind
    scene: Scene
    task: Task
    names: tuple[str, ...] = ()

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes that are to be found."""
        return tuple(shape for shape in self.scene.shapes if shape.name in self.names)

    @property
    def truth(self) -> list[Labelled]:
        """Their names and boxes, in pixels."""
        return [(shape.name, shape.box) for shape in self.shapes]

    @property
    def expected(self) -> str:
        """What a right answer holds, for people."""
        names = [shape.name for shape in self.scene.shapes]
        lines = [line.text for line in self.scene.lines]
        if self.kind in ("boxes", "points"):
            width, height = self.scene.picture.size
            places = [f"{name} [{', '.join(f'{v:g}' for v in box)}]" for name, box in self.truth]
            return f"{', '.join(places)} of {width}x{height}"
        return ", ".join(lines if self.kind == "read" else [*names, *lines])


@dataclass(frozen=True)
class Score:
    """How much of a question's truth its result holds: ``hits`` of ``total`` things. ``ious``: of
    each true box the best that was found, 0 for a missed one. ``extra``: found boxes or points
    that are at none of them; None where there is no such thing."""

    hits: int
    total: int
    ious: tuple[float, ...] = ()
    extra: int | None = None


def doctor_scene(number: int) -> Scene:
    """The scene of this number: shapes, text, or both, in turn."""
    kind = _SCENE_KINDS[number % len(_SCENE_KINDS)]
    return draw(f"doctor {number}", kind, _SIZES[number % len(_SIZES)])


def pixels(scene: Scene) -> Tensor:
    """The scene's picture as a uint8 tensor ``[3, H, W]``."""
    import numpy as np
    import torch

    return torch.from_numpy(np.asarray(scene.picture).copy()).movedim(-1, 0)


def pixel_bound(scene: Scene, own_bound: int | None) -> int | None:
    """Most pixels that the model is to see of a scene: half of them, so that the picture and what
    the model sees of it differ in size. None where the checkpoint's ``own_bound`` is lower."""
    width, height = scene.picture.size
    bound = int(width * height * _INPUT_SHARE)
    return bound if own_bound is None or bound < own_bound else None


def questions_about(scene: Scene, fine_tune: FineTune | None = None) -> list[Question]:
    """The questions that have an answer in this scene. A ``fine_tune`` reads in its makers'
    words."""
    asked = [Question("describe", scene, describe("detailed"))]
    if scene.lines:
        asked.append(Question("read", scene, ocr("plain", fine_tune=fine_tune)))
    names = tuple(dict.fromkeys(shape.name for shape in scene.shapes))[:_MAX_NAMES]
    if names:
        find = ", ".join(names)
        asked.append(Question("boxes", scene, ground(find, "boxes"), names))
        asked.append(Question("points", scene, ground(find, "points"), names))
    return asked


def score(question: Question, result: Result) -> Score:
    """How much of its truth the result of a question holds; nothing if it is unreadable."""
    if question.kind == "describe":
        return _described(question.scene, result.text)
    if question.kind == "read":
        return _read(question.scene, "" if result.error else result.text)
    if question.kind == "points":
        return _pointed(question, result)
    found = [(as_asked(box.label, question.names), _corners(box)) for box in result.boxes]
    ious = tuple(matched(question.truth, found))
    hits = sum(iou >= FOUND_IOU for iou in ious)
    return Score(hits, len(ious), ious, max(0, len(found) - hits))


def as_asked(label: str, names: Sequence[str]) -> str:
    """The one of ``names`` that ``label`` means: itself without case or an ending, or the only one
    that there is. Any other label stays."""
    plain = " ".join(label.lower().split()).removesuffix("s")
    if len(names) == 1:
        return names[0]
    return next((name for name in names if name.removesuffix("s") == plain), label)


def _corners(box: Box) -> tuple[float, float, float, float]:
    return box.x1, box.y1, box.x2, box.y2


def _described(scene: Scene, text: str) -> Score:
    """Of a description: shapes by colour and kind, and printed lines."""
    names = dict.fromkeys((shape.colour, shape.kind) for shape in scene.shapes)
    found = [bool(_mention(*name).search(text)) for name in names]
    found += [re.search(rf"\b{line.text}\b", text) is not None for line in scene.lines]
    return Score(sum(found), len(found))


def _mention(colour: str, kind: str) -> re.Pattern[str]:
    """A colour and a kind of shape, in either order, at most three words of the same thing apart:
    "red, five-pointed star", "the star is red"."""
    words = (_COLOUR_WORDS.get(colour, colour), _KIND_WORDS[kind])
    first, second = (rf"\b(?:{alternatives})\b" for alternatives in words)
    between = r"[\s,*\"'-]+"
    gap = rf"(?:{between}(?!{_OTHER_THING})\w+){{0,3}}{between}"
    return re.compile(rf"{first}{gap}{second}|{second}{gap}{first}", re.IGNORECASE)


def _read(scene: Scene, text: str) -> Score:
    """Of text that was read: lines, each a word, exact to the letter."""
    read = Counter(_words(text))
    true = Counter(line.text for line in scene.lines)
    return Score((read & true).total(), true.total())


def _words(text: str) -> Iterator[str]:
    """Each word of ``text``; of a line of spaced letters the word that they spell."""
    for line in text.splitlines():
        words = re.findall(r"\w+", line)
        yield from ["".join(words)] if all(len(word) == 1 for word in words) else words


def _pointed(question: Question, result: Result) -> Score:
    """Of points: those inside the shape that they name, one for each."""
    shapes = list(question.shapes)
    for point in result.points:
        label = as_asked(point.label, question.names)
        for shape in shapes:
            x1, y1, x2, y2 = shape.box
            if shape.name == label and x1 <= point.x <= x2 and y1 <= point.y <= y2:
                shapes.remove(shape)
                break
    total = len(question.shapes)
    hits = total - len(shapes)
    return Score(hits, total, extra=len(result.points) - hits)
