"""Figures of look-alikes, counting, and key-value cards.

Everything is asked through the engine, as users ask it; cards by `extract`, held to their keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from . import constraints, describe, engine, extract, ground, matching, scenes

_SEED = "evaluation"


def figures(folder: Path, number: int, seed: str = _SEED) -> dict[str, float | None]:
    """All figures on `number` pictures of each kind, 0..1."""
    with engine.opened(folder) as backend:
        return {
            **_look_alikes(
                backend, [scenes.draw_look_alikes(f"{seed} {k}") for k in range(number)]
            ),
            **_counts(backend, [scenes.draw_count(f"{seed} {k}") for k in range(number)]),
            **_cards(backend, [scenes.draw_card(f"{seed} {k}") for k in range(number)]),
        }


def _look_alikes(backend: Any, groups: list[scenes.Group]) -> dict[str, float | None]:
    """Of those that are there, the share found; of those that are not, the share told so; of all
    boxes, the share at the thing that was asked for."""
    asked = [(group.scene.picture, ground(group.name)) for group in groups]
    recall, none_found, precision = [], [], []
    for group, result in zip(groups, engine.answers(backend, asked), strict=True):
        true = [("", shape.box) for shape in group.shapes]
        found = [("", (box.x1, box.y1, box.x2, box.y2)) for box in result.boxes]
        recall += [iou >= 0.5 for iou in matching.matched(true, found)]
        precision += [iou >= 0.5 for iou in matching.matched(found, true)]
        if not true:
            none_found.append(not found and not result.error)
    return {
        "look_alike_recall": _mean(recall),
        "look_alike_precision": _mean(precision),
        "look_alike_none_found": _mean(none_found),
    }


def _counts(backend: Any, groups: list[scenes.Group]) -> dict[str, float | None]:
    asked = [
        (group.scene.picture, describe(prompt=f"How many {group.name}s are there?"))
        for group in groups
    ]
    results = engine.answers(backend, asked)
    pairs = [
        (len(group.shapes), re.search(r"\d+", result.text))
        for group, result in zip(groups, results, strict=True)
    ]
    right = [(true, said is not None and int(said[0]) == true) for true, said in pairs]
    return {
        "count_exact": _mean(is_right for _, is_right in right),
        "count_exact_to_three": _mean(is_right for true, is_right in right if true <= 3),
    }


def _cards(backend: Any, cards: list[scenes.Card]) -> dict[str, float | None]:
    """Of replies, the share that is whole; of values, the share exact to the letter; of keys that
    the card does not have, the share that is null."""
    asked = [(card.picture, extract(constraints.from_keys(list(card.values)))) for card in cards]
    whole, exact, null = [], [], []
    for card, result in zip(cards, engine.answers(backend, asked), strict=True):
        said = result.data if isinstance(result.data, dict) else {}
        whole.append(result.finish_reason == "stop" and not result.error)
        exact += [said.get(field.key) == field.value for field in card.fields]
        null += [key in said and said[key] is None for key in card.missing]
    return {
        "card_whole_replies": _mean(whole),
        "card_values_exact": _mean(exact),
        "card_missing_null": _mean(null),
    }


def _mean(values: Iterable[bool]) -> float | None:
    listed = [float(value) for value in values]
    return round(sum(listed) / len(listed), 4) if listed else None
