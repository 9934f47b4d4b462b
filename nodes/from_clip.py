"""From CLIP node: the text encoder that is already in the graph, as a model to ask."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from comfy_api.latest import io

from ..qwenvl.backends.base import Backend
from ..qwenvl.types import HostSpec
from . import host, sockets
from .model import ModelHandle

INSTRUCT, THINKING = "instruct", "thinking"


@dataclass(frozen=True, repr=False)
class ClipHandle(ModelHandle):
    """A model handle whose model is a CLIP of the graph. It is not in the model cache, which opens
    models and closes them when nobody wants them any more: ComfyUI has loaded this one, shares it
    with whatever else is connected to it, and frees it. The handle keeps it alive, as the node's
    output would."""

    clip: Any = field(default=None, compare=False)
    thinking_edition: bool = False

    def __post_init__(self) -> None:
        """Takes no reference in the model cache."""

    def loaded(self) -> list[Backend]:
        return [host.ClipBackend(self.clip, self.thinking_edition)]

    @contextmanager
    def _leased(self) -> Iterator[Backend]:
        yield host.ClipBackend(self.clip, self.thinking_edition)


class FromCLIP(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_FromCLIP",
            display_name="Qwen-VL From CLIP",
            description="Asks the text encoder that an image generator has loaded already, so that "
            "no second model is needed: Qwen3-VL 4B and 8B, and newer ones where this ComfyUI "
            "runs them rightly. ComfyUI writes its answers, one picture after another.",
            search_aliases=["clip", "text encoder", "generate text", "qwen3-vl", "no second model"],
            inputs=[
                io.Clip.Input(
                    "clip",
                    tooltip="From Load CLIP. An encoder that cannot see or cannot write is refused "
                    "with the reason.",
                ),
                io.Combo.Input(
                    "edition",
                    options=[INSTRUCT, THINKING],
                    default=INSTRUCT,
                    tooltip="Which edition of Qwen3-VL it is: thinking begins every answer with a "
                    "thought. Its weights do not tell. Encoders of image generators are instruct. "
                    "Without effect on Qwen3.5, where each node has its own switch.",
                    **sockets.ADVANCED,
                ),
                *sockets.pixel_bounds("pictures", "ComfyUI's own bound, 12.8 million"),
                sockets.shrink_to_fit(),
            ],
            outputs=[
                sockets.model_output(
                    "To the Qwen-VL nodes. It writes freely: answers are checked for their "
                    "form, not held to it. No scores, videos, sounds and adapters."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        clip: Any,
        edition: str = INSTRUCT,
        min_pixels: int = 0,
        max_pixels: int = 0,
        shrink_to_fit: bool = False,
    ) -> io.NodeOutput:
        thinks = sockets.choice("edition", edition, (INSTRUCT, THINKING)) == THINKING
        backend = host.ClipBackend(clip, thinks)
        name = f"{backend.family.title} (text encoder)"
        return io.NodeOutput(
            ClipHandle(
                HostSpec(name, id(clip), f"{backend.shape} {edition}"),
                *sockets.bounds(min_pixels, max_pixels),
                shrink_to_fit,
                clip=clip,
                thinking_edition=thinks,
            )
        )
