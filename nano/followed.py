"""Figures of second questions: those that lean on the first one and on its answer.

Both are asked through the engine; the second one after the model's own first answer.
"""

from __future__ import annotations

import random
from pathlib import Path

from . import conversations, engine, evaluate, matching, questions, scenes, types

_SEED = "evaluation conversations"
_KINDS = ("where", "colour", "end", "ground")


def figures(folder: Path, number: int, seed: str = _SEED) -> dict[str, float | int | None]:
    """The share of right second answers, 0..1, on `number` scenes: in words, letter by letter, and
    as boxes, all of them and no other, each with an IoU of 0.5 or more."""
    asked = [talk for k in range(number) if (talk := _conversation(f"{seed} {k}"))]
    sampling = types.Sampling(engine.LENGTH)
    with engine.opened(folder) as backend:
        firsts = [
            types.Request.ask([engine.pixels(scene.picture)], turn.question, sampling=sampling)
            for scene, turn in asked
        ]
        answers = backend.generate(firsts)
        seconds = [
            _followed(first, answer.ids, turn.then.question)
            for first, answer, (_, turn) in zip(firsts, answers, asked, strict=True)
            if turn.then
        ]
        said = [answer.text for answer in backend.generate(seconds)]
    words, boxes = [], []
    for (scene, turn), text in zip(asked, said, strict=True):
        then = turn.then
        assert then is not None
        if then.kind == "ground":
            boxes.append(_is_found(scene, then, text))
        else:
            words.append(text == then.answer)
    return {
        "second_answer_words": evaluate.mean(words),
        "second_answer_boxes": evaluate.mean(boxes),
        "second_questions": len(asked),
    }


def _conversation(seed: str) -> tuple[scenes.Scene, questions.Turn] | None:
    """A scene and a conversation of two questions; None of a scene without shapes."""
    rng, scene = random.Random(f"{seed} questions"), scenes.draw(seed)
    while scene.shapes:
        turn = conversations.conversation(scene, rng)
        if turn.then and turn.then.kind in _KINDS:
            return scene, turn
    return None


def _followed(first: types.Request, ids: tuple[int, ...], question: str) -> types.Request:
    said = types.Message("assistant", (types.Generated(ids),))
    messages = (*first.messages, said, types.Message("user", (question,)))
    return types.Request(messages, first.sampling)


def _is_found(scene: scenes.Scene, turn: questions.Turn, text: str) -> bool:
    """Whether the boxes of `text` are those of the right answer."""
    found = [("", entry.get("bbox_2d")) for entry in evaluate.entries(text)]
    if not all(evaluate.is_box(box) for _, box in found):
        return False
    true = [("", questions.relative(scene, scene.shapes[k].box)) for k in turn.about or ()]
    return len(true) == len(found) and all(
        overlap >= 0.5 for overlap in matching.matched(true, found)
    )
