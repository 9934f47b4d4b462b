"""Finds what is named: boxes around it, or points on it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

from .. import coordinates
from ..errors import BadOption, UnreadableReply
from ..replies import read_items, says_none
from ..types import Box, Point, ReplyContext, Result, Task
from ..unicode import well_formed

Kind = Literal["boxes", "points"]
KINDS: tuple[Kind, ...] = ("boxes", "points")

_FORM = {
    "boxes": "Report bbox coordinates in JSON format.",
    "points": "Output the point coordinates in JSON format.",
}
_BETWEEN_NAMES = re.compile(r"[,，、;；\n]+")
# What one would not look up in a list of categories: "the person on the left".
_PHRASE = re.compile(r"(?:the|this|that|these|those) |(?:\S+ ){3}", re.IGNORECASE)


def ground(find: str, kind: str = "boxes", max_count: int = 0) -> Task:
    """A search for ``find``: names with commas between them, or one phrase that describes what is
    meant ("the person on the left").

    ``max_count``: at most so many, the first of the reply; 0 is all. The models cannot count, so
    this is a cut after reading, no part of the question. The result holds ``boxes`` or, for the
    kind ``points``, ``points`` (the middles of boxes where the model gave boxes). Its ``data`` is
    a list of dicts, each with ``bbox_2d`` ``[x1, y1, x2, y2]`` or ``point_2d`` ``[x, y]`` in whole
    pixels of the picture, ``label``, whatever else the model said of it and, where much of a box
    lay outside the picture, ``outside`` (see ``coordinates.Mapper``); its ``text`` is JSON of just
    place and label. Raises ``BadOption``.
    """
    names = _names(find)
    if not names:
        raise BadOption(
            "Nothing to find was named. Write what to look for, such as: cat, red car. Several "
            "things take commas between them."
        )
    if kind not in KINDS:
        raise BadOption(f"There is no kind {kind!r} of place. Choose one of {', '.join(KINDS)}.")
    if max_count < 0:
        raise BadOption(f"max_count is {max_count}; it must be 0 (all) or more.")
    return Task(
        "ground",
        f"{_question(names)} {_FORM[kind]}",
        partial(read, kind=kind, asked=names, max_count=max_count),
        greedy=True,
        max_new_tokens=2048,
    )


def read(
    text: str,
    context: ReplyContext,
    kind: str = "boxes",
    asked: Sequence[str] = (),
    max_count: int = 0,
) -> Result:
    """Reads a reply to ``ground``; ``asked`` are the names, where they are known.

    What the reply leaves without a label gets the only name that was asked for, if it is one.
    Raises ``UnreadableReply``.
    """
    default = asked[0] if len(asked) == 1 else ""
    lost: list[str] = []
    items = read_items(text, "points" if kind == "points" else "boxes", asked, lost)
    mapper = coordinates.Mapper(context, lost)
    found = []
    for item in items:
        values = (kind == "points" and item.point) or item.box or ()
        if _is_nowhere(values, item.label):
            continue
        place = (mapper.point if kind == "points" else mapper.box)(values, item.label or default)
        if place is not None:
            found.append((place, {**item.data, **_entry(place, context), **mapper.data(values)}))
    if mapper.count and not found:
        raise UnreadableReply(mapper.complaint(), text)
    found = found[: max_count or None]
    places = [place for place, _ in found]
    return Result(
        text=json.dumps([_entry(place, context) for place in places], ensure_ascii=False),
        boxes=tuple(place for place in places if isinstance(place, Box)),
        points=tuple(place for place in places if isinstance(place, Point)),
        data=[data for _, data in found],
        notes=mapper.notes(),
    )


def _is_nowhere(values: Sequence[float], label: str) -> bool:
    """Whether a place only fills the form of an answer: "none" at a box without area."""
    flat = len(values) == 4 and (values[0] == values[2] or values[1] == values[3])
    return flat and says_none(label)


def _names(find: str) -> tuple[str, ...]:
    """The names in ``find``, each once, in one line and without quotes: they go between quotes."""
    parts = _BETWEEN_NAMES.split(well_formed(find))
    names = (" ".join(part.split()).strip(" .\"'“”") for part in parts)
    return tuple(dict.fromkeys(name.replace('"', "'") for name in names if name))


def _question(names: Sequence[str]) -> str:
    if len(names) == 1 and _PHRASE.match(names[0]):
        return f"Locate {names[0]} in the image."
    return f'Locate every instance that belongs to the following categories: "{", ".join(names)}".'


def _entry(place: Box | Point, context: ReplyContext) -> dict[str, Any]:
    if isinstance(place, Box):
        return {"bbox_2d": list(coordinates.whole_box(place)), "label": place.label}
    return {
        "point_2d": list(coordinates.whole_point(place, context.image_size)),
        "label": place.label,
    }
