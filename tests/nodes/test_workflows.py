"""The example workflows against our schemas and a record of the core nodes that they use.

The record (``tests/golden/core_nodes.json``) holds names and types as a real server gives them;
``tests/comfyui`` compares it with one.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from real import ROOT
from saved import NOTES, WORKFLOWS, read, values

CORE = json.loads((ROOT / "tests/golden/core_nodes.json").read_text(encoding="utf-8"))
# Sockets that take the type of what is connected to them.
ANY = "COMFY_MATCHTYPE_V3"
# Inputs that hold others, saved as "name.inner".
NESTING = ("COMFY_AUTOGROW_V3", "COMFY_DYNAMICCOMBO_V3")
# Nodes that choose a model which does not come with the pack.
ELSEWHERE = {"QVL_Server", "QVL_GGUF", "QVL_FromCLIP"}
KINDS = {"INT": int, "FLOAT": (int, float), "STRING": str, "BOOLEAN": bool, "COMBO": str}

every_workflow = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)


def type_of(cls: Any) -> tuple[dict[str, Any], list[list[str]]]:
    """Input specs, flat, and (name, type) of the outputs of one of our nodes."""
    info = cls.GET_SCHEMA().get_v1_info(cls)
    inputs = {**info.input.get("required", {}), **info.input.get("optional", {})}
    return inputs, [list(pair) for pair in zip(info.output_name, info.output, strict=True)]


def sockets_of(nodes: Any, node: dict[str, Any]) -> tuple[dict[str, str], list[list[str]]]:
    if node["type"] in nodes:
        specs, outputs = type_of(nodes[node["type"]])
        return {name: spec[0] for name, spec in specs.items()}, outputs
    core = CORE[node["type"]]
    return core["inputs"], core["outputs"]


def widgets(specs: dict[str, Any], values: list[Any]) -> list[tuple[dict[str, Any], Any]]:
    """(spec, saved value) of each widget, in the order in which the front end saves them: what a
    dynamic combo shows follows it, and a control follows what it controls."""
    pairs: list[tuple[dict[str, Any], Any]] = []
    queue, rest = list(specs.values()), list(values)
    while queue:
        kind, options = queue.pop(0)
        if kind not in ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN", "COMFY_DYNAMICCOMBO_V3"):
            continue
        value = rest.pop(0)
        pairs.append(({"kind": kind, **options}, value))
        if options.get("control_after_generate"):
            assert rest.pop(0) in ("fixed", "increment", "decrement", "randomize")
        if kind == "COMFY_DYNAMICCOMBO_V3":
            chosen = next(item for item in options["options"] if item["key"] == value)
            queue = [*chosen["inputs"].get("required", {}).values(), *queue]
    assert not rest, f"values without a widget: {rest}"
    return pairs


Corners = tuple[float, float, float, float]


def corners(x: float, y: float, wide: float, high: float) -> Corners:
    return x, y, x + wide, y + high


def area(node: dict[str, Any]) -> Corners:
    title = 30  # pixels above a node's position
    (x, y), (wide, high) = node["pos"], node["size"]
    return corners(x, y - title, wide, high + title)


def apart(a: Corners, b: Corners) -> bool:
    return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def inside(a: Corners, b: Corners) -> bool:
    return b[0] <= a[0] and b[1] <= a[1] and a[2] <= b[2] and a[3] <= b[3]


def test_there_are_examples_of_each_node(nodes: Any) -> None:
    used = {node["type"] for path in WORKFLOWS for node in read(path)["nodes"]}
    assert set(nodes) - used <= {"QVL_BoxFormat", "QVL_LoRA", "QVL_Unload"}


@every_workflow
def test_nodes_are_known_with_their_sockets(nodes: Any, path: Path) -> None:
    for node in read(path)["nodes"]:
        if node["type"] in NOTES:
            continue
        inputs, outputs = sockets_of(nodes, node)
        for item in node["inputs"]:
            # The front end saves an upload button as an input of its own.
            if item["name"] != "upload":
                name = item["name"].split(".")[0]
                assert inputs[name] in (item["type"], *NESTING), (node["type"], item["name"])
        saved = node.get("outputs", [])
        assert [item["name"] for item in saved] == [name for name, _ in outputs], node["type"]
        for item, (_, kind) in zip(saved, outputs, strict=True):
            assert kind in (item["type"], ANY), node["type"]


@every_workflow
def test_links_join_sockets_of_one_type(path: Path) -> None:
    workflow = read(path)
    by_id = {node["id"]: node for node in workflow["nodes"]}
    wanted = {
        item["link"]: (node["id"], slot)
        for node in workflow["nodes"]
        for slot, item in enumerate(node["inputs"])
        if item["link"] is not None
    }
    assert set(wanted) == {link[0] for link in workflow["links"]}
    for link, source, out_slot, target, in_slot, kind in workflow["links"]:
        start = by_id[source]["outputs"][out_slot]
        end = by_id[target]["inputs"][in_slot]
        assert start["type"] == kind and end["type"] in (kind, "*")
        assert link in start["links"] and wanted[link] == (target, in_slot)


@every_workflow
def test_nothing_that_must_be_connected_is_left_open(nodes: Any, path: Path) -> None:
    for node in read(path)["nodes"]:
        for item in node["inputs"]:
            if "widget" not in item and item.get("shape") != 7:
                assert item["link"] is not None, (node["type"], item["name"])


@every_workflow
def test_widget_values_fit_their_widgets(nodes: Any, path: Path) -> None:
    for node in read(path)["nodes"]:
        if node["type"] not in nodes:
            continue
        specs, _ = type_of(nodes[node["type"]])
        for spec, value in widgets(specs, node["widgets_values"]):
            if spec["kind"] == "COMBO":
                is_file = isinstance(value, str) and value.endswith(".gguf")
                assert value in spec["options"] or is_file
            elif spec["kind"] in ("INT", "FLOAT"):
                assert spec["min"] <= value <= spec["max"]


@every_workflow
def test_values_of_core_widgets_have_their_types(nodes: Any, path: Path) -> None:
    for node in read(path)["nodes"]:
        if node["type"] in nodes or node["type"] in NOTES:
            continue
        for item, value in values(node):
            kind = KINDS.get(item["type"])
            assert kind is None or isinstance(value, kind), (node["type"], item["name"], value)


@every_workflow
def test_a_checkpoint_that_is_not_here_can_be_fetched(path: Path) -> None:
    for node in read(path)["nodes"]:
        if node["type"] == "CheckpointLoaderSimple":
            (model,) = node["properties"]["models"]
            assert [model["name"]] == node["widgets_values"]
            assert model["directory"] == "checkpoints"
            assert model["url"].startswith("https://huggingface.co/")
            assert model["url"].split("?")[0].endswith("/" + model["name"])


@every_workflow
def test_every_node_has_a_use(nodes: Any, path: Path) -> None:
    for node in read(path)["nodes"]:
        ends = not node["outputs"] or node["type"] in {*NOTES, "PreviewAny"}
        ends = ends or shows_itself(nodes, node["type"])
        assert ends or any(item["links"] for item in node["outputs"]), node["type"]


def shows_itself(nodes: Any, node_type: str) -> bool:
    return node_type in nodes and nodes[node_type].GET_SCHEMA().is_output_node


@every_workflow
def test_the_model_is_one_that_everybody_has(path: Path) -> None:
    """Or one that the user has, elsewhere."""
    kinds = {"QVL_Loader", *ELSEWHERE}
    (loader,) = (node for node in read(path)["nodes"] if node["type"] in kinds)
    assert loader["type"] in ELSEWHERE or loader["widgets_values"][0] == "nano (bundled demo)"


@every_workflow
def test_nodes_have_places_and_do_not_cover_each_other(path: Path) -> None:
    workflow = read(path)
    areas = [area(node) for node in workflow["nodes"]]
    for node in workflow["nodes"]:
        assert node["size"][0] >= 200 and node["size"][1] >= 60
    for i, one in enumerate(areas):
        assert all(apart(one, other) for other in areas[:i]), one


@every_workflow
def test_a_group_holds_whole_nodes(path: Path) -> None:
    workflow = read(path)
    groups = [corners(*group["bounding"]) for group in workflow["groups"]]
    for i, group in enumerate(groups):
        assert all(apart(group, other) for other in groups[:i])
        areas = [area(node) for node in workflow["nodes"]]
        assert any(inside(one, group) for one in areas)
        assert all(inside(one, group) or apart(one, group) for one in areas)


@every_workflow
def test_pictures_are_ones_that_everybody_has(path: Path) -> None:
    """And that the bundled model understands: whoever opens an example can run it at once. (It
    hears nothing: an example of sounds says so.)"""
    used = {node["type"] for node in read(path)["nodes"]}
    brought = {"QVL_CaptionFolder", "QVL_ExamplePicture", "QVL_LoadPDF", "QVL_Video", "LoadAudio"}
    assert used & brought and not used & {"LoadImage", "LoadVideo"}


def test_an_example_is_called_by_a_sentence() -> None:
    """ComfyUI shows the name of its file."""
    for path in WORKFLOWS:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9, ]+", path.stem) and " " in path.stem


@every_workflow
def test_a_note_says_in_each_language_what_it_is_for(path: Path) -> None:
    (note,) = (node for node in read(path)["nodes"] if node["type"] in NOTES)
    assert note["title"] == "Note"
    assert "`" not in note["widgets_values"][0]  # Nodes 2.0 shows code in blue on blue.
    # Without the empty line above it, the rule would make a heading of the paragraph before it.
    english, chinese, japanese = note["widgets_values"][0].split("\n\n---\n")
    assert english.isascii()
    assert re.search("[\u4e00-\u9fff]", chinese) and not re.search("[\u3040-\u30ff]", chinese)
    assert re.search("[\u3040-\u30ff]", japanese)
    used = {node["type"] for node in read(path)["nodes"]}
    assert used & ELSEWHERE or all("nano" in part for part in (english, chinese, japanese))


@every_workflow
def test_has_a_thumbnail(path: Path) -> None:
    from PIL import Image

    with Image.open(path.with_suffix(".jpg")) as picture:
        assert min(picture.size) >= 300
    assert path.with_suffix(".jpg").stat().st_size < 60_000
