"""How the host's own modules are reached."""

from __future__ import annotations

import importlib
from typing import Any


def part(module: str, name: str = "") -> Any:
    """A module of ComfyUI, or ``name`` in it; None where this host has no such part."""
    try:
        found = importlib.import_module(module)
    except ImportError:
        return None
    return getattr(found, name, None) if name else found
