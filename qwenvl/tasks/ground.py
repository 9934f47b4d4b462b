"""Grounding: finds named things in a picture, as bounding boxes or points."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

from .. import constraints, coordinates
from ..errors import BadOption, UnreadableReply
from ..replies import read_items, says_none
from ..replies import scores as scoring
from ..types import Box, Point, ReplyContext, Result, Task
from ..unicode import well_formed

Kind = Literal["boxes", "points"]
KINDS: tuple[Kind, ...] = ("boxes", "points")

_FORMAT = {
    "boxes": "Report bbox coordinates in JSON format.",
    "points": "Output the point coordinates in JSON format.",
}
# By key; where points are asked for, the models give boxes at times.
_NUMBERS: Mapping[str, Mapping[str, Sequence[int]]] = {
    "boxes": {"bbox_2d": (4,)},
    "points": {"point_2d": (2,), "bbox_2d": (4,)},
}
_NAME_SEPARATOR = re.compile(r"[,，、;；\n]+")
# Phrases, which are not names of categories: "the person on the left".
_PHRASE = re.compile(r"(?:the|this|that|these|those) |(?:\S+ ){3}", re.IGNORECASE)


def ground(
    find: str,
    kind: str = "boxes",
    max_count: int = 0,
    min_score: float = 0,
    scores: bool = False,
    strict: str = "auto",
) -> Task:
    """The task to locate ``find``: names separated by commas, or one referring expression ("the
    person on the left").

    ``max_count``: keep the first so many of the reply; 0 keeps all. The models cannot count, so
    this is not part of the prompt. ``scores``: compute them (see ``replies.scores``);
    ``min_score``, 0 to 1, computes them too, and keeps what has that score or more, or none at
    all, before the first are counted. The result holds ``boxes`` or, for the kind ``points``,
    ``points`` (the centres of boxes if the model gave boxes). Its ``data`` is a list of dicts, each
    with ``bbox_2d`` ``[x1, y1, x2, y2]`` or ``point_2d`` ``[x, y]`` in whole pixels of the picture,
    ``label``, the other members of its object and, if much of a box lay outside the picture,
    ``outside`` (see ``coordinates.PixelMapper``); its ``text`` is JSON of coordinates, label and
    score alone. ``strict``: whether replies are held to JSON, see ``constraints.from_items``.
    Raises ``BadOption``.
    """
    names = names_in(find)
    if kind not in KINDS:
        raise BadOption(f"There is no kind {kind!r} of place. Choose one of {', '.join(KINDS)}.")
    if max_count < 0:
        raise BadOption(f"max_count is {max_count}; it must be 0 (all) or more.")
    return Task(
        "ground",
        f"{_question(names)} {_FORMAT[kind]}",
        partial(
            read,
            kind=kind,
            names=names,
            max_count=max_count,
            min_score=scoring.checked(min_score),
        ),
        greedy=True,
        max_new_tokens=2048,
        logprobs=scores or min_score > 0,
        constraint=constraints.from_items(_NUMBERS[kind], strict),
    )


def read(
    text: str,
    context: ReplyContext,
    kind: str = "boxes",
    names: Sequence[str] = (),
    max_count: int = 0,
    min_score: float = 0,
) -> Result:
    """Parses a reply to ``ground``. ``names``: what was looked for, if known; a single name is the
    label of items without one. Raises ``UnreadableReply``.
    """
    default = names[0] if len(names) == 1 else ""
    unusable: list[str] = []
    items = read_items(text, "points" if kind == "points" else "boxes", names, unusable)
    mapper = coordinates.PixelMapper(context, unusable)
    written = [((kind == "points" and item.point) or item.box or (), item.label) for item in items]
    found = []
    for item, (values, label), score in zip(
        items, written, scoring.scores(text, written, context.tokens), strict=True
    ):
        if _is_placeholder(values, label):
            continue
        to_pixels = mapper.point if kind == "points" else mapper.box
        mapped = to_pixels(values, label or default, score)
        if mapped is not None:
            found.append((mapped, {**item.data, **_entry(mapped, context), **mapper.data(values)}))
    if mapper.count and not found:
        raise UnreadableReply(mapper.complaint(), text)
    kept = [pair for pair in found if scoring.is_kept(pair[0].score, min_score)]
    kept = kept[: max_count or None]
    shapes = [mapped for mapped, _ in kept]
    return Result(
        text=json.dumps([_entry(shape, context) for shape in shapes], ensure_ascii=False),
        boxes=tuple(shape for shape in shapes if isinstance(shape, Box)),
        points=tuple(shape for shape in shapes if isinstance(shape, Point)),
        data=[data for _, data in kept],
        notes=(*mapper.notes(), *scoring.unscored_note([s.score for s in shapes], min_score)),
    )


def _is_placeholder(values: Sequence[float], label: str) -> bool:
    """Whether an item only fills in the form: "none" at a box without area."""
    flat = len(values) == 4 and (values[0] == values[2] or values[1] == values[3])
    return flat and says_none(label)


def names_in(find: str) -> tuple[str, ...]:
    """The names in ``find``, each once, in one line and without double quotes, which the prompt
    puts around them. Raises ``BadOption`` where there is none."""
    parts = _NAME_SEPARATOR.split(well_formed(find))
    names = (" ".join(part.split()).strip(" .\"'“”") for part in parts)
    found = tuple(dict.fromkeys(name.replace('"', "'") for name in names if name))
    if not found:
        raise BadOption(
            "Nothing to find was named. Write what to look for, such as: cat, red car. Several "
            "things take commas between them."
        )
    return found


def is_phrase(names: Sequence[str]) -> bool:
    """Whether they are one referring expression rather than names of categories."""
    return len(names) == 1 and _PHRASE.match(names[0]) is not None


def _question(names: Sequence[str]) -> str:
    if is_phrase(names):
        return f"Locate {names[0]} in the image."
    return f'Locate every instance that belongs to the following categories: "{", ".join(names)}".'


def _entry(shape: Box | Point, context: ReplyContext) -> dict[str, Any]:
    if isinstance(shape, Box):
        place = {"bbox_2d": list(coordinates.integer_box(shape))}
    else:
        place = {"point_2d": list(coordinates.integer_point(shape, context.image_size))}
    return {**place, "label": shape.label, **scoring.entry(shape.score)}
