"""Figures of scores: whether right boxes of fresh scenes have higher ones than wrong boxes.

Each scene is asked for things that are there, for some that are not, and for look-alikes: the
colour of one of its shapes with another kind, its kind with another colour, alone and beside the
shape itself. A box is right if a shape that was asked for lies there (IoU of 0.5 or more) and its
label names it; any other box is wrong.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from pathlib import Path

from . import engine, ground, matching, questions, scenes, types

_SEED = "evaluation scores"


def asked_about(scene: scenes.Scene, rng: random.Random) -> list[tuple[str, ...]]:
    """What is asked for, question by question."""
    shape = rng.choice(scene.shapes)
    some = questions.categories(scene, rng, absent=False)
    missing = questions.categories(scene, rng, absent=True)[:1]
    colour = rng.choice([colour for colour in scenes.COLOURS if colour != shape.colour])
    kind = rng.choice([kind for kind in scenes.SHAPES if kind != shape.kind])
    recoloured, reshaped = f"{colour} {shape.kind}", f"{shape.colour} {kind}"
    alone = [(shape.name,), some, missing, (recoloured,), (reshaped,)]
    return [*alone, (shape.name, recoloured), (reshaped, shape.name)]


def is_right(box: types.Box, names: Sequence[str], scene: scenes.Scene) -> bool:
    """Whether `box` is at a shape that was asked for by one of `names`, and says so."""
    corners = box.x1, box.y1, box.x2, box.y2
    return box.label in names and any(
        questions.fits(shape, box.label) and matching.overlap(corners, shape.box) >= 0.5
        for shape in scene.shapes
    )


def auroc(pairs: Iterable[tuple[float, bool]]) -> float | None:
    """Area under the ROC curve: how often a right one has the higher score, of all pairs of a
    right and a wrong one; a tie counts half. None without both."""
    listed = list(pairs)
    right = [score for score, is_true in listed if is_true]
    wrong = sorted(score for score, is_true in listed if not is_true)
    if not right or not wrong:
        return None
    below = sum(bisect_left(wrong, s) + bisect_right(wrong, s) for s in right) / 2
    return below / len(right) / len(wrong)


def figures(folder: Path, number: int, seed: str = _SEED) -> dict[str, float | int | None]:
    """The AUROC of the score, and of how many boxes, on `number` scenes."""
    asked = []
    for k in range(number):
        scene = scenes.draw(f"{seed} {k}")
        if scene.shapes:
            rng = random.Random(f"{seed} questions {k}")
            asked += [(scene, names) for names in asked_about(scene, rng)]
    with engine.opened(folder) as backend:
        tasks = [(scene.picture, ground(", ".join(names), scores=True)) for scene, names in asked]
        results = engine.answers(backend, tasks)
    pairs = [
        (box.score, is_right(box, names, scene))
        for result, (scene, names) in zip(results, asked, strict=True)
        for box in result.boxes
    ]
    scored = [(score, is_true) for score, is_true in pairs if score is not None]
    area = auroc(scored)
    return {
        "score_auroc": None if area is None else round(area, 4),
        "score_right_boxes": sum(is_true for _, is_true in scored),
        "score_wrong_boxes": sum(not is_true for _, is_true in scored),
        "score_unscored_boxes": len(pairs) - len(scored),
    }
