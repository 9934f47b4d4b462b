"""Starting ComfyUI must not pay for this pack: heavy libraries come with the first use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "transformers",
    "av",
    "bitsandbytes",
    "llguidance",
    "pypdfium2",
    "accelerate",
    "PIL.Image",
    "huggingface_hub",
    "requests",
)
# Their business is tensors: torch, and torch alone, may come with them.
TENSOR_ROOMS = (
    ".qwenvl.backends.definition",
    ".qwenvl.backends.gguf",
    ".qwenvl.backends.local",
    ".qwenvl.backends.resident",
    ".qwenvl.backends.served_weights",
    ".qwenvl.inference",
    ".qwenvl.media.audio",
    ".qwenvl.media.image_processor",
    ".qwenvl.media.images",
    ".qwenvl.media.video_processor",
    ".qwenvl.models",
    ".qwenvl.prompting.prompt",
)

SCRIPT = """
import importlib, json, sys
sys.path.insert(0, sys.argv[1])
import conftest
for name in json.loads(sys.argv[2]):
    importlib.import_module(conftest.NAME + name)
print(json.dumps(sorted(sys.modules)))
"""


def engine_modules() -> list[str]:
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / "qwenvl").rglob("*.py")
    }
    return sorted(
        "." + name.removesuffix(".__init__") for name in names if not name.endswith("__main__")
    )


def loaded_after(names: list[str]) -> set[str]:
    """Modules that a fresh interpreter holds once the pack and ``names`` are imported."""
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT / "tests"), json.dumps(names)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return set(json.loads(run.stdout))


def test_the_pack_alone_brings_nothing():
    assert not loaded_after([]) & {*HEAVY, "torch", "numpy"}


def test_light_modules_bring_neither_torch_nor_heavier():
    names = [name for name in engine_modules() if not name.startswith(TENSOR_ROOMS)]
    assert len(names) > 5
    assert not loaded_after(names) & {*HEAVY, "torch"}


def test_no_module_brings_the_heavy_libraries():
    assert not loaded_after(engine_modules()) & set(HEAVY)


@pytest.mark.parametrize("name", ["json", "json.decoder"])
def test_the_probe_sees_what_is_imported(name):
    assert name in loaded_after([])
