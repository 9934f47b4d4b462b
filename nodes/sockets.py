"""Socket types, and the inputs and outputs that nodes share, with what their values mean. Pure
functions."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from typing import Any

from comfy_api.latest import io

from ..qwenvl.constraints import STRICT
from ..qwenvl.errors import BadOption
from ..qwenvl.media.pixel_bounds import PixelBounds
from ..qwenvl.types import THINKING_TOKENS, Result
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
