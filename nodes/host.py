"""The only file that talks to ComfyUI itself: folders, devices, progress, live text, interrupt.

Each part of ComfyUI is fetched by itself and when it is needed, so that one that is missing (an
older release, a runtime without a server) costs only what it was for.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..qwenvl.backend import Watch
from ..qwenvl.types import Response

FOLDER_KEY = "LLM"
"""The name under which packs of this kind share their model folders."""

_SHARED = "Qwen-VL"  # below a model folder; where the most used pack of this kind downloads to
_STEPS = 1000  # of the progress bar, for each picture
_TEXT_INTERVAL = 0.1  # seconds between two messages of live text


def _part(module: str, name: str = "") -> Any:
    """A module of ComfyUI, or ``name`` in it; None where this host has no such part."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        return None
    return getattr(found, name, None) if name else found


def register_folders() -> None:
    """Makes ``models/LLM`` known to ComfyUI, next to any that ``extra_model_paths.yaml`` names."""
    if folder_paths := _part("folder_paths"):
        home = os.path.join(folder_paths.models_dir, FOLDER_KEY)
        folder_paths.add_model_folder_path(FOLDER_KEY, home)


def model_roots() -> list[Path]:
    """Every folder that holds checkpoints; empty outside ComfyUI or before registration."""
    folder_paths = _part("folder_paths")
    if folder_paths is None or FOLDER_KEY not in folder_paths.folder_names_and_paths:
        return []
    return [Path(root) for root in folder_paths.get_folder_paths(FOLDER_KEY)]


def download_folder() -> Path:
    """Where a downloaded checkpoint's folder goes, shared with other packs."""
    roots = model_roots()
    return (roots[0] if roots else Path("models") / FOLDER_KEY) / _SHARED


def devices() -> list[str]:
    """``auto``, the accelerators that torch sees here, and ``cpu``."""
    import torch

    found = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        found.append("mps")
    return ["auto", *found, "cpu"]


def device(wish: str) -> str:
    """``auto`` as ComfyUI means it (so ``--cpu`` holds here too); any other wish as it is."""
    get_torch_device = _part("comfy.model_management", "get_torch_device")
    return str(get_torch_device()) if wish == "auto" and get_torch_device else wish


def free_memory() -> None:
    """Gives memory that torch keeps for reuse back to the device, for other models."""
    if soft_empty_cache := _part("comfy.model_management", "soft_empty_cache"):
        soft_empty_cache()


def check_interrupt() -> None:
    """Raises ComfyUI's interrupt if the person pressed stop."""
    name = "throw_exception_if_processing_interrupted"
    if stop_if_asked := _part("comfy.model_management", name):
        stop_if_asked()


class Bar:
    """The progress bar of the node that runs now; ComfyUI itself limits how often it is sent."""

    def __init__(self, total: int):
        progress_bar = _part("comfy.utils", "ProgressBar")
        self._bar = progress_bar(total) if progress_bar else None

    def set(self, value: int, total: int | None = None) -> None:
        if self._bar is not None:
            self._bar.update_absolute(value, total)


def show_text(text: str) -> None:
    """Shows ``text`` in the node that runs now, where the front end can."""
    server = _part("server", "PromptServer")
    context_of = _part("comfy_execution.utils", "get_executing_context")
    context = context_of() if server and context_of else None
    if context is not None:
        server.instance.send_progress_text(text, context.node_id)


class NodeWatch(Watch):
    """Shows a run in its node: a bar over all pictures, and the words as they come."""

    def __init__(self) -> None:
        self._bar: Bar | None = None
        self._limits: list[int] = []
        self._tokens: list[int] = []
        self._texts: list[str] = []
        self._open: set[int] = set()
        self._shown = 0.0

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        self._limits = [max(1, limit) for limit in max_new_tokens]
        self._tokens = [0] * len(self._limits)
        self._texts = [""] * len(self._limits)
        self._open = set(range(len(self._limits)))
        self._bar = Bar(_STEPS * len(self._limits))

    def token(self, index: int, text: str) -> None:
        self._tokens[index] += 1
        self._texts[index] += text
        self._advance()
        if time.monotonic() - self._shown >= _TEXT_INTERVAL:
            self._show(min(self._open, default=index))

    def done(self, index: int, response: Response) -> None:
        self._open.discard(index)
        self._texts[index] = response.text
        self._advance()
        self._show(index)

    def check(self) -> None:
        check_interrupt()

    def _advance(self) -> None:
        """A finished picture counts whole, an open one by the share of its limit it has used."""
        steps = (
            _STEPS * min(count, limit) // limit if index in self._open else _STEPS
            for index, (count, limit) in enumerate(zip(self._tokens, self._limits, strict=True))
        )
        if self._bar is not None:
            self._bar.set(sum(steps))

    def _show(self, index: int) -> None:
        """The picture being answered is named where there are several."""
        count = len(self._texts)
        title = f"{index + 1}/{count}: " if count > 1 else ""
        show_text(title + self._texts[index])
        self._shown = time.monotonic()
