"""Layouts with their colours: what ``tasks.layout`` reads, with palettes measured from the
picture, in the forms that generators of pictures take."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .backends.base import Backend
from .errors import BadOption
from .media.palette import palette
from .query import Query, Steps
from .tasks.layout import MAX_COORDINATE, MEDIA, layout
from .types import Result, Task

PICTURE_COLOURS, ELEMENT_COLOURS = 8, 5
"""Ideogram 4 takes up to 16 colours of a picture and 5 of an element."""

Layout = Mapping[str, Any]
"""As ``tasks.layout`` has it in ``data``, with ``width`` and ``height`` of the picture in pixels,
and ``palette``, a list of ``#RRGGBB``, in it and in each element."""


@dataclass(frozen=True)
class LayoutResult(Result):
    """A result whose ``text`` and ``data`` are the layout in the form asked for; ``layout``: the
    layout itself."""

    layout: Layout = field(default_factory=dict)


@dataclass(frozen=True)
class Wanted:
    """Which layout is asked for: at most ``max_elements`` elements, with ``instructions`` on what
    to write, given in one of the ``FORMS``. Raises ``BadOption``."""

    form: str = "ideogram"
    max_elements: int = 20
    instructions: str = ""

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise BadOption(f"There is no form {self.form!r}. Choose one of {', '.join(FORMS)}.")

    @property
    def task(self) -> Task:
        """For a model of any family."""
        return layout(self.max_elements, self.instructions)

    def method(self, backend: Backend, query: Query) -> Steps:
        """How a query of the task is answered: with coordinates that the model's family can mean,
        and with colours. What stands behind the task's own words in the query's is kept."""
        relative = backend.family.coordinates == "relative"
        top = backend.family.box_scale if relative else MAX_COORDINATE
        task = layout(self.max_elements, self.instructions, top)
        more = query.task.prompt.removeprefix(self.task.prompt)
        if more != query.task.prompt:
            task = dataclasses.replace(task, prompt=task.prompt + more)
        (reply,) = yield [dataclasses.replace(query, task=task, method=None)]
        return reply if reply.error else _with_colours(reply, query.picture, self.form)


def _with_colours(reply: Result, picture: Any, form: str) -> LayoutResult:
    height, width = picture.shape[-2:]
    pairs = zip(reply.data["elements"], reply.boxes, strict=True)
    found = {
        "width": width,
        "height": height,
        **reply.data,
        "palette": palette(picture, PICTURE_COLOURS),
        "elements": [
            {**element, "palette": palette(picture, ELEMENT_COLOURS, box)} for element, box in pairs
        ],
    }
    data = FORMS[form](found)
    fields = {part.name: getattr(reply, part.name) for part in dataclasses.fields(Result)}
    fields |= {"data": data, "text": json.dumps(data, ensure_ascii=False)}
    return LayoutResult(**fields, layout=found)


def elements(layout: Layout) -> list[dict[str, Any]]:
    """The elements as layout prompts of image generators read them, with keys in this order:
    ``type``, ``bbox`` ``[y1, x1, y2, x2]`` in 0-1000, ``text`` of texts, ``desc``,
    ``color_palette``."""
    found = []
    for element in layout["elements"]:
        x1, y1, x2, y2 = element["bbox_2d"]
        sides = ((y1, "height"), (x1, "width"), (y2, "height"), (x2, "width"))
        text = {"text": element["text"]} if element["type"] == "text" else {}
        found.append(
            {
                "type": element["type"],
                "bbox": [round(value * 1000 / layout[side]) for value, side in sides],
                **text,
                "desc": element["desc"],
                "color_palette": element["palette"],
            }
        )
    return found


def ideogram(layout: Layout) -> dict[str, Any]:
    """A caption of Ideogram 4, with its keys in the order that the model was trained on: of a
    ``photo`` before ``medium``, of an ``art_style`` behind it."""
    style = layout["style"]
    about = {"aesthetics": style["aesthetics"], "lighting": style["lighting"]}
    if style["medium"] == MEDIA[0]:
        about |= {"photo": style["look"], "medium": style["medium"]}
    else:
        about |= {"medium": style["medium"], "art_style": style["look"]}
    return {
        "high_level_description": layout["caption"],
        "style_description": {**about, "color_palette": layout["palette"]},
        "compositional_deconstruction": {
            "background": layout["background"],
            "elements": elements(layout),
        },
    }


FORMS: dict[str, Callable[[Layout], Mapping[str, Any]]] = {"ideogram": ideogram, "plain": dict}
"""``plain`` is the layout itself, with boxes in pixels."""
