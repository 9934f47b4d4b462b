"""Socket types, shared inputs and outputs, and conversion of results to them. Pure functions."""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from comfy_api.latest import io

from ..qwenvl import coordinates
from ..qwenvl.constraints import STRICT
from ..qwenvl.errors import BadOption
from ..qwenvl.media import draw, images
from ..qwenvl.media.pixel_bounds import PixelBounds
from ..qwenvl.types import THINKING_TOKENS, Box, Result, Size
from ..qwenvl.unicode import well_formed
from .panels import ERRORS, Panels, declare

Model = io.Custom("QWEN_VL")
# By name rather than ``io.BoundingBox``, which older ComfyUI lacks and which would show a widget.
BoundingBoxes = io.Custom("BOUNDING_BOX")
# Likewise: older ComfyUI has no ``io.Array``, nor a node that takes one.
Elements = io.Custom("ARRAY")
# Both are taken, as ``io.MultiType`` would say it in newer ComfyUI.
MaskOrBoxes = io.Custom("MASK,BOUNDING_BOX")

ADVANCED: Mapping[str, Any] = {"optional": True, "extra_dict": {"advanced": True}}
"""Arguments of an advanced, optional input, in a form that every ComfyUI with V3 accepts."""

Frame = Sequence[Mapping[str, Any]]
"""The BOUNDING_BOX dicts of one picture."""


def schema(panels: Panels = ERRORS, **fields: Any) -> io.Schema:
    """An ``io.Schema`` in the pack's category, without the fields that this ComfyUI does not know
    yet. ``panels``: what the page shows inside the node."""
    declare(panels, fields["inputs"])
    known = {field.name for field in dataclasses.fields(io.Schema)}
    fields = {"category": "Qwen-VL", **fields}
    return io.Schema(**{name: value for name, value in fields.items() if name in known})


def max_new_tokens(top: int) -> io.Int.Input:
    """The max_new_tokens widget of nodes with fixed sampling."""
    return io.Int.Input(
        "max_new_tokens",
        default=0,
        min=0,
        max=top,
        tooltip="The longest a reply may get; one that is cut off is reported. 0: as long as what "
        "is asked for may need.",
        **ADVANCED,
    )


def length(max_new_tokens: int) -> dict[str, int]:
    """The ``Sampling`` field that the widget sets: none for 0, which keeps the task's default."""
    return {"max_new_tokens": max_new_tokens} if max_new_tokens else {}


STOP = "stop"


def model_input() -> io.Input:
    """The model input of every node that asks a model."""
    return Model.Input(
        "model", tooltip="From the Qwen-VL Loader, or another node that chooses a model."
    )


def model_and_images(one: str = "picture", done: str = "answered") -> list[Any]:
    """The first inputs of every node that shows pictures to a model."""
    return [
        model_input(),
        io.Image.Input(
            "images",
            tooltip=f"One {one}, a batch, or a list of any sizes; all are {done} in one run.",
        ),
    ]


def model_output(tooltip: str = "To the Qwen-VL nodes.") -> io.Output:
    """The output of every node that chooses a model."""
    return Model.Output("model", tooltip=tooltip)


def pixel_bounds(
    shown: str = "pictures, and frames of videos,", most: str = "the model's own bound"
) -> list[io.Int.Input]:
    """The min_pixels and max_pixels widgets. ``shown``: what they bound; ``most``: what bounds it
    where max_pixels is 0."""
    options: dict[str, Any] = {"default": 0, "min": 0, "max": 1 << 25, "step": 1024, **ADVANCED}
    return [
        io.Int.Input(
            "min_pixels",
            tooltip=f"Smaller {shown} are enlarged to this many pixels (width times height) "
            "before the model sees them. 0: the model's own bound.",
            **options,
        ),
        io.Int.Input(
            "max_pixels",
            tooltip=f"Larger {shown} are shrunk to this many pixels (width times height): less "
            f"memory and time, less detail. 0: {most}.",
            **options,
        ),
    ]


def bounds(min_pixels: int, max_pixels: int) -> PixelBounds:
    """What the min_pixels and max_pixels widgets set: None for 0, the model's own bound."""
    return min_pixels or None, max_pixels or None


def shrink_to_fit() -> io.Boolean.Input:
    """The shrink_to_fit widget."""
    return io.Boolean.Input(
        "shrink_to_fit",
        default=False,
        tooltip="When memory runs out even for a single picture, show it to the model with half "
        "the pixels, and half again, instead of stopping.",
        **ADVANCED,
    )


def complete(one: str = "picture") -> Any:
    """Whether an answer is whole."""
    return io.Boolean.Output(
        "complete",
        tooltip=f"Per {one}: false where the answer was cut off, so that some of it is missing, "
        "or could not be read.",
        is_output_list=True,
    )


def strict(holds: str, invented: str) -> io.Combo.Input:
    """The strict widget: whether replies are held to JSON. ``holds``: the sentence that says which
    are; ``invented``: what a weak model may write that is not in the picture."""
    return io.Combo.Input(
        "strict",
        options=list(STRICT),
        default=STRICT[0],
        tooltip=f"{holds} auto: from where it begins its JSON, so that it can say in words that "
        f"nothing is there. on: from the first word, so that a weak model may write {invented}. "
        "off: free.",
        **ADVANCED,
    )


def unreadable(kept: str = "the raw reply and no boxes") -> io.Combo.Input:
    """The when_unreadable widget. ``kept``: what a picture has whose reply is unreadable."""
    return unanswered(
        "When a reply is not in the form asked for: stop with an error that names the "
        f"picture, or keep going with {kept} for it."
    )


def unanswered(tooltip: str) -> io.Combo.Input:
    """The when_unreadable widget, in a node's own words of what may go wrong."""
    return io.Combo.Input(
        "when_unreadable",
        options=[STOP, "keep going"],
        default=STOP,
        tooltip=tooltip,
        **ADVANCED,
    )


THINKING = {"model default": None, "on": True, "off": False}


def thinking() -> io.Combo.Input:
    """The thinking widget; ``THINKING`` has what its words mean."""
    return io.Combo.Input(
        "thinking",
        options=list(THINKING),
        default="model default",
        tooltip="Whether a model that has the choice (Qwen3.5 and newer) thinks first.",
        **ADVANCED,
    )


def max_thinking_tokens() -> io.Int.Input:
    """The max_thinking_tokens widget."""
    return io.Int.Input(
        "max_thinking_tokens",
        default=THINKING_TOKENS,
        min=0,
        max=40960,
        tooltip="The longest a thought may get before the model must answer. Only for "
        "models that think.",
        **ADVANCED,
    )


def reasoning_effort() -> io.String.Input:
    """The reasoning_effort widget: a word of the model's own."""
    return io.String.Input(
        "reasoning_effort",
        default="",
        tooltip="How much a model thinks that has such a setting (Qwen3.8), in its own word for "
        "it, such as low or high; a word that it does not know is an error that lists those it "
        "does. Empty: its default.",
        **ADVANCED,
    )


def seed(tooltip: str) -> io.Int.Input:
    """The seed widget. Not to be put into a DynamicCombo: the front end would add another control
    after each change of it."""
    return io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=(1 << 64) - 1,
        control_after_generate="fixed",  # as text: older ComfyUI has no enum for it
        tooltip=tooltip,
    )


def system_prompt(
    tooltip: str = "Standing instruction before the question, such as a role or a form.",
) -> io.String.Input:
    """The system_prompt widget."""
    return io.String.Input("system_prompt", default="", multiline=True, tooltip=tooltip, **ADVANCED)


def hidden_parts() -> io.Mask.Input:
    """The mask input: transparent parts, which the model does not see."""
    return io.Mask.Input(
        "mask",
        optional=True,
        tooltip="White where the picture is transparent, as Load Image gives it: the model sees "
        "plain white there, not the pixels that lie hidden.",
    )


def without_hidden(image: Any, mask: Any) -> Any:
    """``image`` (IMAGE) with ``mask`` (MASK, 1: hidden) as an alpha channel, so that hidden parts
    become white. As in ComfyUI, a mask of another size is stretched, and fewer masks than pictures
    are repeated. Raises ``BadOption`` for a mask with NaN or infinity."""
    fit = getattr(image, "ndim", 0) == 4 and 0 not in image.shape and image.shape[-1] in (1, 3, 4)
    if mask is None or not fit or not mask.any():
        return image  # the engine raises the error for an invalid one
    import torch

    if not torch.isfinite(mask).all():
        raise BadOption("The mask holds NaN or infinite values.")
    planes = mask.reshape(-1, 1, *mask.shape[-2:]).float()
    planes = torch.nn.functional.interpolate(planes, size=image.shape[-3:-1], mode="bilinear")
    every = torch.arange(image.shape[0]) % len(planes)
    alpha = 1 - planes[every].movedim(1, -1).clamp(0, 1).to(image.device)
    unit = image / 255 if image.dtype == torch.uint8 else image
    if unit.shape[-1] == 4:
        alpha = alpha * unit[..., 3:]
    return torch.cat([unit[..., :3].expand(-1, -1, -1, 3), alpha], dim=-1)


def words(value: Any) -> str:
    """A text input's value as valid text, from whatever node it comes."""
    return "" if value is None else well_formed(str(value))


def choice(name: str, value: Any, options: Collection[str]) -> str:
    """Validates a combo input's value. Raises ``BadOption`` if it is not one of ``options``."""
    if not isinstance(value, str) or value not in options:
        raise BadOption(f"{name} is {value!r}. Choose one of: {', '.join(options)}.")
    return value


def box_outputs() -> list[io.Output]:
    """The outputs of every node that finds boxes: one of each for every IMAGE."""
    return [
        BoundingBoxes.Output(
            "bboxes",
            tooltip="Per picture a list of boxes in its pixels, with labels.",
            is_output_list=True,
        ),
        io.Image.Output(
            "annotated",
            tooltip="The pictures with what was found drawn on them.",
            is_output_list=True,
        ),
    ]


def bounding_box(box: Box, text: str = "") -> dict[str, Any]:
    """One BOUNDING_BOX dict in whole pixels, rounded outwards, inside the picture and at least 1 by
    1. ``score`` is present only if it was computed. ``text``: the text in the box, for OCR."""
    x1, y1, x2, y2 = coordinates.integer_box(box)
    found = {"x": x1, "y": y1, "width": x2 - x1, "height": y2 - y1, "label": box.label}
    if box.score is not None:
        found["score"] = box.score
    return {**found, "metadata": _metadata(box.label, text)}


def _metadata(label: str, text: str = "") -> dict[str, Any]:
    """The ``metadata`` that core's own nodes read: type, text, description, palette."""
    kind, label = ("text", "") if text else ("obj", label)
    return {"type": kind, "text": text, "desc": label, "palette": []}


def bounding_boxes(results: Sequence[Result], read: bool = False) -> list[list[dict[str, Any]]]:
    """BOUNDING_BOX of a batch: for each picture, in order, a list of dicts (empty: nothing found).
    ``read``: whether the boxes are of text from OCR."""
    return [
        [
            bounding_box(box, text)
            for box, text in zip(
                result.boxes, _texts(result) if read else [""] * len(result.boxes), strict=True
            )
        ]
        for result in results
    ]


def elements(frame: Frame, size: Size) -> list[dict[str, Any]]:
    """The boxes of one picture of ``size`` as core's Create Bounding Boxes gives them to layout
    prompts: ``type``, ``bbox`` ``[y1, x1, y2, x2]`` in 0-1000, ``text`` of texts, ``desc``."""
    height, width = size
    found = []
    for box in frame:
        metadata = box["metadata"]
        sides = (
            (box["y"], height),
            (box["x"], width),
            (box["y"] + box["height"], height),
            (box["x"] + box["width"], width),
        )
        text = {"text": metadata["text"]} if metadata["type"] == "text" else {}
        bbox = [round(value * 1000 / side) for value, side in sides]
        found.append({"type": metadata["type"], "bbox": bbox, **text, "desc": metadata["desc"]})
    return found


def _texts(result: Result) -> list[str]:
    """The text in each box of an OCR result; "" for other boxes."""
    blocks = result.data if isinstance(result.data, list) else []
    if len(blocks) != len(result.boxes):
        return [""] * len(result.boxes)
    return [str(block.get("text") or "") for block in blocks]


def found_json(result: Result) -> str:
    """The JSON text of one picture; that of boxes or points is a list, in its pixels.

    Where the user chose to keep going, a picture without an answer is an object with the error
    instead, and an unreadable reply one with the raw reply, so that neither is mistaken for
    "nothing found".
    """
    if result.finish_reason == "error":
        return json.dumps({"error": result.error}, ensure_ascii=False)
    if result.error:
        return json.dumps({"unreadable": result.text}, ensure_ascii=False)
    return result.text


def points_json(result: Result, size: Size) -> str:
    """``[{"x", "y"}, ...]`` as segmentation nodes read it: the points, or the boxes' centres."""
    points = result.points or [coordinates.centre(box) for box in result.boxes]
    pixels = [coordinates.integer_point(point, size) for point in points]
    return json.dumps([{"x": x, "y": y} for x, y in pixels])


def batch_of(value: Any) -> list[Any]:
    """Any node's BOUNDING_BOX value as a list for each picture. One box, or one flat list, belongs
    to a single picture. Raises ``BadOption`` for anything but lists of boxes."""
    value = value.tolist() if hasattr(value, "tolist") else value
    if value is None:
        return [[]]
    if _is_box(value):
        return [[value]]
    if not isinstance(value, list | tuple):
        raise _no_boxes(value)
    if not value or any(_is_box(item) for item in value):
        return [list(value)]
    for frame in value:
        if not isinstance(frame, list | tuple | None):
            raise _no_boxes(frame)
    return [list(frame or ()) for frame in value]


def frames(value: Any, count: int, size: Size) -> list[Frame]:
    """Any node's BOUNDING_BOX value as lists of boxes in whole pixels inside ``count`` pictures,
    with both ``label`` and ``metadata`` if either holds a label.

    One dict or one flat list applies to every picture, as in ComfyUI's own nodes; four numbers are
    x, y, width and height. Boxes are clipped to the picture. Raises ``BadOption`` for invalid
    boxes, and if the numbers of lists and pictures differ.
    """
    batch = batch_of(value)
    if len(batch) == 1:
        batch = batch * count
    if len(batch) != count:
        raise BadOption(
            f"There are boxes for {len(batch)} pictures, but {count} pictures. Connect the IMAGE "
            "that the boxes were found in."
        )
    return [[clipped for box in frame if (clipped := _clipped(box, size))] for frame in batch]


def _is_box(value: Any) -> bool:
    four = isinstance(value, list | tuple) and len(value) == 4
    return isinstance(value, Mapping) or (
        four and all(isinstance(side, numbers.Real) for side in value)
    )


def _no_boxes(value: Any, why: str = "") -> BadOption:
    shown = repr(value)
    shown = shown if len(shown) <= 100 else f"{shown[:100]}…"
    why = why or "A box is a dict of x, y, width and height in pixels; a picture has a list of them"
    return BadOption(f"The bboxes hold {shown}. {why}.")


def _clipped(box: Any, size: Size) -> dict[str, Any] | None:
    """``box`` in whole pixels, clipped to the picture; None if it lies outside."""
    if not _is_box(box):
        raise _no_boxes(box)
    if not isinstance(box, Mapping):
        box = dict(zip(_SIDES, box, strict=True))
    x, y, box_width, box_height = (_coordinate(box, name) for name in _SIDES)
    height, width = size
    left, top = (
        max(0, math.floor(min(x, x + box_width))),
        max(0, math.floor(min(y, y + box_height))),
    )
    right, bottom = (
        min(width, math.ceil(max(x, x + box_width))),
        min(height, math.ceil(max(y, y + box_height))),
    )
    if right <= left or bottom <= top:
        return None
    area = {"x": left, "y": top, "width": right - left, "height": bottom - top}
    return {**_with_label(box), **area}


_SIDES = ("x", "y", "width", "height")
_MAX_COORDINATE = 1e15  # pixels; larger than any picture, and not exact as a float


def _coordinate(box: Mapping[str, Any], name: str) -> float:
    try:
        number = float(box[name])
    except (KeyError, TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= _MAX_COORDINATE:
        raise _no_boxes(dict(box), f"Its {name} must be a number of pixels")
    return number


def _with_label(box: Mapping[str, Any]) -> dict[str, Any]:
    """The box with its label for both our nodes and core's, and without an invalid score."""
    found, label = dict(box), label_of(box)
    score = found.get("score", 0)
    if not isinstance(score, numbers.Real) or not math.isfinite(score):
        del found["score"]
    if label:
        metadata = box.get("metadata")
        metadata = metadata if isinstance(metadata, Mapping) else {}
        own = {} if metadata.get("desc") or metadata.get("text") else {"desc": label}
        found.update(label=label, metadata={**_metadata(""), **metadata, **own})
    return found


def label_of(box: Mapping[str, Any]) -> str:
    """A box's ``label``, or else the one in core's ``metadata``; "" if it has none."""
    if label := box.get("label"):
        return well_formed(str(label))
    metadata = box.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    names = ("text", "desc", "name") if metadata.get("type") == "text" else ("desc", "name", "text")
    return next((well_formed(str(metadata[name])) for name in names if metadata.get(name)), "")


def annotated(
    image: Any, results: Sequence[Result], check: Callable[[], None] | None = None
) -> Any:
    """IMAGE ``[B, H, W, 3]``: the pictures with boxes and points drawn on them. ``check`` is called
    before each item; what it raises reaches the caller."""
    pairs = zip(images.drawable_pictures(image), results, strict=True)
    return images.to_image(
        [
            draw.annotate(picture, result.boxes, result.points, check, result.cuboids)
            for picture, result in pairs
        ]
    )


def masks(image: Any, results: Sequence[Result]) -> Any:
    """MASK ``[B, H, W]``: 1 inside the boxes of each picture."""
    import torch

    height, width = image.shape[-3:-1]
    return torch.stack([draw.mask((height, width), result.boxes) for result in results])
