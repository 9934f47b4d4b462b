"""What the ComfyUI registry is told of the pack, and whether it is true.

``tests/golden/oldest_io.json`` is ``comfy_api.latest.io`` of the oldest ComfyUI that the pack
declares: its names, and the arguments that their inputs, outputs and options take.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10, where pytest brings it
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
# As the registry's own client reads them: anything else is dropped without an error.
_VERSION = re.compile(r"(==|>=|<=|!=|~=|>|<|<>|=)\s*\d+\.\d+\.\d+")
_SYSTEMS = ("Microsoft", "POSIX", "MacOS", "OS Independent")
_DEVICES = {
    "GPU :: NVIDIA CUDA",
    "GPU :: AMD ROCm",
    "GPU :: Intel Arc",
    "GPU :: Apple Metal",
    "NPU :: Huawei Ascend",
}
# What a user's ComfyUI reads, and what a person looks for in an installed pack.
_SHIPPED = {
    *("__init__.py", "pyproject.toml", "requirements.txt"),
    *("README.md", "CHANGELOG.md", "LICENSE"),
    *("nodes", "qwenvl", "nano", "web", "locales", "subgraphs", "example_workflows"),
}


OLDEST = json.loads((ROOT / "tests/golden/oldest_io.json").read_text(encoding="utf-8"))
NODES = sorted((ROOT / "nodes").rglob("*.py"))


@pytest.fixture(scope="module")
def metadata() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def git(*arguments: str) -> set[str]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z", *arguments]
    listed = subprocess.run(command, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("the archive is made from what git tracks, and this is no git checkout")
    return set(listed.stdout.split("\0")) - {""}


@pytest.fixture(scope="module")
def archive(metadata: dict[str, Any]) -> set[str]:
    """Paths of the published archive: tracked, not ignored, or included in spite of it."""
    left_out = git("--cached", "--ignored", "--exclude-from", str(ROOT / ".comfyignore"))
    tracked = git()
    kept = tuple(f"{folder}/" for folder in metadata["tool"]["comfy"]["includes"])
    return {path for path in tracked if path not in left_out or path.startswith(kept)}


def test_the_name_and_version_are_ones_the_registry_takes(metadata: dict[str, Any]) -> None:
    project = metadata["project"]
    assert re.fullmatch(r"[a-z](?:[a-z0-9]|[-_.](?![-_.]))*", project["name"])
    assert len(project["name"]) < 100 and "comfyui" not in project["name"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert f"## {project['version']} " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert (ROOT / project["license"]["file"]).is_file()


def test_versions_and_classifiers_are_ones_the_registry_does_not_drop(
    metadata: dict[str, Any],
) -> None:
    comfy = metadata["tool"]["comfy"]
    assert comfy["PublisherId"] and comfy["DisplayName"]
    for part in comfy["requires-comfyui"].split(","):
        assert _VERSION.fullmatch(part.strip())
    classifiers = metadata["project"]["classifiers"]
    systems = [item.partition("Operating System :: ")[2] for item in classifiers]
    assert any(systems) and all(item.startswith(_SYSTEMS) for item in systems if item)
    devices = {item.partition("Environment :: ")[2] for item in classifiers} - {""}
    assert devices and devices <= _DEVICES


def test_the_web_folder_is_named_once(metadata: dict[str, Any]) -> None:
    """ComfyUI serves ``[tool.comfy] web`` beside ``WEB_DIRECTORY``: named in both, every script
    would run twice."""
    assert "web" not in metadata["tool"]["comfy"]


@pytest.mark.parametrize(("field", "shape"), [("Icon", (1, 1)), ("Banner", (21, 9))])
def test_the_pictures_have_the_registrys_shapes_and_addresses(
    metadata: dict[str, Any], field: str, shape: tuple[int, int]
) -> None:
    from PIL import Image

    path = f"docs/{field.lower()}.png"
    with Image.open(ROOT / path) as picture:
        assert picture.width * shape[1] == picture.height * shape[0]
        assert field != "Icon" or picture.width <= 400
    home = metadata["project"].get("urls", {}).get("Repository", "")
    raw = home.replace("https://github.com/", "https://raw.githubusercontent.com/")
    assert metadata["tool"]["comfy"].get(field) == (f"{raw}/main/{path}" if home else None)


def test_the_archive_holds_what_a_user_needs_and_nothing_else(archive: set[str]) -> None:
    assert {path.split("/")[0] for path in archive} <= _SHIPPED
    assert {path for path in archive if path.startswith("nano/")} == git("nano/checkpoint")
    for folder in ("nodes", "qwenvl", "web", "locales", "subgraphs", "example_workflows"):
        assert git(folder) <= archive
    for name in ("__init__.py", "requirements.txt", "LICENSE", "nano/checkpoint/model.safetensors"):
        assert name in archive
    assert sum((ROOT / path).stat().st_size for path in archive) < 20 * 2**20


def dotted(node: ast.expr) -> list[str]:
    """``["io", "Int", "Input"]`` of ``io.Int.Input``; empty where it is no dotted name."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute) and (start := dotted(node.value)):
        return [*start, node.attr]
    return []


def unknown(source: str) -> Iterator[str]:
    """What ``source`` uses of ``io`` that the oldest ComfyUI lacks."""
    for node in ast.walk(ast.parse(source)):
        called = isinstance(node, ast.Call)
        match dotted(node.func if called else node) if isinstance(node, ast.expr) else []:
            case ["io", name, *_] if name not in OLDEST["io"]:
                yield f"io.{name}"
            case ["io", name, "Input" | "Output" | "Option" as part] if (
                part not in OLDEST["io"][name]
            ):
                yield f"io.{name}.{part}"
            case ["io", name, "Input" | "Output" | "Option" as part] if called:
                given = {item.arg for item in node.keywords} - {None}
                known = OLDEST["io"][name][part]
                yield from (f"io.{name}.{part}({x}=)" for x in given - set(known))


def test_the_reader_sees_what_is_too_new() -> None:
    source = (
        "io.Int.Input('n', min=1, advanced=True)\nio.Later.Input('x')\nio.DynamicCombo.Output()\n"
    )
    assert set(unknown(source)) == {"io.Int.Input(advanced=)", "io.Later", "io.DynamicCombo.Output"}


@pytest.mark.parametrize("path", NODES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_oldest_comfyui_has_all_that_the_schemas_use(path: Path) -> None:
    assert not list(unknown(path.read_text(encoding="utf-8")))


def test_the_oldest_comfyui_is_the_one_that_is_declared(metadata: dict[str, Any]) -> None:
    assert metadata["tool"]["comfy"]["requires-comfyui"] == f">={OLDEST['comfyui']}"
