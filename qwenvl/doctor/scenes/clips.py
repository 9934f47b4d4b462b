"""Clips: short videos of shapes that enter, leave or change colour, and when they do."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from .scene import Box, Shape, apart
from .shapes import a_tone, paint
from .vocabulary import COLOURS, DARK, LIGHT, RGB, SHAPES

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

EVENT_SECONDS = 1.0
"""How long each event takes."""
VERBS = ("enters", "leaves", "turns")
_MOST_ACTORS, _MOST_EVENTS = 3, 3
_APART = 1.2  # seconds from one start to the next
_EDGE = 0.3  # seconds without an event at both ends
_TRIES = 40


@dataclass(frozen=True)
class Event:
    """What happens to the actor of that index, in seconds. ``colour``: what it turns into."""

    start: float
    end: float
    verb: str
    actor: int
    name: str
    colour: str = ""

    @property
    def label(self) -> str:
        """Such as ``red circle enters`` or ``red circle turns blue``."""
        return f"{self.name} {self.verb} {self.colour}".rstrip()

    def progress(self, time: float) -> float:
        """0 before it starts, 1 once it has ended."""
        return max(0.0, min(1.0, (time - self.start) / (self.end - self.start)))


@dataclass(frozen=True)
class Actor:
    """A shape where it rests. ``way``: how far, in pixels, it is from there when it is just out of
    the frame. ``fills``: its colour, and the one that it may turn into."""

    shape: Shape
    way: tuple[float, float]
    fills: tuple[RGB, RGB]


@dataclass(frozen=True)
class Clip:
    """A clip of ``duration`` seconds, drawn at any time of it. Events go by their start, and no two
    are under way at once."""

    size: tuple[int, int]
    duration: float
    ground: RGB
    actors: tuple[Actor, ...]
    events: tuple[Event, ...]

    def frames(self, times: Sequence[float]) -> np.ndarray:
        """uint8 [len(times), height, width, 3], RGB."""
        import numpy as np

        known: dict[tuple[float, ...], np.ndarray] = {}
        drawn = []
        for time in times:
            state = tuple(event.progress(time) for event in self.events)
            if state not in known:
                known[state] = np.asarray(self.picture(time))
            drawn.append(known[state])
        return np.stack(drawn)

    def picture(self, time: float) -> Image.Image:
        """The frame at ``time`` in seconds (PIL, RGB)."""
        from PIL import Image, ImageDraw

        picture = Image.new("RGB", self.size, self.ground)
        pen = ImageDraw.Draw(picture)
        for index, actor in enumerate(self.actors):
            box = self.place(index, time)
            if box is None:
                continue
            turned = self._progress(index, "turns", time)
            paint(pen, actor.shape.kind, box, actor.fills[int(turned >= 1)])
            edge = round(box[0] + turned * (box[2] - box[0]))
            if 0 < turned < 1 and edge > box[0]:  # the new colour runs through it from the left
                new = picture.copy()
                paint(ImageDraw.Draw(new), actor.shape.kind, box, actor.fills[1])
                part = (int(box[0]), int(box[1]), edge, int(box[3]))
                picture.paste(new.crop(part), part[:2])
        return picture

    def place(self, index: int, time: float) -> Box | None:
        """Where the actor of that index is, in whole pixels, in part perhaps outside of the frame;
        None while it is not there."""
        actor = self.actors[index]
        inside = self._progress(index, "enters", time) if "enters" in self._verbs[index] else 1.0
        away = max(1 - inside, self._progress(index, "leaves", time))
        if away >= 1:
            return None
        x, y = round(away * actor.way[0]), round(away * actor.way[1])
        x1, y1, x2, y2 = actor.shape.box
        return x1 + x, y1 + y, x2 + x, y2 + y

    @cached_property
    def _verbs(self) -> tuple[dict[str, Event], ...]:
        return tuple(
            {event.verb: event for event in self.events if event.actor == index}
            for index in range(len(self.actors))
        )

    def _progress(self, index: int, verb: str, time: float) -> float:
        event = self._verbs[index].get(verb)
        return event.progress(time) if event else 0.0


def draw_clip(
    seed: int | str, size: tuple[int, int] | None = None, seconds: float | None = None
) -> Clip:
    """The clip of this seed: 2.5 to 8 seconds of one to three shapes of different kinds, and up to
    three events, which take a second each: a shape slides in from an edge, slides out, or another
    colour runs through it from left to right. ``size``: (width, height) in pixels, by default sides
    of 160 to 640; ``seconds``: how long it is."""
    rng = random.Random(f"nano clip {seed}")
    size = size or _frame_size(rng)
    duration = seconds or round(rng.uniform(2.5, 8.0), 1)
    starts = _starts(rng, duration)
    first = rng.randint(0 if starts else 1, 2)
    actors = _placed(rng, size, _MOST_ACTORS)
    first = min(first, len(actors))
    here, unseen = list(range(first)), list(range(first, len(actors)))
    turned: set[int] = set()
    events: list[Event] = []
    names = [actor.shape.name for actor in actors]
    for start in starts:
        options = [("leaves", index) for index in here]
        options += [("turns", index) for index in here if index not in turned] * 2
        options += [("enters", index) for index in unseen[:1]] * 2
        if not options:
            break
        verb, index = rng.choice(options)
        name, colour = names[index], ""
        if verb == "enters":
            here.append(unseen.pop(0))
        elif verb == "leaves":
            here.remove(index)
        else:
            turned.add(index)
            shape = actors[index].shape
            colour = rng.choice([c for c in COLOURS if c != shape.colour])
            actors[index] = Actor(
                shape, actors[index].way, (actors[index].fills[0], a_tone(rng, colour))
            )
            names[index] = f"{colour} {shape.kind}"
        events.append(Event(start, round(start + EVENT_SECONDS, 1), verb, index, name, colour))
    ground = rng.choice(rng.choice((LIGHT, DARK)))
    kept = actors[: len(actors) - len(unseen)]
    return Clip(size, duration, ground, tuple(kept), tuple(events))


def _frame_size(rng: random.Random) -> tuple[int, int]:
    """Width and height in pixels: aspect ratio 9:16 to 16:9."""
    side, aspect = math.exp(rng.uniform(math.log(215), math.log(480))), rng.uniform(-0.57, 0.57)
    return round(side * math.exp(aspect / 2)), round(side / math.exp(aspect / 2))


def _starts(rng: random.Random, duration: float) -> list[float]:
    """Of none to three events, in tenths of a second."""
    room = duration - 2 * _EDGE - EVENT_SECONDS
    number = min(rng.choice((0, 1, 1, 2, 2, 3, 3)), _MOST_EVENTS, 1 + int(max(0.0, room) / _APART))
    spare = room - _APART * (number - 1)
    offsets = sorted(rng.uniform(0, max(0.0, spare)) for _ in range(number))
    return [round(_EDGE + offset + _APART * k, 1) for k, offset in enumerate(offsets)]


def _placed(rng: random.Random, size: tuple[int, int], number: int) -> list[Actor]:
    """Actors of different kinds, each with a free way out."""
    width, height = size
    unit = math.sqrt(width * height) / 224
    actors: list[Actor] = []
    kinds = rng.sample(SHAPES, len(SHAPES))
    for _ in range(_TRIES):
        if len(actors) == number:
            break
        side = round(min(rng.uniform(55, 100) * unit, 0.45 * min(size)))
        x, y = rng.randint(2, width - side - 2), rng.randint(2, height - side - 2)
        box = (float(x), float(y), float(x + side), float(y + side))
        boxes = [actor.shape.box for actor in actors]
        ways = _free_ways(box, size, boxes)
        lanes = [_lane(actor.shape.box, actor.way) for actor in actors]
        if ways and apart(box, [*boxes, *lanes], 6 * unit):
            colour = rng.choice(list(COLOURS))
            fill = a_tone(rng, colour)
            shape = Shape(kinds[len(actors)], colour, box)
            actors.append(Actor(shape, rng.choice(ways), (fill, fill)))
    return actors


def _free_ways(box: Box, size: tuple[int, int], others: Sequence[Box]) -> list[tuple[float, float]]:
    """The ways out of the frame, straight to an edge, that lead over none of the ``others``."""
    ways = [(-box[2], 0.0), (size[0] - box[0], 0.0), (0.0, -box[3]), (0.0, size[1] - box[1])]
    return [way for way in ways if apart(_lane(box, way), list(others), 2)]


def _lane(box: Box, way: tuple[float, float]) -> Box:
    """What a box covers on its way."""
    return (
        min(box[0], box[0] + way[0]), min(box[1], box[1] + way[1]),
        max(box[2], box[2] + way[0]), max(box[3], box[3] + way[1]),
    )  # fmt: skip
