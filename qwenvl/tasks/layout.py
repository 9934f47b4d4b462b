"""Layout: a picture's caption, background, style and elements in their places, as a generator of
pictures could draw it anew."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from .. import constraints, coordinates
from ..errors import BadOption, UnreadableReply
from ..types import Constraint, ReplyContext, Result, Task
from .extract import read_json

MAX_ELEMENTS = 100
PROMPT = (
    "Write the layout of this image as JSON, so that it could be drawn anew. caption: the whole "
    "image in one or two sentences. style: the medium, and the look of the photo (camera, lens) or "
    "of the art. background: what lies behind everything. elements: the things (obj) and the "
    "written words (text) in the image, at most {count}, from the back to the front; bbox_2d is "
    "the bounding box, label a name of one to three words, text the exact words, desc one sentence "
    "about looks and colours. Output only the JSON, valid by this schema:"
)
MEDIA = ("photograph", "illustration", "painting", "3d_render", "graphic_design")
"""What a picture is made as; the first is described by its camera, the others by their art."""

MAX_COORDINATE = 65535


def layout(
    max_elements: int = 20, instructions: str = "", max_coordinate: int = MAX_COORDINATE
) -> Task:
    """The task to write the layout of a picture, with at most so many elements. ``instructions``:
    more on what to write, such as a language. ``max_coordinate``: the most that the model may
    write of a place, in its own coordinate space.

    The result has the ``boxes`` of the elements, from the back to the front. Its ``data`` is a
    dict: ``caption``, ``style`` (``medium``, one of ``MEDIA``, ``look``, ``aesthetics``,
    ``lighting``), ``background`` and ``elements``, one for each box: ``type`` ``obj`` or ``text``,
    ``bbox_2d`` ``[x1, y1, x2, y2]`` in whole pixels of the picture, ``label`` of an object or
    ``text`` of a text, ``desc``. A reply that was cut lacks elements, and has empty texts where it
    did not come to them. Raises ``BadOption``.
    """
    if not 1 <= max_elements <= MAX_ELEMENTS:
        raise BadOption(f"max_elements is {max_elements}; it may be 1 to {MAX_ELEMENTS}.")
    constraint = constraints.from_schema(_schema(max_elements, max_coordinate))
    asked = [PROMPT.format(count=max_elements), constraint.source, instructions.strip()]
    return Task(
        "layout",
        "\n".join(filter(None, asked)),
        partial(_read, constraint=constraint),
        greedy=True,
        max_new_tokens=4096,
        constraint=constraint,
    )


def _schema(max_elements: int, max_coordinate: int) -> dict[str, Any]:
    """Texts are bounded, so that a weak model comes to their end."""
    style = {"medium": {"enum": list(MEDIA)}, "look": _text(160)}
    style |= {"aesthetics": _text(120), "lighting": _text(120)}
    number = {"type": "integer", "minimum": 0, "maximum": max_coordinate}
    place = {"bbox_2d": {"type": "array", "items": number, "minItems": 4, "maxItems": 4}}
    thing = {"type": {"const": "obj"}, **place, "label": _text(60), "desc": _text(400)}
    words = {"type": {"const": "text"}, **place, "text": _text(400), "desc": _text(400)}
    elements = {"anyOf": [_object(thing), _object(words)]}
    return _object(
        {
            "caption": _text(600),
            "style": _object(style),
            "background": _text(400),
            "elements": {"type": "array", "items": elements, "maxItems": max_elements},
        }
    )


def _text(length: int) -> dict[str, Any]:
    return {"type": "string", "maxLength": length}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _read(text: str, context: ReplyContext, constraint: Constraint) -> Result:
    value, notes = read_json(text, context, constraint)
    if value is None and context.cut:
        value = {}
    mapper = coordinates.PixelMapper(context)
    elements, boxes, broken = [], [], 0
    try:
        style = {**_NO_STYLE, **value.get("style", {})}
        for element in value.get("elements", ()):
            if not _is_element(element):
                broken += 1
            elif (box := mapper.box(element["bbox_2d"], _name(element))) is not None:
                elements.append({**element, "bbox_2d": list(coordinates.integer_box(box))})
                boxes.append(box)
    except (AttributeError, TypeError, ValueError) as error:  # neither held to its form nor checked
        raise UnreadableReply(f"It is no layout: {error!r}.", text) from error
    if broken:
        if not (context.cut and boxes):
            raise UnreadableReply("It is no layout: an element lacks its place or words.", text)
        notes = (*notes, f"Left out, without their place or words: {broken} of the elements.")
    if mapper.count and not boxes:
        raise UnreadableReply(mapper.complaint(), text)
    found = {
        "caption": value.get("caption", ""),
        "style": style,
        "background": value.get("background", ""),
        "elements": elements,
    }
    written = json.dumps(found, ensure_ascii=False)
    return Result(written, boxes=tuple(boxes), data=found, notes=(*notes, *mapper.notes()))


def _name(element: dict[str, Any]) -> Any:
    return element.get("text" if element.get("type") == "text" else "label")


def _is_element(element: Any) -> bool:
    """Whether it has the form of one; of a reply that was cut and not held to its form, nothing
    else has told."""
    if not isinstance(element, dict) or element.get("type") not in ("obj", "text"):
        return False
    place = element.get("bbox_2d")
    return (
        all(isinstance(words, str) for words in (_name(element), element.get("desc")))
        and isinstance(place, list)
        and len(place) == 4
        and all(isinstance(number, (int, float)) for number in place)
    )


_NO_STYLE = {"medium": MEDIA[1], "look": "", "aesthetics": "", "lighting": ""}
