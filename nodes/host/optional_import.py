"""Optional imports of ComfyUI's own modules, which differ between releases and runtimes."""

from __future__ import annotations

import importlib
from typing import Any


def optional_import(module: str, name: str = "") -> Any:
    """A module of ComfyUI, or ``name`` in it; None where this ComfyUI does not have it."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        return None
    return getattr(found, name, None) if name else found
