"""Conversations about a picture: a second question that leans on the first, or just follows it."""

from __future__ import annotations

import random
from dataclasses import replace

from . import questions, scenes
from .questions import Piece, Turn

ENDS = ("leftmost", "rightmost")


def conversation(scene: scenes.Scene, rng: random.Random) -> Turn:
    """Two questions, at times three."""
    options = [_any]
    if scene.shapes:
        options += [_it, _ends, _they]
    return rng.choice(options)(scene, rng)


def turns(scene: scenes.Scene, rng: random.Random, number: int) -> list[Turn]:
    """`number` first questions about a scene; a fifth of them are followed by others."""
    return [
        conversation(scene, rng) if rng.random() < 0.2 else questions.ordinary(scene, rng, 1)[0]
        for _ in range(number)
    ]


def group_turns(group: scenes.Group, rng: random.Random, number: int) -> list[Turn]:
    """Questions about what a group was drawn for, and some others."""
    about = tuple(k for k, s in enumerate(group.scene.shapes) if questions.fits(s, group.name))
    asked: list[Turn] = []
    for _ in range(number):
        roll = rng.random()
        if roll < 0.45:
            asked.append(questions.counted(rng, f"{group.name}s", about))
        elif roll < 0.7:
            asked.append(questions.located(group.scene, (group.name,), rng))
        else:
            asked += turns(group.scene, rng, 1)
    return asked


def chained(*asked: Turn) -> Turn:
    """One conversation of these questions."""
    first, *rest = asked
    return replace(first, then=chained(*rest)) if rest else first


def _any(scene: scenes.Scene, rng: random.Random) -> Turn:
    return chained(*questions.ordinary(scene, rng, rng.choice((2, 2, 2, 3))))


def _it(scene: scenes.Scene, rng: random.Random) -> Turn:
    """Is there a star? Yes. What colour is it?"""
    only = [s for s in scene.shapes if sum(o.kind == s.kind for o in scene.shapes) == 1]
    if not only:
        return _any(scene, rng)
    shape = rng.choice(only)
    name = rng.choice((shape.kind, shape.name))
    k = scene.shapes.index(shape)
    article = "an" if name[0] == "o" else "a"
    first = Turn("yes_no", f"Is there {article} {name}?", (Piece("Yes."),), (k,))
    then = [where(scene, k, "Where is it?")]
    then.append(replace(questions.located(scene, (name,), rng), question=_BOX_IT))
    if name == shape.kind:
        then.append(_colour(scene, k))
    return chained(first, *rng.sample(then, rng.choice((1, 1, 2))))


_BOX_IT = "Where is it? Report bbox coordinates in JSON format."
_BOX_THEM = "Where are they? Report bbox coordinates in JSON format."


def where(scene: scenes.Scene, k: int, question: str) -> Turn:
    """In which part of the picture the shape lies."""
    place = f" at the {questions.position_name(scene, scene.shapes[k])}"
    look = ("shape", k)
    pieces = (Piece("It is"), Piece(place, "look", look), Piece(".", "stop"))
    return Turn("where", question, pieces, (k,))


def _colour(scene: scenes.Scene, k: int) -> Turn:
    look = ("shape", k)
    colour = Piece(f" {scene.shapes[k].colour}", "look", look)
    pieces = (Piece("It is"), colour, Piece(".", "stop"))
    return Turn("colour", "What colour is it?", pieces, (k,))


def _ends(scene: scenes.Scene, rng: random.Random) -> Turn:
    """Which shape is the leftmost? A red star. And the rightmost?"""
    ends = list(ENDS)
    rng.shuffle(ends)
    first = end(scene, ends[0], rng.choice(("Which shape is the {}?", "What is the {} shape?")))
    k = _index(scene, ends[0])
    then = [end(scene, ends[1], "And the {}?"), where(scene, k, "Where is it?")]
    return chained(first, rng.choice(then))


def _index(scene: scenes.Scene, which: str) -> int:
    return 0 if which == "leftmost" else len(scene.shapes) - 1


def end(scene: scenes.Scene, which: str, question: str) -> Turn:
    """The first or the last shape from left to right."""
    k = _index(scene, which)
    shape, look = scene.shapes[k], ("shape", k)
    article = "An" if shape.colour == "orange" else "A"
    pieces = [Piece(text, "look", look) for text in (article, f" {shape.colour}", f" {shape.kind}")]
    return Turn("end", question.format(which), (*pieces, Piece(".", "stop")), (k,))


def _they(scene: scenes.Scene, rng: random.Random) -> Turn:
    """How many red stars are there? 2. Where are they?"""
    shape = rng.choice(scene.shapes)
    name = rng.choice((shape.name, shape.kind))
    about = tuple(k for k, s in enumerate(scene.shapes) if questions.fits(s, name))
    where_are = replace(questions.located(scene, (name,), rng), question=_BOX_THEM)
    return chained(questions.counted(rng, f"{name}s", about), where_are)
