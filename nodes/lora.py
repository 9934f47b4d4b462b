"""LoRA node: puts a LoRA adapter on a model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..qwenvl.checkpoints.adapters import check_adapters, fingerprint, read_adapter
from ..qwenvl.errors import BadOption, CheckpointNotFound
from ..qwenvl.types import Adapter, GgufSpec, HostSpec, LocalSpec, Result
from . import host, sockets
from .model import ModelHandle

NONE_HERE = "none in models/loras or models/LLM"
_MOST = 10.0


class LoRA(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        adapters = host.adapter_library().choices() or [NONE_HERE]
        return sockets.schema(
            node_id="QVL_LoRA",
            display_name="Qwen-VL LoRA",
            description="Puts a LoRA adapter on a Qwen vision-language model, beside those that "
            "are on it. Nodes with other adapters, or none, share the model's weights with it: "
            "nothing is loaded twice.",
            search_aliases=["lora", "adapter", "peft", "fine-tune", "dora", "load lora"],
            inputs=[
                sockets.Model.Input(
                    "model", tooltip="From the Qwen-VL Loader, or from another Qwen-VL LoRA."
                ),
                io.Combo.Input(
                    "adapter",
                    options=adapters,
                    default=adapters[0],
                    tooltip="A folder with adapter_config.json and adapter_model.safetensors in "
                    "models/loras or models/LLM. One that was made for another model is refused.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-_MOST,
                    max=_MOST,
                    step=0.05,
                    tooltip="Factor of what the adapter changes. 1: as it was trained. 0: off. "
                    "Below 0: away from it.",
                ),
            ],
            outputs=[sockets.Model.Output("model", tooltip="The model with the adapter on.")],
        )

    @classmethod
    def validate_inputs(cls, adapter: str | None = None) -> bool | str:
        """Replaces ComfyUI's own check of the list, which would refuse workflows made where an
        adapter lies elsewhere."""
        try:
            if adapter is not None:
                _locate(adapter)
        except CheckpointNotFound as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, adapter: str | None = None, **_: Any) -> str:
        """Another one when the adapter was trained anew in its folder."""
        try:
            return repr(fingerprint(_locate(adapter)))
        except CheckpointNotFound:  # what runs says what is wrong
            return ""

    @classmethod
    def execute(cls, model: ModelHandle, adapter: str, strength: float = 1.0) -> io.NodeOutput:
        spec = model.spec
        if isinstance(spec, HostSpec):
            raise BadOption(
                f"{model.name} is a text encoder of the graph, and these adapters go on models of "
                "the Qwen-VL Loader. Put a LoRA for it on the CLIP, before Qwen-VL From CLIP."
            )
        if isinstance(spec, GgufSpec):
            raise BadOption(
                f"{model.name} is a GGUF model, and these adapters go on models of the Qwen-VL "
                "Loader. llama-server takes adapters that were converted to GGUF: write "
                'options: ["--lora", "…gguf"] into llama_server.yaml (see the help of Qwen-VL '
                "GGUF)."
            )
        if not isinstance(spec, LocalSpec):
            raise BadOption(
                f"{model.name} is answered by a server, and adapters go on models that are loaded "
                "here. Start the server with the adapter."
            )
        folder = _locate(adapter)
        files = read_adapter(folder)
        adapters = (*spec.adapters, Adapter(str(folder), strength))
        check_adapters(adapters)
        adapted = dataclasses.replace(spec, adapters=adapters)
        note = files.other_base(Path(spec.checkpoint).name) if strength else ""
        return io.NodeOutput(
            dataclasses.replace(model, spec=adapted),
            ui=host.results_ui([Result("", notes=(note,))] if note else []),
        )


def _locate(adapter: object) -> Path:
    if adapter == NONE_HERE:
        raise CheckpointNotFound(
            "There is no adapter here. Put one, a folder with adapter_config.json and "
            "adapter_model.safetensors, into models/loras or models/LLM, and press R on the page."
        )
    if not isinstance(adapter, str):  # a widget that holds nothing, or a number
        raise CheckpointNotFound(f"The adapter is {adapter!r}. Choose one in the list.")
    return host.adapter_library().locate(adapter)
