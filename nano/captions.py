"""Figures of captions: whether the right one of a fresh scene fits it better than a wrong one.

A wrong caption is the right one with the colour or the kind of one shape changed to what is not
there. Both are compared with the picture by `score`, in its usual words, which the model was not
trained on.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from . import engine, scenes, score, scored

_SEED = "evaluation captions"

Captions = tuple[scenes.Scene, str, str]
"""A scene, its right caption, and a wrong one."""


def named(shapes: Sequence[tuple[str, str]]) -> str:
    """A caption of shapes, each a colour and a kind."""
    articles = ["an" if colour[0] in "aeiou" else "a" for colour, _ in shapes]
    return ", ".join(
        f"{article} {' '.join(shape)}" for article, shape in zip(articles, shapes, strict=True)
    )


def captions(scene: scenes.Scene, rng: random.Random) -> tuple[Captions, Captions]:
    """Of one shape, and of all shapes of the scene."""
    right = [(shape.colour, shape.kind) for shape in scene.shapes]
    at = rng.randrange(len(right))
    colour, kind = right[at]
    others = [(other, kind) for other in scenes.COLOURS] + [(colour, k) for k in scenes.SHAPES]
    changed = rng.choice([shape for shape in others if shape not in right])
    wrong = [changed if k == at else shape for k, shape in enumerate(right)]
    one = scene, named([right[at]]), named([changed])
    return one, (scene, named(right), named(wrong))


def figures(folder: Path, number: int, seed: str = _SEED) -> dict[str, float | int | None]:
    """On `number` scenes, of one shape and of all: how often the right caption has the higher score
    of the two (a tie counts half), and the AUROC of right against wrong ones of any scenes."""
    ones, wholes = [], []
    for k in range(number):
        scene = scenes.draw(f"{seed} {k}")
        if scene.shapes:
            one, whole = captions(scene, random.Random(f"{seed} words {k}"))
            ones.append(one)
            wholes.append(whole)
    with engine.opened(folder) as backend:
        return {
            **_figures("caption_of_one", engine.scores(backend, _asked(ones))),
            **_figures("caption_of_all", engine.scores(backend, _asked(wholes))),
            "captions": len(ones),
        }


def _asked(found: Sequence[Captions]) -> list[score.Pair]:
    return [
        score.Pair(picture, text)
        for scene, *texts in found
        for picture in [engine.pixels(scene.picture)]
        for text in texts
    ]


def _figures(name: str, scores: Sequence[float]) -> dict[str, float | None]:
    """`scores`: a right one and its wrong one in turn."""
    pairs = list(zip(scores[::2], scores[1::2], strict=True))
    ahead = sum((right > wrong) + (right == wrong) / 2 for right, wrong in pairs)
    area = scored.auroc([(value, at % 2 == 0) for at, value in enumerate(scores)])
    return {
        f"{name}_ahead": round(ahead / len(pairs), 4) if pairs else None,
        f"{name}_auroc": None if area is None else round(area, 4),
    }
