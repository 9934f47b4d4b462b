"""Keeps some of the boxes that were found: by clicking, by label, size, order and number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..qwenvl.errors import BadOption
from ..qwenvl.types import Box, Result, Size
from . import host, picking, sockets

STOP, WHOLE = "stop", "whole picture"
_NODE = "QVL_PickBoxes"
_BOX = 1  # number of the output box


class PickBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id=_NODE,
            display_name="Qwen-VL Pick Boxes",
            description="Keeps some of the boxes that were found: click them on or off in the "
            "picture, here or in the node that found them, or choose by label, size and order.",
            search_aliases=["filter boxes", "select bbox", "bbox to crop", "choose box", "pick"],
            is_output_node=True,
            inputs=[
                sockets.BoundingBoxes.Input(
                    "bboxes",
                    tooltip="Boxes of Qwen-VL Grounding or OCR, or of any node that gives "
                    "BOUNDING_BOX.",
                    extra_dict={"forceInput": True},
                ),
                io.String.Input(
                    "labels",
                    default="",
                    tooltip="Keep only these labels, with commas between; * stands for any text: "
                    "cat, red *. Empty: all.",
                ),
                io.Combo.Input(
                    "order",
                    options=list(picking.ORDERS),
                    default="as found",
                    tooltip="Which box comes first. Left and top mean a box's own left and top "
                    "edge; boxes without a score come last in best score first.",
                ),
                io.Int.Input(
                    "max_count",
                    default=0,
                    min=0,
                    max=1000,
                    tooltip="Keep at most this many in a picture, the first in order. 0: all.",
                ),
                io.Int.Input(
                    "index",
                    default=0,
                    min=-1000,
                    max=1000,
                    tooltip="Which kept box goes out as box: 0 is the first in order, -1 the last.",
                ),
                io.Int.Input(
                    "padding",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="How far each kept box is enlarged on every side.",
                ),
                io.Image.Input(
                    "images",
                    optional=True,
                    tooltip="The pictures that the boxes were found in: for the mask, for clicking "
                    "in the picture, and so that padding ends at its edges.",
                ),
                io.Combo.Input(
                    "padding_unit",
                    options=[picking.PIXELS, picking.PERCENT],
                    default=picking.PIXELS,
                    tooltip="px: pixels. % of the box: of its own width and height.",
                    **sockets.ADVANCED,
                ),
                io.Int.Input(
                    "min_size",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Leave out boxes whose shorter side has fewer pixels than this.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "when_empty",
                    options=[STOP, WHOLE],
                    default=STOP,
                    tooltip="When no kept box has that index. stop: nodes on the box output stop "
                    "with an error, others go on. whole picture: box is the whole picture, and so "
                    "is the crop of a picture without kept boxes.",
                    **sockets.ADVANCED,
                ),
                io.String.Input(
                    "off",
                    default="",
                    socketless=True,
                    tooltip="Boxes that were switched off by clicking, as JSON. Only a box with "
                    "the same place and label is left out.",
                    optional=True,
                    extra_dict={"advanced": True, "hidden": True},
                ),
            ],
            outputs=[
                sockets.BoundingBoxes.Output(
                    "bboxes", tooltip="Per picture a list of the kept boxes, in order."
                ),
                sockets.BoundingBoxes.Output(
                    "box",
                    tooltip="One box a picture, as Crop Image takes it: x, y, width, height. Of a "
                    "batch of several pictures, take crops.",
                    is_output_list=True,
                ),
                io.Mask.Output("mask", tooltip="White inside the kept boxes. Needs images."),
                io.String.Output(
                    "kept_labels",
                    display_name="labels",
                    tooltip="Labels of the kept boxes, with commas between, one text a picture.",
                    is_output_list=True,
                ),
                io.Int.Output(
                    "count", tooltip="How many boxes were kept, a picture.", is_output_list=True
                ),
                io.Image.Output(
                    "crops",
                    tooltip="What is inside each kept box, of all pictures in order: a list, since "
                    "sizes differ. Needs images.",
                    is_output_list=True,
                ),
                io.String.Output(
                    "crop_labels", tooltip="The label of each crop.", is_output_list=True
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        bboxes: Any,
        labels: str,
        order: str,
        max_count: int,
        index: int,
        padding: int,
        images: Any = None,
        padding_unit: str = picking.PIXELS,
        min_size: int = 0,
        when_empty: str = STOP,
        off: str = "",
    ) -> io.NodeOutput:
        count, size = _extent(bboxes, images)
        frames = sockets.frames(bboxes, count, size)
        rule = picking.Rule(labels, order, max_count, min_size, padding, padding_unit)
        first = host.call_index() * count
        picked = picking.pick(frames, rule, off, size, first)
        kept = [item.boxes for item in picked]
        return io.NodeOutput(
            kept,
            _singles(kept, index, when_empty, size, first),
            _mask(kept, images),
            [picking.labels(boxes) for boxes in kept],
            [len(boxes) for boxes in kept],
            *_crops(kept, images, when_empty),
            ui=host.picked(
                [_engine_boxes(frame) for frame in frames],
                [item.left_out for item in picked],
                images,
            ),
        )


def _extent(bboxes: Any, images: Any) -> tuple[int, Size]:
    """How many pictures there are, and their size as far as it is known."""
    if images is not None:
        return images.shape[0], tuple(images.shape[-3:-1])
    one_list = isinstance(bboxes, Mapping) or not bboxes or isinstance(bboxes[0], Mapping)
    return 1 if one_list else len(bboxes), picking.ENDLESS


class _OneOfBatch(dict[str, int]):
    """The ``box`` of one picture of a batch. A node that takes it beside the whole batch, as core's
    crop does, is called with all pictures for each box and would give B times B crops, nearly all
    at another picture's box; here it stops when it reads the box."""

    def get(self, name: str, default: Any = None) -> Any:
        _refuse_whole_batch()
        return super().get(name, default)

    def __getitem__(self, name: str) -> int:
        _refuse_whole_batch()
        return super().__getitem__(name)


def _refuse_whole_batch() -> None:
    if host.pairs_with_whole_batch(_NODE, _BOX):
        raise BadOption(
            "The output box of Qwen-VL Pick Boxes is one box a picture, but this node takes the "
            "whole batch for each of them and would cut every picture at every box. Use the output "
            "crops of Qwen-VL Pick Boxes, which has one crop a box; or put Rebatch Images with "
            "batch size 1 before this node's pictures."
        )


def _singles(
    kept: Sequence[sockets.Frame], index: int, when_empty: str, size: Size, first: int
) -> list[Any]:
    """The ``box`` output. ``first``: the number of the first picture."""
    found = [_single(at, boxes, index, when_empty, size) for at, boxes in enumerate(kept, first)]
    if len(found) == 1:
        return found
    return [_OneOfBatch(box) if isinstance(box, dict) else box for box in found]


def _single(number: int, kept: sockets.Frame, index: int, when_empty: str, size: Size) -> Any:
    """The ``box`` of one picture, or what stops the nodes that would take it."""
    if box := picking.single(kept, index):
        return box
    if when_empty == WHOLE and size != picking.ENDLESS:
        return {"x": 0, "y": 0, "width": size[1], "height": size[0]}
    cure = (
        "Connect images, so that the whole picture is known."
        if when_empty == WHOLE
        else "Loosen the filters, switch a box on, or set when_empty to whole picture."
    )
    return host.blocked(
        f"Picture {number + 1} has no box with index {index}: {len(kept)} were kept. {cure}"
    )


def _mask(kept: Sequence[sockets.Frame], images: Any) -> Any:
    if images is None:
        return host.blocked("The mask of Qwen-VL Pick Boxes needs its images input connected.")
    return sockets.masks(images, [Result("", boxes=_engine_boxes(boxes)) for boxes in kept])


def _crops(kept: Sequence[sockets.Frame], images: Any, when_empty: str) -> tuple[Any, Any]:
    """The outputs ``crops`` and ``crop_labels``, or what stops the nodes that would take them."""
    if images is None:
        return _no_crops("The crops of Qwen-VL Pick Boxes need its images input connected.")
    height, width = images.shape[-3:-1]
    whole = {"x": 0, "y": 0, "width": width, "height": height}
    instead = [whole] if when_empty == WHOLE else []
    pairs = [
        (picture, box)
        for picture, boxes in zip(images, kept, strict=True)
        for box in boxes or instead
    ]
    if not pairs:
        return _no_crops(
            "No box was kept, so there is no crop. Loosen the filters, switch a box on, or set "
            "when_empty to whole picture."
        )
    return [picking.crop(*pair) for pair in pairs], [picking.label(box) for _, box in pairs]


def _no_crops(why: str) -> tuple[Any, Any]:
    return host.blocked(why), host.blocked(why)


def _engine_boxes(boxes: sockets.Frame) -> tuple[Box, ...]:
    return tuple(picking.engine_box(box) for box in boxes)
