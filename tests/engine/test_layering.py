"""Who may import whom, read from the source: nothing is imported here."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = sorted((ROOT / "qwenvl").rglob("*.py"))
NODES = sorted((ROOT / "nodes").rglob("*.py"))
# What loads a model and what runs it; nothing else imports transformers.
WITH_TRANSFORMERS = {
    "qwenvl/checkpoints/transformers_version.py",
    "qwenvl/inference/kv_cache.py",
    "qwenvl/inference/model_runner.py",
    "qwenvl/inference/speculative/mtp.py",
    "qwenvl/models/attention.py",
    "qwenvl/models/load_progress.py",
    "qwenvl/models/loading.py",
    "qwenvl/models/quantization.py",
    "qwenvl/prompting/template_sandbox.py",
    "qwenvl/prompting/tokenizer.py",
}
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


@pytest.mark.parametrize("path", ENGINE, ids=label)
def test_the_engine_knows_nothing_of_comfyui(path):
    assert not outside(path) & HOST
    depth = len(path.relative_to(ROOT / "qwenvl").parts)
    climbs = {name for level, name in imports(path.read_text(encoding="utf-8")) if level > depth}
    assert not climbs, "the engine imports from outside itself"


@pytest.mark.parametrize(
    "path", [p for p in ENGINE + NODES if label(p) not in WITH_TRANSFORMERS], ids=label
)
def test_few_files_import_transformers(path):
    assert "transformers" not in outside(path)


@pytest.mark.parametrize("path", [p for p in NODES if p.parent.name != "host"], ids=label)
def test_only_host_touches_comfyui_beyond_its_schemas(path):
    assert not outside(path) & (HOST - {"comfy_api"})


@pytest.mark.parametrize("path", [ROOT / "__init__.py", *ENGINE, *NODES], ids=label)
def test_the_pack_imports_itself_relatively(path):
    assert not outside(path) & {"qwenvl", "nodes", "nano", "qwen_vl_suite"}
