"""Finds things that are named in words: boxes, points and masks."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..qwenvl.tasks.ground import KINDS, ground
from . import host, sockets
from .model import ModelHandle


class Grounding(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Grounding",
            display_name="Qwen-VL Grounding",
            description="Finds what you name in each picture of a batch and gives boxes or points "
            "that ComfyUI's crop, draw and SAM nodes take as they are.",
            search_aliases=["detect", "locate", "find object", "bbox", "point", "segment", "sam"],
            is_output_node=True,
            inputs=[
                sockets.Model.Input("model", tooltip="From the Qwen-VL Loader."),
                io.Image.Input("images", tooltip="One picture or a batch."),
                io.String.Input(
                    "find",
                    default="",
                    multiline=True,
                    tooltip="What to find, in words; several things with commas between: the red "
                    "car, every person without a hat.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="boxes",
                    tooltip="boxes: a rectangle around each. points: a place on each.",
                ),
                io.Int.Input(
                    "max_count",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="At most this many in a picture. 0: all. Models tend to lose count "
                    "above about 40.",
                ),
                sockets.max_new_tokens(2048, 16384),
                sockets.unreadable(),
            ],
            outputs=[
                io.String.Output(
                    "found",
                    tooltip="JSON, one a picture: bbox_2d [x1, y1, x2, y2] or point_2d [x, y] in "
                    "pixels, and label. []: nothing was found.",
                    is_output_list=True,
                ),
                *sockets.box_outputs(),
                io.String.Output(
                    "points",
                    tooltip="JSON, one a picture, as SAM nodes read it: a list of x and y in "
                    "pixels, of the points or of the middles of the boxes.",
                    is_output_list=True,
                ),
                io.Mask.Output("mask", tooltip="White inside the boxes. Empty for points."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: ModelHandle,
        images: Any,
        find: str,
        kind: str,
        max_count: int,
        max_new_tokens: int = 2048,
        when_unreadable: str = sockets.STOP,
    ) -> io.NodeOutput:
        results = model.answer(
            ground(find, kind, max_count),
            images,
            {"max_new_tokens": max_new_tokens},
            keep_unreadable=when_unreadable != sockets.STOP,
        )
        return io.NodeOutput(
            [sockets.found_json(result) for result in results],
            sockets.bounding_boxes(results),
            sockets.annotated(images, results, host.check_interrupt),
            [sockets.points_json(result, images.shape[-3:-1]) for result in results],
            sockets.masks(images, results),
            ui=host.shown(results, images),
        )
