"""Installed llama-server program of llama.cpp: where it is, and how to get one."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from ..errors import Unavailable

PROGRAM = "llama-server"


def find_program(own: str = "", settings: Path | None = None) -> Path:
    """The installed llama-server: ``own`` where it is given, else the one on PATH. Raises
    ``Unavailable`` where there is none, and says how to get one. ``settings``: the file where the
    user may say which it is."""
    if own:
        path = Path(own).expanduser()
        if not path.is_file() or not os.access(path, os.X_OK):
            raise Unavailable(f"{path} is no program that can be run: name {PROGRAM} itself.")
        return path
    if found := _on_path():
        return found
    elsewhere = f", or write program: and where it is into {settings}" if settings else ""
    raise Unavailable(
        f"GGUF models are served by {PROGRAM} of llama.cpp, which is not on PATH. Get it from "
        "https://github.com/ggml-org/llama.cpp/releases (or: brew install llama.cpp; winget "
        f"install llama.cpp) and start anew, so that the new PATH is seen{elsewhere}."
    )


def _on_path() -> Path | None:
    """In an absolute folder of PATH. Windows would look into the working folder first, where
    anybody may have put a program of that name."""
    name = f"{PROGRAM}.exe" if os.name == "nt" else PROGRAM
    folders = [Path(folder) for folder in os.environ.get("PATH", "").split(os.pathsep)]
    for folder in folders:
        if folder.is_absolute() and (found := shutil.which(folder / name)):
            return Path(found)
    return None
