"""Pick Boxes node: selects boxes by clicking, label, size, order and number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ..qwenvl.errors import BadOption
from ..qwenvl.types import Box, Result, Size
from . import box_values, cutting, host, lists, panels, picking, sockets

STOP, WHOLE = "stop", "whole picture"
_NODE = "QVL_PickBoxes"
_BOX = 1  # number of the output box
_LOOSEN = "Loosen the filters, switch a box on, or set when_empty to whole picture."


class PickBoxes(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id=_NODE,
            display_name="Qwen-VL Pick Boxes",
            description="Keeps some of the boxes that were found: click them on or off in the "
            "picture, here or in the node that found them, or choose by label, size and order.",
            search_aliases=["filter boxes", "select bbox", "bbox to crop", "choose box", "pick"],
            panels=panels.box_selection("off"),
            is_output_node=True,
            is_input_list=True,
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
                io.Int.Input(
                    "crop_padding",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="How far a crop reaches beyond its box on every side, in padding_unit; "
                    "boxes and mask stay as they are.",
                    **sockets.ADVANCED,
                ),
                io.Int.Input(
                    "crop_width",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Width of every crop in pixels. 0: its own, or what goes with "
                    "crop_height. With both, all crops have one size and can be one batch.",
                    **sockets.ADVANCED,
                ),
                io.Int.Input(
                    "crop_height",
                    default=0,
                    min=0,
                    max=8192,
                    tooltip="Height of every crop in pixels. 0: its own, or what goes with "
                    "crop_width.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "crop_fit",
                    options=list(cutting.FITS),
                    default=cutting.SURROUNDINGS,
                    tooltip="How a crop gets the shape of crop_width and crop_height. "
                    "surroundings: more of the picture around the box. bars: black bars.",
                    **sockets.ADVANCED,
                ),
            ],
            outputs=[
                sockets.BoundingBoxes.Output(
                    "bboxes",
                    tooltip="Per picture a list of the kept boxes, in order.",
                    is_output_list=True,
                ),
                sockets.BoundingBoxes.Output(
                    "box",
                    tooltip="One box a picture, as Crop Image takes it: x, y, width, height. Of a "
                    "batch of several pictures, take crops.",
                    is_output_list=True,
                ),
                io.Mask.Output(
                    "mask",
                    tooltip="White inside the kept boxes. Needs images.",
                    is_output_list=True,
                ),
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
                    "sizes may differ. Needs images.",
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
        bboxes: list[Any],
        labels: list[str],
        order: list[str],
        max_count: list[int],
        index: list[int],
        padding: list[int],
        images: Any = None,
        padding_unit: Any = picking.PIXELS,
        min_size: Any = 0,
        when_empty: Any = STOP,
        off: Any = "",
        crop_padding: Any = 0,
        crop_width: Any = 0,
        crop_height: Any = 0,
        crop_fit: Any = cutting.SURROUNDINGS,
    ) -> io.NodeOutput:
        rules = lists.mapped(
            picking.Rule, labels, order, max_count, min_size, padding, padding_unit
        )
        cuts = lists.mapped(_cut, crop_padding, padding_unit, crop_width, crop_height, crop_fit)
        calls: list[_Call] = []

        def pick(*given: Any) -> None:
            calls.append(_Call.of(sum(len(call.kept) for call in calls), *given))

        lists.mapped(pick, bboxes, images, rules, cuts, index, when_empty, off)
        kept = [boxes for call in calls for boxes in call.kept]
        has_images = images is not None and all(call.images is not None for call in calls)
        return io.NodeOutput(
            [call.kept for call in calls],
            [box for call in calls for box in call.singles()],
            [call.mask() for call in calls] if has_images else _no_images("mask"),
            [picking.labels(boxes) for boxes in kept],
            [len(boxes) for boxes in kept],
            *(_crops(calls) if has_images else [_no_images("crops")] * 2),
            ui=host.picked_boxes_ui(
                [_engine_boxes(frame) for call in calls for frame in call.frames],
                [item.filtered_out for call in calls for item in call.picked],
                [one for call in calls for one in call.images] if has_images else None,
            ),
        )


@dataclass(frozen=True)
class _Call:
    """The boxes kept for one IMAGE, or without one. ``first``: the number of its first picture
    among those of all calls."""

    frames: Sequence[box_values.Frame]
    picked: Sequence[picking.Selection]
    images: Any
    size: Size
    cut: cutting.Cut
    first: int
    index: int
    when_empty: str

    @classmethod
    def of(
        cls,
        first: int,
        bboxes: Any,
        images: Any,
        rule: picking.Rule,
        cut: cutting.Cut,
        index: int,
        when_empty: str,
        off: str,
    ) -> _Call:
        if images is not None and images.ndim == 3:  # one picture, without a batch
            images = images[None]
        if images is None:
            count, size = len(box_values.batch_of(bboxes)), picking.ENDLESS
        else:
            count, size = images.shape[0], tuple(images.shape[-3:-1])
        frames = box_values.frames(bboxes, count, size)
        picked = picking.pick(frames, rule, off, size, first)
        return cls(frames, picked, images, size, cut, first, index, when_empty)

    @property
    def kept(self) -> list[list[dict[str, Any]]]:
        """The kept boxes of each picture."""
        return [item.boxes for item in self.picked]

    def singles(self) -> list[Any]:
        """The ``box`` output of each picture, or a blocker for the nodes connected to it."""
        found = [self._single(number, boxes) for number, boxes in enumerate(self.kept, self.first)]
        if len(found) == 1:
            return found
        return [_OneOfBatch(box) if isinstance(box, dict) else box for box in found]

    def _single(self, number: int, kept: box_values.Frame) -> Any:
        if box := picking.single(kept, self.index):
            return box
        if self.when_empty == WHOLE and self.images is not None:
            return picking.whole_picture(self.size)
        cure = "Connect images, so that the whole picture is known."
        return host.execution_blocker(
            f"Picture {number + 1} has no box with index {self.index}: {len(kept)} were kept. "
            f"{cure if self.when_empty == WHOLE else _LOOSEN}"
        )

    def mask(self) -> Any:
        boxes = [Result("", boxes=_engine_boxes(frame)) for frame in self.kept]
        return box_values.masks(self.images, boxes)

    def crops(self) -> Iterator[tuple[Any, str]]:
        """A crop and its label for each kept box."""
        instead = [picking.whole_picture(self.size)] if self.when_empty == WHOLE else []
        for picture, boxes in zip(self.images, self.kept, strict=True):
            for box in boxes or instead:
                yield cutting.crop(picture, box, self.cut), box_values.label_of(box)


def _cut(padding: int, unit: str, width: int, height: int, fit: str) -> cutting.Cut:
    return cutting.Cut(padding, unit, width, height, sockets.choice("crop_fit", fit, cutting.FITS))


def _crops(calls: Sequence[_Call]) -> tuple[Any, Any]:
    """The outputs ``crops`` and ``crop_labels``, or blockers for the nodes connected to them."""
    pairs = [pair for call in calls for pair in call.crops()]
    if not pairs:
        stop = host.execution_blocker(f"No box was kept, so there is no crop. {_LOOSEN}")
        return stop, stop
    return [crop for crop, _ in pairs], [label for _, label in pairs]


def _no_images(output: str) -> Any:
    return host.execution_blocker(
        f"The output {output} of Qwen-VL Pick Boxes needs images connected."
    )


def _engine_boxes(boxes: box_values.Frame) -> tuple[Box, ...]:
    return tuple(picking.engine_box(box) for box in boxes)


class _OneOfBatch(dict[str, int]):
    """The ``box`` of one picture of a batch. A node that takes it together with the whole batch, as
    core's crop does, is called with all pictures for each box and would make B times B crops,
    nearly all with another picture's box; reading this box there raises an error instead."""

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
