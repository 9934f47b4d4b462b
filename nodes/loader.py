"""Loader node: chooses a model, brings it onto this machine and says how it is to be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..qwenvl.checkpoints.library import Download, not_allowed
from ..qwenvl.checkpoints.references import Reference, parse_reference
from ..qwenvl.errors import BadOption, CheckpointError, CheckpointNotFound, DownloadError
from ..qwenvl.models.architecture import OPTIMIZE
from ..qwenvl.models.attention import ATTENTIONS
from ..qwenvl.models.precision import PRECISIONS
from ..qwenvl.models.quantization import QUANTIZATIONS
from ..qwenvl.types import LocalSpec
from . import forecast, host, panels, sockets
from .model import AFTER_USE, KEEP, ModelHandle

SOURCES = ["huggingface", "modelscope"]


class Loader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        models = host.model_library().choices()
        return sockets.schema(
            node_id="QVL_Loader",
            display_name="Qwen-VL Loader",
            description="Chooses a Qwen vision-language model, downloads it if it is not here yet, "
            "and hands it to the other Qwen-VL nodes. Nodes with equal settings share one model.",
            search_aliases=["load qwen", "qwen vl", "vlm", "vision language model", "qwen3-vl"],
            panels=panels.model(
                [
                    "model",
                    "quantization",
                    "precision",
                    "attention",
                    "device",
                    "optimize",
                    "yarn",
                    "custom_model",
                    "source",
                ],
                forecast.ROUTE,
            ),
            inputs=[
                io.Combo.Input(
                    "model",
                    options=models,
                    default=models[0],
                    tooltip="A model in models/LLM, one to download on first use, or the bundled "
                    "demo, which knows only drawn shapes and printed words.",
                ),
                io.Combo.Input(
                    "quantization",
                    options=list(QUANTIZATIONS),
                    default="none",
                    tooltip="4bit needs about a quarter of the memory, 8bit half, at some loss of "
                    "detail (bitsandbytes); not for mixtures of experts. FP8, AWQ and GPTQ "
                    "checkpoints keep their own: leave none.",
                ),
                io.Combo.Input(
                    "precision",
                    options=list(PRECISIONS),
                    default="auto",
                    tooltip="Number type of the weights. auto: bf16 on cards that compute it, else "
                    "fp16; fp32 on the CPU.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "attention",
                    options=list(ATTENTIONS),
                    default="auto",
                    tooltip="auto: flash attention 2 where it is installed and can run, else sdpa "
                    "(eager on Apple's MPS). Any other wish is met or refused, never replaced.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "device",
                    options=host.devices(),
                    default="auto",
                    tooltip="Where the model runs. auto: where ComfyUI runs its own models. split: "
                    "over all CUDA cards, for models too large for one.",
                    **sockets.ADVANCED,
                ),
                *sockets.pixel_bounds(),
                io.Combo.Input(
                    "source",
                    options=SOURCES,
                    default=SOURCES[0],
                    tooltip="Where a model that is not here yet is downloaded from. For a mirror "
                    "of Hugging Face set HF_ENDPOINT before ComfyUI starts.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "after_use",
                    options=list(AFTER_USE),
                    default=KEEP,
                    tooltip="When a node is done. keep: the model stays until ComfyUI needs the "
                    "room. offload to RAM: off the card at once, back in seconds. unload: out of "
                    "memory, read from disk the next time. With several nodes on one model, keep "
                    "is faster; put Qwen-VL Unload after the last.",
                    **sockets.ADVANCED,
                ),
                sockets.shrink_to_fit(),
                io.Combo.Input(
                    "optimize",
                    options=list(OPTIMIZE),
                    default="auto",
                    tooltip="auto: batches, caches and faster kernels where this pack knows the "
                    "model. off: the model as it comes, by transformers' own generate, one picture "
                    "at a time: slower, to find out whether an answer is the model's own.",
                    **sockets.ADVANCED,
                ),
                io.Float.Input(
                    "yarn",
                    default=1.0,
                    min=1.0,
                    max=4.0,
                    step=0.5,
                    tooltip="For prompts longer than the model's context: stretches it by this "
                    "factor (YaRN), up to what the model's card gives: 4 for Qwen2.5, Qwen2.5-VL, "
                    "Qwen3 and Qwen3.5, 3 for Qwen3-VL. Short prompts and boxes lose a little, so "
                    "leave 1, the context as it is, unless it is needed.",
                    **sockets.ADVANCED,
                ),
                io.String.Input(
                    "custom_model",
                    default="",
                    tooltip="In place of the list: owner/name on the hub, or the address of the "
                    "model's page on Hugging Face or ModelScope. It is downloaded only after you "
                    "have allowed it on this node.",
                    **sockets.ADVANCED,
                ),
            ],
            outputs=[sockets.model_output()],
        )

    @classmethod
    def validate_inputs(
        cls,
        model: str | None = None,
        device: str | None = None,
        source: str | None = None,
        custom_model: str | None = None,
    ) -> bool | str:
        """Replaces ComfyUI's own check of these lists, which would refuse workflows made where a
        model lies elsewhere, and says what to do; so for a download that nobody has allowed."""
        if device is not None and device not in host.devices():
            return f"Device {device} is not on this machine: choose {', '.join(host.devices())}."
        try:
            if custom_model and custom_model.strip():
                _check_allowed(parse_reference(custom_model, source or SOURCES[0]))
            elif model is not None:
                host.model_library().locate(_name(model))
        except (CheckpointError, BadOption) as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        model: str,
        quantization: str = "none",
        precision: str = "auto",
        attention: str = "auto",
        device: str = "auto",
        min_pixels: int = 0,
        max_pixels: int = 0,
        source: str = SOURCES[0],
        after_use: str = KEEP,
        shrink_to_fit: bool = False,
        optimize: str = "auto",
        yarn: float = 1.0,
        custom_model: str = "",
    ) -> io.NodeOutput:
        sockets.choice("device", device, host.devices())
        path = _obtain(model, sockets.words(custom_model).strip(), source)
        spec = LocalSpec(
            str(path),
            precision,
            quantization,
            attention,
            host.device(device),
            optimize=optimize,
            yarn=yarn,
        )
        bounds = sockets.bounds(min_pixels, max_pixels)
        return io.NodeOutput(ModelHandle(spec, *bounds, shrink_to_fit, after_use))


def _obtain(model: object, custom_model: str, source: str) -> Path:
    """The model's folder, after its download where it must be and may be downloaded."""
    library = host.model_library()
    calls: Any = {"progress_for": host.DownloadProgress, "check": host.check_interrupt}
    if custom_model:
        reference = parse_reference(custom_model, source)
        return library.obtain_reference(reference, host.consents(), **calls)
    return library.obtain(_name(model), source=source, **calls)


def _check_allowed(reference: Reference) -> None:
    """Raises ``DownloadError`` for a download that nobody has allowed."""
    place = host.model_library().locate_reference(reference)
    if isinstance(place, Download) and place.reference and not host.consents().allows(reference):
        raise DownloadError(not_allowed(place))


def _name(model: object) -> str:
    if not isinstance(model, str):  # a widget that holds nothing, or a number
        raise CheckpointNotFound(f"The model is {model!r}. Choose one in the Qwen-VL Loader.")
    return model
