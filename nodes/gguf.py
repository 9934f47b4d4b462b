"""GGUF node: chooses a model in llama.cpp's format, which an installed llama-server answers for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from comfy_api.latest import io

from ..qwenvl.backends.base import Resident
from ..qwenvl.checkpoints import gguf
from ..qwenvl.errors import BadOption, CheckpointError, CheckpointNotFound, QwenVLError
from ..qwenvl.model_cache import CACHE
from ..qwenvl.models.forecast import forecast_served
from ..qwenvl.servers import llama_settings
from ..qwenvl.servers.llama_settings import read_settings
from ..qwenvl.types import GgufSpec
from . import host, panels, sockets
from .forecast import device_memory
from .model import KEEP, UNLOAD, ModelHandle

NONE_HERE = "none in models/LLM"
AUTO = "auto"

ROUTE = "/qwen_vl/gguf_model"


class GGUF(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        models = _choices() or [NONE_HERE]
        return sockets.schema(
            node_id="QVL_GGUF",
            display_name="Qwen-VL GGUF",
            description="Chooses a Qwen vision-language model as GGUF in models/LLM. A "
            "llama-server (llama.cpp) that is installed here is started for it when it is first "
            "asked, and ended with ComfyUI. All Qwen-VL nodes that ask a model can use it.",
            panels=panels.model(["model", "context", "concurrency", "mmproj"], ROUTE),
            search_aliases=["gguf", "llama.cpp", "llama-server", "mmproj", "quantized model"],
            inputs=[
                io.Combo.Input(
                    "model",
                    options=models,
                    default=models[0],
                    tooltip="A .gguf file in models/LLM or a folder in it, with its projector "
                    "(mmproj-….gguf) beside it. Of a model in parts, the first.",
                ),
                io.Int.Input(
                    "context",
                    default=GgufSpec.context,
                    min=1024,
                    max=1 << 20,
                    step=1024,
                    tooltip="How many tokens a question with its pictures and its answer may have "
                    "together. More needs more memory.",
                ),
                *sockets.pixel_bounds(),
                io.Combo.Input(
                    "after_use",
                    options=[KEEP, UNLOAD],
                    default=KEEP,
                    tooltip="When a node is done. keep: llama-server stays until ComfyUI needs the "
                    "room. unload: it is ended, and started again the next time.",
                    **sockets.ADVANCED,
                ),
                io.Int.Input(
                    "concurrency",
                    default=GgufSpec.concurrency,
                    min=1,
                    max=256,
                    tooltip="How many pictures are answered at once, each with a context of its "
                    "own. More needs more memory.",
                    **sockets.ADVANCED,
                ),
                io.Combo.Input(
                    "mmproj",
                    options=[AUTO, *gguf.projectors(host.model_roots())],
                    default=AUTO,
                    tooltip="The file of the vision tower. auto: the one beside the model that was "
                    "made for it.",
                    **sockets.ADVANCED,
                ),
            ],
            outputs=[sockets.model_output()],
        )

    @classmethod
    def validate_inputs(cls, model: str | None = None, mmproj: str | None = None) -> bool | str:
        """Replaces ComfyUI's own check of the lists, which would refuse workflows made where a
        model lies elsewhere."""
        try:
            if model is not None:
                _locate(model, mmproj or AUTO)
        except CheckpointError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(
        cls, model: str | None = None, mmproj: str | None = None, **_: Any
    ) -> str:
        """Changes when the model's files are replaced, and when the settings are edited."""
        try:
            found = _locate(model, mmproj or AUTO)
        except CheckpointError:  # what runs says what is wrong
            return ""
        files = [*gguf.parts(found.path), _settings()]
        return repr(gguf.states([*files, Path(str(found.mmproj))]))

    @classmethod
    def execute(
        cls,
        model: str,
        context: int,
        min_pixels: int = 0,
        max_pixels: int = 0,
        after_use: str = KEEP,
        concurrency: int = GgufSpec.concurrency,
        mmproj: str = AUTO,
    ) -> io.NodeOutput:
        sockets.choice("after_use", after_use, (KEEP, UNLOAD))
        spec = served(model, context, concurrency, mmproj)
        bounds = sockets.bounds(min_pixels, max_pixels)
        return io.NodeOutput(ModelHandle(spec, *bounds, after_use=after_use))


def served(model: str, context: int, concurrency: int, mmproj: str) -> GgufSpec:
    """The spec of widgets. Raises ``CheckpointError``, and ``Unavailable`` and ``BadOption`` where
    there is no llama-server to start, or the user's file names none."""
    found = _locate(model, mmproj)
    program, options = read_settings(_settings())
    return GgufSpec(
        str(found.path),
        str(found.mmproj),
        found.family,
        context,
        concurrency,
        host.device("auto"),
        str(program),
        options,
        str(host.private_folder() / "logs"),
    )


def forecast(query: Mapping[str, str]) -> dict[str, Any]:
    """The panel's memory forecast (``Forecast``) for the widgets of a node by name, those left out
    at their defaults. Reads headers of files only. Raises ``BadOption``."""
    from ..qwenvl.backends.gguf import expected_bytes

    try:
        context = int(query.get("context", GgufSpec.context))
        concurrency = int(query.get("concurrency", GgufSpec.concurrency))
    except ValueError as error:
        raise BadOption(f"context and concurrency are whole numbers ({error}).") from error
    try:
        spec = served(query.get("model", ""), context, concurrency, query.get("mmproj", AUTO))
        resident = [backend for backend in CACHE.loaded(spec) if isinstance(backend, Resident)]
        found = forecast_served(spec.name, expected_bytes(spec), device_memory(spec), resident)
    except QwenVLError as error:
        raise BadOption(host.model_library().without_folders(str(error))) from error
    return dataclasses.asdict(found)


def _choices() -> list[str]:
    """The models in the folders, those that can be served first; models that are not Qwen's are
    left out."""
    found = [model for model in gguf.scan(host.model_roots()) if not model.is_foreign]
    return [model.choice for model in sorted(found, key=lambda model: bool(model.problem))]


def _locate(model: object, mmproj: object) -> gguf.GgufModel:
    if model == NONE_HERE:
        raise CheckpointNotFound(
            "There is no GGUF model here. Put one into models/LLM, with its projector "
            "(mmproj-….gguf) beside it, and press R on the page."
        )
    if not isinstance(model, str) or not isinstance(mmproj, str):  # a widget that holds nothing
        raise CheckpointNotFound(f"The model is {model!r}. Choose one in the list.")
    return gguf.locate(model, host.model_roots(), "" if mmproj == AUTO else mmproj)


def _settings() -> Path:
    return host.private_folder() / llama_settings.NAME
