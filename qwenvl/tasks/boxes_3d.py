"""3-D grounding: finds named things in a picture as boxes in the space before the camera."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from .. import camera, constraints, coordinates
from ..errors import BadOption, UnreadableReply
from ..replies import read_items
from ..replies import scores as scoring
from ..types import Box, Cuboid, ReplyContext, Result, Size, Task
from .ground import is_phrase, names_in

KIND = "boxes_3d"
"""What Grounding calls this kind of question."""

MIN_FIELD_OF_VIEW, MAX_FIELD_OF_VIEW = 10.0, 150.0
_FORMAT = (
    'The output format required is JSON: `[{"bbox_3d":[x_center, y_center, z_center, x_size, '
    'y_size, z_size, roll, pitch, yaw],"label":"category"}]`.'
)


def boxes_3d(
    find: str,
    max_count: int = 0,
    min_score: float = 0,
    scores: bool = False,
    strict: str = "auto",
    field_of_view: float = camera.FIELD_OF_VIEW,
) -> Task:
    """The task to locate ``find`` in space, in the official words. Arguments as of
    ``ground.ground``; ``field_of_view``: degrees that the picture's longer side spans, by which
    boxes are drawn (the model is not told).

    The result's ``cuboids`` are what was found, ``boxes`` the rectangles around those that lie in
    the picture. Its ``data`` is a list of dicts, each with ``bbox_3d``, the nine numbers as the
    model wrote them (see ``camera``), ``corners_2d``, their eight corners in pixels, null where
    they cannot be projected, ``bbox_2d``, the rectangle or null, ``label``, and the other members
    of its object. Raises ``BadOption``.
    """
    names = names_in(find)
    if not MIN_FIELD_OF_VIEW <= field_of_view <= MAX_FIELD_OF_VIEW:
        raise BadOption(
            f"The field of view is {field_of_view:g} degrees; it may be {MIN_FIELD_OF_VIEW:g} to "
            f"{MAX_FIELD_OF_VIEW:g}."
        )
    if max_count < 0:
        raise BadOption(f"max_count is {max_count}; it must be 0 (all) or more.")
    return Task(
        "boxes_3d",
        f"{_question(names)} {_FORMAT}",
        partial(
            read,
            names=names,
            max_count=max_count,
            min_score=scoring.checked(min_score),
            field_of_view=field_of_view,
        ),
        greedy=True,
        max_new_tokens=2048,
        logprobs=scores or min_score > 0,
        constraint=constraints.from_items({"bbox_3d": (9,)}, strict),
    )


def _question(names: Sequence[str]) -> str:
    if is_phrase(names):
        return f"Locate {names[0]} in this image and provide its 3D bounding box."
    listed = ", ".join(names)
    return f"Find all {listed} in this image. For each of them, provide its 3D bounding box."


def read(
    text: str,
    context: ReplyContext,
    names: Sequence[str] = (),
    max_count: int = 0,
    min_score: float = 0,
    field_of_view: float = camera.FIELD_OF_VIEW,
) -> Result:
    """Parses a reply to ``boxes_3d``. Raises ``UnreadableReply``."""
    default = names[0] if len(names) == 1 else ""
    unusable: list[str] = []
    items = read_items(text, "boxes_3d", names, unusable)
    lens = camera.camera_of(context.image_size, field_of_view)
    written = [(item.box_3d or (), item.label) for item in items]
    found = []
    for item, (numbers, label), score in zip(
        items, written, scoring.scores(text, written, context.tokens), strict=True
    ):
        if min(numbers[3:6]) <= 0:
            unusable.append(label)
            continue
        cuboid = _cuboid(numbers, label or default, score, lens, context.image_size)
        found.append((cuboid, {**item.other_data, **_entry(cuboid)}))
    if unusable and not found:
        raise UnreadableReply(f"{_unusable_note(unusable)} A box needs nine numbers.", text)
    kept = [pair for pair in found if scoring.is_kept(pair[0].score, min_score)]
    kept = kept[: max_count or None]
    cuboids = tuple(cuboid for cuboid, _ in kept)
    return Result(
        json.dumps([_entry(cuboid) for cuboid in cuboids], ensure_ascii=False),
        boxes=tuple(cuboid.box for cuboid in cuboids if cuboid.box),
        cuboids=cuboids,
        data=[data for _, data in kept],
        notes=(
            *([_unusable_note(unusable)] if unusable else []),
            *_hidden_note([cuboid for cuboid in cuboids if not cuboid.box]),
            *scoring.unscored_note([cuboid.score for cuboid in cuboids], min_score),
        ),
    )


def _cuboid(
    numbers: Sequence[float], label: str, score: float | None, lens: camera.Camera, size: Size
) -> Cuboid:
    corners = camera.projected(numbers, lens)
    return Cuboid(tuple(numbers), label, corners, _around(corners, label, score, size), score)


def _around(
    corners: Sequence[camera.Corner], label: str, score: float | None, size: Size
) -> Box | None:
    """The rectangle around the corners, as far as it lies in the picture."""
    if not corners:
        return None
    height, width = size
    xs, ys = [x for x, _ in corners], [y for _, y in corners]
    x1, x2 = max(0.0, min(xs)), min(float(width), max(xs))
    y1, y2 = max(0.0, min(ys)), min(float(height), max(ys))
    return Box(x1, y1, x2, y2, label, score) if x1 < x2 and y1 < y2 else None


def _entry(cuboid: Cuboid) -> dict[str, Any]:
    corners = [[round(x, 1), round(y, 1)] for x, y in cuboid.corners]
    box = list(coordinates.integer_box(cuboid.box)) if cuboid.box else None
    return {
        "bbox_3d": list(cuboid.numbers),
        "label": cuboid.label,
        "corners_2d": corners or None,
        "bbox_2d": box,
        **scoring.entry(cuboid.score),
    }


def _unusable_note(labels: Sequence[str]) -> str:
    named = ", ".join(label[:40] or "one" for label in labels[:5])
    return f"Left out, as it is no box in space with sizes above 0: {named}."


def _hidden_note(hidden: Sequence[Cuboid]) -> tuple[str, ...]:
    if not hidden:
        return ()
    named = ", ".join(cuboid.label[:40] or "one" for cuboid in hidden[:5])
    return (
        f"{len(hidden)} boxes cannot be drawn, as they do not lie in front of the camera and in "
        f"the picture: {named}. Another field of view may fit.",
    )
