"""Box selection: filtering, sorting and padding of boxes. Pure functions.

A box is a BOUNDING_BOX dict in whole pixels inside its picture: see ``box_values.frames``.
"""

from __future__ import annotations

import fnmatch
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..qwenvl.errors import BadOption
from ..qwenvl.types import Box, Size
from .box_values import label_of
from .sockets import choice, words

if TYPE_CHECKING:
    from torch import Tensor

    from .box_values import Frame

BoundingBox = Mapping[str, Any]
ENDLESS: Size = (sys.maxsize, sys.maxsize)
"""The size to assume without a picture: nothing is clipped."""
Identity = tuple[int, int, int, int, str]
"""x, y, width, height and label, which identify a box across runs."""


def _score(box: BoundingBox) -> float:
    score = box.get("score")
    return -math.inf if score is None else score


ORDERS: Mapping[str, Callable[[BoundingBox], float]] = {
    "as found": lambda box: 0,
    "left to right": lambda box: box["x"],
    "top to bottom": lambda box: box["y"],
    "largest first": lambda box: -box["width"] * box["height"],
    "best score first": lambda box: -_score(box),
}
"""Sort keys. Sorting is stable: boxes with equal keys keep their order."""

PIXELS, PERCENT = "px", "% of the box"


@dataclass(frozen=True)
class Rule:
    """Which boxes are kept. ``labels``: comma-separated, ``*`` for any text, case-insensitive;
    empty for all. ``max_count``: most boxes of a picture, the first in order; 0 for no limit.
    ``min_size``: pixels of the shorter side. ``padding``: added on every side, in ``unit``."""

    labels: str = ""
    order: str = "as found"
    max_count: int = 0
    min_size: int = 0
    padding: int = 0
    unit: str = PIXELS


@dataclass(frozen=True)
class Selection:
    """The selection in one picture. ``boxes``: those kept, padded. ``filtered_out``: indices of the
    boxes that the rule removed, without those that the user switched off."""

    boxes: list[dict[str, Any]]
    filtered_out: set[int]


def identity(box: BoundingBox) -> Identity:
    return box["x"], box["y"], box["width"], box["height"], label_of(box)


def engine_box(box: BoundingBox) -> Box:
    x, y = box["x"], box["y"]
    return Box(x, y, x + box["width"], y + box["height"], label_of(box), box.get("score"))


def pick(
    frames: Sequence[Frame], rule: Rule, off: str, size: Size, first: int = 0
) -> list[Selection]:
    """One entry for each picture, in order. ``off``: the widget (see ``switched_off``, whose error
    this raises). ``size``: of the pictures, or ``ENDLESS``. ``first``: number of the first one."""
    switched = switched_off(off)
    picked = []
    for number, frame in enumerate(frames, first):
        switched_off_here = switched.get(number, set())
        kept = selected(frame, rule, switched_off_here)
        on = {i for i, box in enumerate(frame) if identity(box) not in switched_off_here}
        boxes = [padded(frame[index], rule, size) for index in kept]
        picked.append(Selection(boxes, on.difference(kept)))
    return picked


def selected(frame: Frame, rule: Rule, off: Collection[Identity] = ()) -> list[int]:
    """Indices in ``frame`` of the boxes to keep, in the rule's order. A box in ``off`` that is not
    in the frame has no effect."""
    names = _patterns(rule.labels)
    kept = [
        index
        for index, box in enumerate(frame)
        if identity(box) not in off
        and min(box["width"], box["height"]) >= rule.min_size
        and (not names or any(name.match(label_of(box).casefold()) for name in names))
    ]
    order = ORDERS[choice("order", rule.order, ORDERS)]
    kept.sort(key=lambda index: order(frame[index]))
    return kept[: rule.max_count or None]


def padded(box: BoundingBox, rule: Rule, size: Size) -> dict[str, Any]:
    """The box enlarged by the rule's padding and clipped to the picture."""
    height, width = size
    share = rule.unit == PERCENT
    extra_x = round(box["width"] * rule.padding / 100) if share else rule.padding
    extra_y = round(box["height"] * rule.padding / 100) if share else rule.padding
    left, top = max(0, box["x"] - extra_x), max(0, box["y"] - extra_y)
    right = min(width, box["x"] + box["width"] + extra_x)
    bottom = min(height, box["y"] + box["height"] + extra_y)
    return {**box, "x": left, "y": top, "width": right - left, "height": bottom - top}


def single(kept: Frame, index: int) -> dict[str, int] | None:
    """The box at ``index`` (negative: from the end), without its label; None if there is none."""
    if not -len(kept) <= index < len(kept):
        return None
    return {name: kept[index][name] for name in ("x", "y", "width", "height")}


def whole_picture(size: Size) -> dict[str, int]:
    """The box that covers the whole picture."""
    return {"x": 0, "y": 0, "width": size[1], "height": size[0]}


def crop(picture: Tensor, box: BoundingBox) -> Tensor:
    """IMAGE ``[1, height, width, C]``: the crop of a picture ``[H, W, C]`` at ``box``."""
    left, top = box["x"], box["y"]
    return picture[None, top : top + box["height"], left : left + box["width"]].clone()


def labels(kept: Frame) -> str:
    """The boxes' labels, comma-separated; boxes without one are skipped."""
    return ", ".join(label_of(box) for box in kept if label_of(box))


def switched_off(text: str) -> dict[int, set[Identity]]:
    """The boxes in the widget ``off``, by the number of their picture, from 0. The widget holds a
    JSON list of ``{"picture", "x", "y", "width", "height", "label"}``. Raises ``BadOption`` for
    other text."""
    found: dict[int, set[Identity]] = {}
    if text.strip() in ("", "None"):  # ComfyUI sends "None" for an empty widget
        return found
    try:
        for box in json.loads(text) or []:
            found.setdefault(box["picture"], set()).add(identity(box))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise BadOption(
            f"off is not a list of boxes as clicking writes it ({text[:80]!r}). Empty it and click "
            "the boxes again."
        ) from error
    return found


def _patterns(labels: str) -> list[re.Pattern[str]]:
    names = (name.strip().casefold() for name in re.split(r"[,\n]", words(labels)))
    # Brackets are literal, not fnmatch's character sets.
    return [re.compile(fnmatch.translate(name.replace("[", "[[]"))) for name in names if name]
