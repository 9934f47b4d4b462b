"""ComfyUI's folders: where checkpoints are looked for and downloaded to, where users' files lie."""

from __future__ import annotations

import os
from pathlib import Path, PurePath, PureWindowsPath
from typing import Any

from ...qwenvl.checkpoints.adapters import AdapterLibrary
from ...qwenvl.checkpoints.library import ModelLibrary
from ...qwenvl.checkpoints.references import Consents
from ...qwenvl.errors import BadOption
from ...qwenvl.yaml_files import read_mapping
from .optional_import import optional_import

FOLDER_KEY = "LLM"
"""ComfyUI's folder name that packs with language models share."""

_DOWNLOADS = "Qwen-VL"  # below a model folder; where other Qwen-VL packs download to as well


def register_folders() -> None:
    """Registers ``models/LLM`` with ComfyUI, beside any that ``extra_model_paths.yaml`` names."""
    if folder_paths := optional_import("folder_paths"):
        default = os.path.join(folder_paths.models_dir, FOLDER_KEY)
        folder_paths.add_model_folder_path(FOLDER_KEY, default)


def model_roots() -> list[Path]:
    """Every folder that holds checkpoints; empty outside ComfyUI or before registration."""
    folder_paths = optional_import("folder_paths")
    if folder_paths is None or FOLDER_KEY not in folder_paths.folder_names_and_paths:
        return []
    return [Path(root) for root in folder_paths.get_folder_paths(FOLDER_KEY)]


def download_folder() -> Path:
    """Where the folder of a downloaded checkpoint goes, shared with other packs."""
    roots = model_roots()
    return (roots[0] if roots else Path("models") / FOLDER_KEY) / _DOWNLOADS


def model_library() -> ModelLibrary:
    """The models in ComfyUI's folders, the bundled one and those to download."""
    advice = "Choose another model in the Loader."
    return ModelLibrary(tuple(model_roots()), download_folder(), advice)


def user_folder(kind: str) -> Path:
    """Where users keep their own data files of a kind, such as ``targets``, beside their workflows:
    ``user/default/qwen-vl/<kind>``. Outside ComfyUI the same below the working folder."""
    folder = optional_import("folder_paths", "get_user_directory")
    return Path(folder() if folder else "user") / "default" / "qwen-vl" / kind


def private_folder() -> Path:
    """Where keys lie, and what names programs to run and folders to write to: ``user/__qwen_vl``.
    Unlike ``user_folder``, ComfyUI neither hands out nor writes files here over HTTP: a name that
    begins so is no user's."""
    folder = optional_import("folder_paths", "get_user_directory")
    return Path(folder() if folder else "user") / "__qwen_vl"


def text_tokenizers() -> dict[str, Path]:
    """The tokenizers of text encoders that come with this ComfyUI, by their kind (see
    ``prompt_writing.length``)."""
    comfy = optional_import("comfy")
    roots = [Path(root) for root in getattr(comfy, "__path__", ())]
    places = {
        "clip": "sd1_tokenizer",
        "t5": "text_encoders/t5_tokenizer",
        "qwen_text": "text_encoders/qwen25_tokenizer",
    }
    return {
        kind: root / place
        for kind, place in places.items()
        for root in roots
        if (root / place).is_dir()
    }


def adapter_library() -> AdapterLibrary:
    """The LoRA adapters in ComfyUI's folders for LoRAs and for language models."""
    folder_paths = optional_import("folder_paths")
    loras = []
    if folder_paths is not None and "loras" in folder_paths.folder_names_and_paths:
        loras = [Path(root) for root in folder_paths.get_folder_paths("loras")]
    return AdapterLibrary((*loras, *model_roots()))


def consents() -> Consents:
    """The downloads that this ComfyUI's user has allowed."""
    return Consents(user_folder("downloads") / "allowed.json")


def input_names(ending: str) -> list[str]:
    """The files in ComfyUI's input folder, not below it, whose names end so, in any case; of links
    those that ``input_file`` follows."""
    folder = _input_folder()
    if folder is None or not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        named = [entry.name for entry in entries if entry.name.lower().endswith(ending)]
    return sorted(filter(_is_input_file, named), key=str.lower)


def input_file(name: str) -> Path:
    """The path of a file in ComfyUI's input folder or a folder in it. Raises ``BadOption`` for a
    name that leads out of it, by links as well."""
    if path := _inside(_input_folder(), name):
        return path
    raise BadOption(f"{name!r} is no file in ComfyUI's input folder: choose one of the list.")


def known_file(folder: str, name: str) -> Path:
    """As ``input_file``, in ComfyUI's folder ``folder``: ``input`` or ``output``. The file need not
    be there."""
    getter = _FOLDERS.get(folder) if isinstance(folder, str) else None
    known = optional_import("folder_paths", getter) if getter else None
    if path := _inside(Path(known()) if known else None, name):
        return path
    where = f"{folder}/{name}" if folder else name
    raise BadOption(
        f"{where[:200]!r} is no file in ComfyUI's input or output folder; others are not read."
    )


def place_of(path: Any) -> tuple[str, str] | None:
    """The path below ComfyUI's ``input`` or ``output`` folder, and which of them; None for what
    lies elsewhere or is no path. ``known_file`` finds it again."""
    if not isinstance(path, (str, Path)):
        return None
    for folder, getter in _FOLDERS.items():
        if known := optional_import("folder_paths", getter):
            root, whole = Path(known()).resolve(), Path(path).resolve()
            if whole.is_relative_to(root):
                return whole.relative_to(root).as_posix(), folder
    return None


def media_folder(name: str) -> tuple[Path, Path]:
    """A folder of pictures by its ``name``, and the root that it lies in, both resolved: a path in
    ComfyUI's input folder, or one that begins with ``input``, ``output`` or the name of another
    root, of which the user's file ``folders.yaml`` (see ``private_folder``) holds names and paths.
    Raises ``BadOption`` for an empty name, and for what is no folder there, by links as well."""
    if not name.strip():
        raise BadOption(
            "No folder is named: write the name of one in ComfyUI's input folder, or input for all "
            "of it."
        )
    roots = {**_comfy_roots(), **_own_roots()}
    first, _, rest = name.replace("\\", "/").strip().strip("/").partition("/")
    if first not in roots:
        first, rest = "input", f"{first}/{rest}".strip("/")
    root = roots.get(first)
    path = _inside(root, rest) if rest else root and root.resolve()
    if root is None or path is None or _leads_out(name.strip()) or not path.is_dir():
        raise BadOption(
            f"{name[:200]!r} is no folder that may be used. Name one in ComfyUI's input folder, or "
            f"begin with one of: {', '.join(roots) or 'input, output'}. More can be listed in "
            f"{private_folder() / _ROOTS_FILE}, as in datasets: /path/to/datasets."
        )
    return path, root.resolve()


def _comfy_roots() -> dict[str, Path]:
    found = {name: optional_import("folder_paths", getter) for name, getter in _FOLDERS.items()}
    return {name: Path(get()) for name, get in found.items() if get}


def _own_roots() -> dict[str, Path]:
    file = private_folder() / _ROOTS_FILE
    if not file.is_file():
        return {}
    found = read_mapping(file)
    for name, path in found.items():
        if not isinstance(name, str) or not isinstance(path, str) or not Path(path).is_absolute():
            raise BadOption(f"{file}: write a name and a whole path, as in datasets: /data/sets.")
    return {name: Path(path) for name, path in found.items()}


_ROOTS_FILE = "folders.yaml"
_FOLDERS = {"input": "get_input_directory", "output": "get_output_directory"}


def _inside(folder: Path | None, name: str) -> Path | None:
    """The path of ``name`` in ``folder``; None where it leads out.

    By its words first: to resolve a path of another machine's, Windows would ask that machine, and
    tell it who asks."""
    if folder is None or not name or "\0" in name or _leads_out(name):
        return None
    try:
        folder = folder.resolve()
        path = (folder / name).resolve()
    except (OSError, RuntimeError, ValueError):  # a link to itself; too long; not a name at all
        return None
    return path if path != folder and path.is_relative_to(folder) else None


def _leads_out(name: str) -> bool:
    """Whether a name begins at a drive, at a machine or at a root, or goes up, on any system."""
    paths = PurePath(name), PureWindowsPath(name)
    return any(path.anchor or ".." in path.parts for path in paths)


def _is_input_file(name: str) -> bool:
    try:
        return input_file(name).is_file()
    except (BadOption, OSError, RuntimeError):  # a link that leads out, or to itself
        return False


def _input_folder() -> Path | None:
    folder = optional_import("folder_paths", "get_input_directory")
    return Path(folder()) if folder else None
