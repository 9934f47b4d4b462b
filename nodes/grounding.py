"""Grounding node: finds named things as boxes, points and masks."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from comfy_api.latest import io

from ..qwenvl.camera import FIELD_OF_VIEW
from ..qwenvl.grounding import KINDS, Search, search
from ..qwenvl.query import Method
from ..qwenvl.tasks.act import SCREENS
from ..qwenvl.tasks.boxes_3d import MAX_FIELD_OF_VIEW, MIN_FIELD_OF_VIEW
from . import box_values, host, lists, panels, regions, sockets
from .model import ModelHandle, Question, answer_all, pictures


class Grounding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Grounding",
            display_name="Qwen-VL Grounding",
            description="Finds what you name in each picture of a batch and gives boxes or points "
            "that ComfyUI's crop, draw and SAM nodes take as they are.",
            search_aliases=["detect", "locate", "find object", "bbox", "point", "segment", "sam"],
            panels=panels.answer(height=110) | panels.boxes(),
            is_output_node=True,
            is_input_list=True,
            inputs=[
                *sockets.model_and_images(),
                io.String.Input(
                    "find",
                    default="",
                    multiline=True,
                    tooltip="What to find, in words; several things with commas between: the red "
                    "car, every person without a hat. Each line is asked and counted by itself. "
                    "For actions: the goal, such as: open the settings.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="boxes",
                    tooltip="boxes: a rectangle around each. points: a place on each. action: "
                    "what to do next on the screen that the picture shows, as JSON and a point; "
                    "nothing is done. boxes_3d: boxes in the space before the camera.",
                ),
                io.Int.Input(
                    "max_count",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="At most this many in a picture, of each line of find. 0: all. Models "
                    "tend to lose count above about 40.",
                ),
                sockets.max_new_tokens(16384),
                sockets.unreadable(),
                sockets.hidden_parts(),
                io.Float.Input(
                    "min_score",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Leaves out what the model was less sure of than this. Boxes then have "
                    "a score, the mean probability of the numbers and words that the model wrote "
                    "for them. 0: off.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "screen",
                    options=list(SCREENS),
                    default=SCREENS[0],
                    tooltip="Only for actions. computer: mouse and keyboard. mobile: a "
                    "touchscreen.",
                    **sockets.ADVANCED,
                ),
                sockets.strict(
                    "Holds what the model writes to JSON that can be read, an action to a call of "
                    "the screen's tool (not of Qwen3.5, which writes XML).",
                    "a box where nothing is",
                ),
                sockets.MaskOrBoxes.Input(
                    "inside",
                    optional=True,
                    tooltip="Look only inside here: what a mask shows white, or boxes that were "
                    "found before. Each is shown to the model by itself, cut out and enlarged.",
                ),
                io.Int.Input(
                    "tile_size",
                    default=0,
                    min=0,
                    max=8192,
                    step=64,
                    tooltip="For small things in large pictures: the model is also shown the "
                    "picture's tiles of this many pixels, enlarged and overlapping, each asked "
                    "about by itself. 0: only the picture as a whole.",
                    **sockets.ADVANCED,
                ),
                io.Boolean.Input(
                    "look_again",
                    default=False,
                    tooltip="Shows the model each box once more, cut out with a margin, and takes "
                    "the new box where the model is surer of it. One more question a box.",
                    **sockets.ADVANCED,
                ),
                io.Float.Input(
                    "fov",
                    default=FIELD_OF_VIEW,
                    min=MIN_FIELD_OF_VIEW,
                    max=MAX_FIELD_OF_VIEW,
                    step=1.0,
                    tooltip="Only for boxes_3d: the degrees that the picture's longer side spans, "
                    "by which boxes in space are drawn on it. The model is not told.",
                    **sockets.ADVANCED,
                ),
            ],
            outputs=[
                io.String.Output(
                    "found",
                    tooltip="JSON, one a picture: bbox_2d [x1, y1, x2, y2] or point_2d [x, y] in "
                    "pixels, and label. []: nothing was found. Of an action an object: thought, "
                    "action, arguments, point_2d.",
                    is_output_list=True,
                ),
                *sockets.box_outputs(),
                io.String.Output(
                    "points",
                    tooltip="JSON, one a picture, as SAM nodes read it: a list of x and y in "
                    "pixels, of the points or of the middles of the boxes.",
                    is_output_list=True,
                ),
                io.Mask.Output(
                    "found_mask",
                    display_name="mask",
                    tooltip="White inside the boxes. Empty for points.",
                    is_output_list=True,
                ),
                io.Int.Output(
                    "count",
                    tooltip="How many were found, a picture. -1: no answer that can be read.",
                    is_output_list=True,
                ),
                io.String.Output(
                    "counts",
                    tooltip="JSON, one a picture: how many were found of each line of find; a line "
                    "without an answer that can be read is missing.",
                    is_output_list=True,
                ),
                sockets.Elements.Output(
                    "elements",
                    tooltip="Per picture a list of elements as layout prompts of image generators "
                    "read them: type, bbox in 0-1000, desc.",
                    is_output_list=True,
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: list[ModelHandle],
        images: list[Any],
        find: list[str],
        kind: list[str],
        max_count: list[int],
        max_new_tokens: Any = 0,
        when_unreadable: Any = sockets.STOP,
        mask: Any = None,
        min_score: Any = 0.0,
        screen: Any = SCREENS[0],
        strict: Any = sockets.STRICT[0],
        inside: Any = None,
        tile_size: Any = 0,
        look_again: Any = False,
        fov: Any = FIELD_OF_VIEW,
    ) -> io.NodeOutput:
        asked = lists.mapped(
            _question,
            model,
            images,
            find,
            kind,
            max_count,
            max_new_tokens,
            when_unreadable,
            mask,
            min_score,
            screen,
            strict,
            inside,
            tile_size,
            look_again,
            fov,
        )
        answers = answer_all([question for _, question in asked], draw=True)
        questions = [question for _, question in asked]
        results = [result for found in answers for result in found]
        all_pictures = pictures(questions)
        counted = [
            looked_for.counts(result)
            for (looked_for, _), found in zip(asked, answers, strict=True)
            for result in found
        ]
        bboxes = [box_values.bounding_boxes(found) for found in answers]
        frames = [frame for batch in bboxes for frame in batch]
        pairs = list(zip((question.images for question in questions), answers, strict=True))
        return io.NodeOutput(
            [sockets.found_json(result) for result in results],
            bboxes,
            [box_values.annotated(*pair, host.check_interrupt) for pair in pairs],
            [
                box_values.points_json(result, picture.shape[:2])
                for result, picture in zip(results, all_pictures, strict=True)
            ],
            [box_values.masks(*pair) for pair in pairs],
            [sum(found.values()) if found else -1 for found in counted],
            [json.dumps(found, ensure_ascii=False) for found in counted],
            [
                box_values.elements(frame, picture.shape[:2])
                for frame, picture in zip(frames, all_pictures, strict=True)
            ],
            ui=host.results_ui(results, all_pictures),
        )


def _question(
    model: ModelHandle,
    images: Any,
    find: str,
    kind: str,
    max_count: int,
    max_new_tokens: int,
    when_unreadable: str,
    mask: Any,
    min_score: float,
    screen: str,
    strict: str,
    inside: Any,
    tile_size: int,
    look_again: bool,
    fov: float,
) -> tuple[Search, Question]:
    looked_for = search(
        sockets.words(find),
        sockets.choice("kind", kind, KINDS),
        max_count,
        min_score,
        screen=sockets.choice("screen", screen, SCREENS),
        strict=sockets.choice("strict", strict, sockets.STRICT),
        tile=tile_size,
        look_again=look_again,
        field_of_view=fov,
    )
    return looked_for, Question(
        model,
        looked_for.task,
        images,
        sockets.length(max_new_tokens),
        mask=mask,
        keep_unreadable=when_unreadable != sockets.STOP,
        method_of=_methods(looked_for, images, inside),
    )


def _methods(looked_for: Search, images: Any, inside: Any) -> Callable[[int], Method | None]:
    """How to ask about each picture of ``images``, by its number."""
    if inside is None:
        return lambda number: looked_for.method
    batch = images if images.ndim == 4 else images[None]
    found = regions.regions(inside, len(batch), tuple(batch.shape[1:3]))
    searches = [looked_for.within(own) for own in found]
    return lambda number: searches[number].method
