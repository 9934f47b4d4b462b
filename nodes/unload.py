"""Unload node: frees a model's memory at a chosen point of the graph."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..qwenvl.model_cache import CACHE
from . import sockets
from .model import OFFLOAD, UNLOAD, ModelHandle, apply_after_use


class Unload(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return sockets.schema(
            node_id="QVL_Unload",
            display_name="Qwen-VL Unload",
            description="Frees the memory of Qwen-VL models once what is connected to it is there, "
            "and hands that on. ComfyUI makes room by itself when another model needs it; this is "
            "for freeing it earlier.",
            search_aliases=["free memory", "vram", "unload model", "clean up", "purge"],
            is_output_node=True,
            inputs=[
                io.AnyType.Input(
                    "after",
                    tooltip="What must be done first, such as the text of a Describe node.",
                ),
                sockets.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Only this model. Not connected: every Qwen-VL model, but none of From "
                    "CLIP, which ComfyUI itself holds.",
                ),
                io.Combo.Input(
                    "where_to",
                    options=[UNLOAD, OFFLOAD],
                    default=UNLOAD,
                    tooltip="unload: out of memory; read from disk when it is used again. offload "
                    "to RAM: off the card only, and back in seconds.",
                ),
            ],
            outputs=[io.AnyType.Output("passed_on", tooltip="What came in, unchanged.")],
        )

    @classmethod
    def execute(
        cls, after: Any, where_to: str = UNLOAD, model: ModelHandle | None = None
    ) -> io.NodeOutput:
        for backend in model.loaded() if model else CACHE.loaded():
            apply_after_use(backend, where_to)
        return io.NodeOutput(after)
