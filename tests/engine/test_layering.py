"""Layering: which room may import which, read from the source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from qwen_vl_suite.qwenvl.families import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
QWENVL = ROOT / "qwenvl"
ENGINE = sorted(QWENVL.rglob("*.py"))
NODES = sorted((ROOT / "nodes").rglob("*.py"))

# From the bottom up. A room (a folder, or a file beside them) imports rooms of lower lines and
# itself; rooms of one line do not know one another.
LAYERS = (
    {"unicode", "notes"},
    {"errors"},
    {"types"},
    {"yaml_files"},
    {"makers_prompts"},
    {
        "families",
        "fine_tunes",
        "retrieval",
        "yarn",
        "coordinates",
        "tiles",
        "observer",
        "source",
        "constraints",
        "schema_bounds",
        "camera",
        "styles",
    },
    {"checkpoints", "media", "replies"},
    {"servers"},
    {"prompting", "tasks"},
    {"models"},
    {"inference"},
    {"backends"},
    {"query"},
    {"rounds"},
    {"run", "model_cache", "grounding", "layouts", "reading", "prompt_writing"},
    {"stream", "score", "chat", "watching", "listening"},
    {"doctor", "folders"},
    {"reviewing"},
    {"cli"},
    {"__main__"},
)
LAYER = {room: number for number, rooms in enumerate(LAYERS) for room in rooms}

# What loads a model and what runs it; nothing else imports transformers.
WITH_TRANSFORMERS = {
    "qwenvl/checkpoints/transformers_version.py",
    "qwenvl/inference/kv_cache.py",
    "qwenvl/inference/model_runner.py",
    "qwenvl/inference/speculative/mtp.py",
    "qwenvl/models/architecture.py",
    "qwenvl/models/attention.py",
    "qwenvl/models/load_progress.py",
    "qwenvl/models/loading.py",
    "qwenvl/models/quantization.py",
    "qwenvl/models/speech.py",
    "qwenvl/prompting/template_sandbox.py",
    "qwenvl/prompting/tokenizer.py",
}
# These know nothing of torch: they are quick to import, and tasks can be tried on a phone.
WITHOUT_TORCH = {
    "camera", "checkpoints", "constraints", "coordinates", "errors", "families", "fine_tunes",
    "makers_prompts", "notes", "observer", "replies", "schema_bounds", "styles", "tasks", "tiles",
    "types", "unicode", "yarn", "yaml_files",
}  # fmt: skip
HOST = {"comfy", "comfy_api", "comfy_execution", "comfy_extras", "folder_paths", "nodes", "server"}


def imports(source: str) -> Iterator[tuple[int, str]]:
    """(level, dotted name) of every import in ``source``, wherever it stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""
            if node.module is None:
                yield from ((node.level, alias.name) for alias in node.names)


def outside(path: Path) -> set[str]:
    """Top-level names of the absolute imports in a file."""
    return {
        name.split(".")[0]
        for level, name in imports(path.read_text(encoding="utf-8"))
        if level == 0
    }


def within(path: Path) -> set[str]:
    """The engine's modules, dotted from ``qwenvl``, that a file of the engine imports."""
    found = set()
    for level, name in imports(path.read_text(encoding="utf-8")):
        if level and name:
            package = path.relative_to(QWENVL).parts[: -level or None]
            found.add(".".join((*package, name)))
    return found


def room(path: Path) -> str:
    return path.relative_to(QWENVL).with_suffix("").parts[0]


def label(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_reader_sees_every_form_of_import():
    source = (
        "import a.b, c\nfrom d.e import f\nfrom . import g\nfrom ..h import i\n"
        "def late():\n    import j\n"
    )
    assert set(imports(source)) == {
        (0, "a.b"), (0, "c"), (0, "d.e"), (1, ""), (1, "g"), (2, "h"), (0, "j"),
    }  # fmt: skip


@pytest.mark.parametrize("path", [p for p in ENGINE if p != QWENVL / "__init__.py"], ids=label)
def test_no_import_goes_upward(path):
    own = room(path)
    reached = {name.split(".")[0] for name in within(path)} - {own}
    assert reached <= LAYER.keys()
    upward = {name for name in reached if LAYER[name] >= LAYER[own]}
    assert not upward, f"{own} imports {sorted(upward)}"


def test_files_import_one_another_in_no_circle():
    modules = {
        ".".join(path.relative_to(QWENVL).with_suffix("").parts).removesuffix(".__init__"): path
        for path in ENGINE
    }
    needs = {name: within(path) & modules.keys() for name, path in modules.items()}
    left = dict(needs)
    while ready := [name for name, others in left.items() if not others & left.keys() - {name}]:
        for name in ready:
            del left[name]
    assert not left, f"a circle among {sorted(left)}"


# Data: which family each checkpoint of the catalogue is of, known before its files are.
NAMES_FAMILIES = {"qwenvl/families.py", "qwenvl/checkpoints/catalogue.py"}


@pytest.mark.parametrize("path", ENGINE + NODES, ids=label)
def test_only_the_table_of_families_names_model_types(path):
    named = {
        node.value
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and node.value in FAMILIES
    }
    assert not named or label(path) in NAMES_FAMILIES


@pytest.mark.parametrize("path", ENGINE, ids=label)
def test_the_engine_knows_nothing_of_comfyui(path):
    assert not outside(path) & HOST
    depth = len(path.relative_to(QWENVL).parts)
    climbs = {name for level, name in imports(path.read_text(encoding="utf-8")) if level > depth}
    assert not climbs, "the engine imports from outside itself"


def test_few_files_know_transformers():
    found = {label(path) for path in ENGINE + NODES if "transformers" in outside(path)}
    assert found == WITH_TRANSFORMERS


@pytest.mark.parametrize("path", [p for p in ENGINE if room(p) in WITHOUT_TORCH], ids=label)
def test_rooms_without_torch(path):
    assert "torch" not in outside(path)


@pytest.mark.parametrize("path", [p for p in NODES if p.parent.name != "host"], ids=label)
def test_only_host_touches_comfyui_beyond_its_schemas(path):
    assert not outside(path) & (HOST - {"comfy_api"})


@pytest.mark.parametrize("path", [ROOT / "__init__.py", *ENGINE, *NODES], ids=label)
def test_the_pack_imports_itself_relatively(path):
    assert not outside(path) & {"qwenvl", "nodes", "nano", "qwen_vl_suite"}
