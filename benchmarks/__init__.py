"""Benchmarks: side-by-side measurements, never tests: `python -m benchmarks NAME --json`.

The pack is loaded by path, as ComfyUI does.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]


def load_pack() -> ModuleType:
    """Imports the pack as ``qwen_vl_suite``. The root leaves ``sys.path``, where its folder
    ``nodes`` would shadow ComfyUI's own module of that name."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    spec = importlib.util.spec_from_file_location(
        "qwen_vl_suite", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    pack = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = pack
    spec.loader.exec_module(pack)
    return pack
