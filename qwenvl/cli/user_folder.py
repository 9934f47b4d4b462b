"""Configuration folder of the user: where the command line finds ``keys.yaml`` and
``llama_server.yaml``, which ComfyUI keeps in ``user/__qwen_vl``."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_NAME = "qwenvl"


def user_folder() -> Path | None:
    """``%APPDATA%\\qwenvl``, ``~/Library/Application Support/qwenvl`` or ``~/.config/qwenvl``
    (below ``XDG_CONFIG_HOME``, where that is a whole path), whether it is there or not. None of a
    user without a home.

    https://specifications.freedesktop.org/basedir-spec/latest"""
    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        return _whole("APPDATA", home / "AppData" / "Roaming") / _NAME
    if sys.platform == "darwin":
        return home / "Library" / "Application Support" / _NAME
    return _whole("XDG_CONFIG_HOME", home / ".config") / _NAME


def user_file(name: str) -> Path | None:
    """The file of that name there."""
    folder = user_folder()
    return folder / name if folder else None


def _whole(variable: str, usual: Path) -> Path:
    """The folder that an environment variable names by a whole path, else the usual one."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else usual
