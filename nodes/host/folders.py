"""ComfyUI's model folders."""

from __future__ import annotations

import os
from pathlib import Path

from ...qwenvl.checkpoints.library import ModelLibrary
from .parts import part

FOLDER_KEY = "LLM"
"""The name under which packs of this kind share their model folders."""

_SHARED = "Qwen-VL"  # below a model folder; where the most used pack of this kind downloads to


def register_folders() -> None:
    """Makes ``models/LLM`` known to ComfyUI, next to any that ``extra_model_paths.yaml`` names."""
    if folder_paths := part("folder_paths"):
        home = os.path.join(folder_paths.models_dir, FOLDER_KEY)
        folder_paths.add_model_folder_path(FOLDER_KEY, home)


def model_roots() -> list[Path]:
    """Every folder that holds checkpoints; empty outside ComfyUI or before registration."""
    folder_paths = part("folder_paths")
    if folder_paths is None or FOLDER_KEY not in folder_paths.folder_names_and_paths:
        return []
    return [Path(root) for root in folder_paths.get_folder_paths(FOLDER_KEY)]


def download_folder() -> Path:
    """Where a downloaded checkpoint's folder goes, shared with other packs."""
    roots = model_roots()
    return (roots[0] if roots else Path("models") / FOLDER_KEY) / _SHARED


def model_library() -> ModelLibrary:
    """The models in ComfyUI's folders, the bundled one and those to download."""
    advice = "Choose another model in the Loader."
    return ModelLibrary(tuple(model_roots()), download_folder(), advice)
