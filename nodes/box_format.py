"""Box Format node: converts BOUNDING_BOX to the box formats of other packs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from . import box_values, formats, sockets


class BoxFormat(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_BoxFormat",
            display_name="Qwen-VL Box Format",
            description="Boxes in the shapes that SAM2, KJNodes, Easy-Use, Florence-2, Impact Pack "
            "and Ideogram nodes read. ComfyUI's own nodes take the boxes as they are.",
            search_aliases=["bbox", "convert boxes", "sam2", "segs", "florence2", "kjnodes"],
            inputs=[
                sockets.BoundingBoxes.Input(
                    "bboxes",
                    tooltip="Boxes of QVL nodes or of any node that gives BOUNDING_BOX.",
                    extra_dict={"forceInput": True},
                ),
                io.Image.Input("images", tooltip="The pictures that the boxes were found in."),
                io.Float.Input(
                    "crop_factor",
                    default=1.5,
                    min=1.0,
                    max=10.0,
                    step=0.1,
                    tooltip="segs only: how many times its box the crop around a segment is.",
                    **sockets.ADVANCED,
                ),
            ],
            outputs=[
                io.Custom(shape.socket).Output(
                    shape.name, tooltip=shape.tooltip, is_output_list=shape.per_picture
                )
                for shape in formats.FORMATS
            ],
        )

    @classmethod
    def execute(cls, bboxes: Any, images: Any, crop_factor: float = 1.5) -> io.NodeOutput:
        count, height, width = images.shape[:3]
        batch = box_values.frames(bboxes, count, (height, width))
        return io.NodeOutput(
            *(shape.convert(batch, (height, width), crop_factor) for shape in formats.FORMATS)
        )
