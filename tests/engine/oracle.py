"""Oracle: a scripted backend that knows the doctor's scenes and answers with their truth, in a
coordinate space of choice."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.doctor.questions import Question, doctor_scene, pixels, questions_about
from qwen_vl_suite.qwenvl.doctor.scenes import Scene
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.fine_tunes import as_tuned, by_name
from qwen_vl_suite.qwenvl.media.image_processor import target_size
from qwen_vl_suite.qwenvl.types import Request

Sides = Callable[[tuple[int, int], tuple[int, int]], tuple[float, float]]

# Width and height of the picture in the coordinates of the replies, by those of the picture and of
# what the model sees of it.
SPACES: dict[str, Sides] = {
    "0-1000": lambda picture, seen: (1000, 1000),
    "0-1024": lambda picture, seen: (1024, 1024),
    "0-1": lambda picture, seen: (1, 1),
    "input_pixels": lambda picture, seen: seen,
    "picture_pixels": lambda picture, seen: picture,
}


def oracle(
    scenes: int,
    space: str = "0-1000",
    family: str = "qwen3_vl",
    replace: Callable[[Question], Any] = lambda question: None,
    on_request: Callable[[], None] = lambda: None,
    checkpoint: str = "",
) -> ScriptedBackend:
    """``space``: of the coordinates in its replies. ``replace(question)`` gives a reply in place of
    the right one, or None. ``on_request`` is called before each reply.
    ``checkpoint``: its name, by which fine-tunes are known."""
    tune = by_name(checkpoint)
    known = {_key(pixels(_scene(number))): _scene(number) for number in range(scenes)}

    def reply(request: Request) -> Any:
        on_request()
        scene = known.get(_key(request.images[0]))
        if scene is None:
            return "A red circle, seen while the speed is measured."
        asked = next(q for q in questions_about(scene, tune) if q.task.prompt == request.prompt)
        other = replace(asked)
        return right_reply(asked, space, _seen(request, family)) if other is None else other

    return ScriptedBackend(reply, family=as_tuned(FAMILIES[family], checkpoint))


@cache
def _scene(number: int) -> Scene:
    return doctor_scene(number)


def _key(image: Any) -> int:
    return hash(image.numpy().tobytes())


def _seen(request: Request, family: str) -> tuple[int, int]:
    """Width and height of what the model sees of the request's picture."""
    factor = FAMILIES[family].patch_factor
    most = request.max_pixels or 16384 * factor**2
    height, width = target_size(*request.images[0].shape[-2:], factor, 4 * factor**2, most)
    return width, height


def right_reply(question: Question, space: str, seen: tuple[int, int]) -> str:
    if question.kind in ("describe", "read"):
        return question.expected.replace(", ", "\n")
    picture = question.scene.picture.size
    sides = SPACES[space](picture, seen)
    found = []
    for shape in question.shapes:
        is_box = question.kind == "boxes"
        scaled = [
            value * sides[k % 2] / picture[k % 2]
            for k, value in enumerate(shape.box if is_box else shape.centre)
        ]
        numbers = [round(value, 4) if sides == (1, 1) else round(value) for value in scaled]
        found.append({"bbox_2d" if is_box else "point_2d": numbers, "label": shape.name})
    return json.dumps(found)
