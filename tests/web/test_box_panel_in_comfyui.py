"""Box panel in a real ComfyUI, in both renderers: choosing among boxes by clicking."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from canvas import Canvas

pytestmark = [pytest.mark.web, pytest.mark.comfyui]
EXAMPLE = Path(__file__).resolve().parent / "workflows" / "pick_boxes.json"
PICTURE, MODEL, FIND, PICK, CROP, SHOW = "1", "2", "4", "5", "6", "7"  # nodes of the example
PADDING = 8  # in it


class Graph:
    """A workflow with boxes in a browser."""

    def __init__(self, canvas: Canvas, site: Any):
        self.canvas, self.site, self.page = canvas, site, canvas.page

    def open(self) -> None:
        """Grounding, Pick Boxes and a crop of its box."""
        saved = json.loads(EXAMPLE.read_text(encoding="utf-8"))
        by_id = {str(node["id"]): node for node in saved["nodes"]}
        by_id[PICTURE]["widgets_values"][0] = "shapes.png"
        by_id[FIND]["widgets_values"][0] = "orange triangle, blue cross"
        self.canvas.js(
            """async (saved) => {
              await app.loadGraphData({ ...saved, id: crypto.randomUUID() }, true, true, "boxes");
              app.canvas.ds.scale = 0.6;
              app.canvas.ds.offset = [60, 60];
              app.graph.setDirtyCanvas(true, true);
            }""",
            saved,
        )

    def run(self) -> dict[str, Any]:
        """What ComfyUI reports of a run queued from the page."""
        with self.page.expect_response("**/prompt") as answer:
            self.canvas.run()
        return self.site.finished(answer.value.json()["prompt_id"])

    def view(self, node: str) -> Any:
        handle = self.page.evaluate_handle(
            """(id) => app.canvas.graph.getNodeById(id)
              .widgets.find(({ name }) => name === "qwen_vl_panels")
              .element.querySelector(".qvl-boxes")""",
            node,
        )
        return handle.as_element()

    def wait(self, node: str, on: list[bool]) -> None:
        """Until the boxes that a node shows are on and off like that."""
        self.page.wait_for_function(
            """([id, wanted]) => {
              const node = app.canvas.graph.getNodeById(id);
              const { element } = node.widgets.find(({ name }) => name === "qwen_vl_panels");
              const shown = [...element.querySelectorAll(".qvl-box")];
              const on = shown.map((box) => box.getAttribute("aria-pressed") === "true");
              return element.isConnected && JSON.stringify(on) === JSON.stringify(wanted);
            }""",
            arg=[node, on],
        )

    def click(self, node: str, label: str) -> None:
        self.view(node).query_selector(f'[aria-label="{label}"]').click()

    def off(self) -> list[str]:
        """Labels of the boxes that the saved workflow has switched off."""
        saved = self.canvas.js("app.rootGraph.serialize()")
        definitions = saved.get("definitions") or {}
        graphs = [saved, *definitions.get("subgraphs", [])]
        (node,) = (
            node for graph in graphs for node in graph["nodes"] if node["type"] == "QVL_PickBoxes"
        )
        widgets = [item["name"] for item in node["inputs"] if "widget" in item]
        text = node["widgets_values"][widgets.index("off")]
        return [box["label"] for box in json.loads(text or "[]")]


@pytest.fixture
def graph(canvas: Canvas, site: Any) -> Graph:
    return Graph(canvas, site)


def cached(ended: dict[str, Any]) -> set[str]:
    return set(dict(ended["status"]["messages"])["execution_cached"]["nodes"])


def test_a_click_in_grounding_changes_the_crop_and_asks_no_model(graph: Graph) -> None:
    graph.open()
    graph.run()
    for node in (FIND, PICK):
        graph.wait(node, [True, True])
    graph.click(FIND, "orange triangle")
    for node in (FIND, PICK):
        graph.wait(node, [False, True])
    assert graph.off() == ["orange triangle"]
    ended = graph.run()
    assert {PICTURE, MODEL, FIND} <= cached(ended)
    assert not {PICK, CROP, SHOW} & cached(ended)
    (entry,) = ended["outputs"][FIND]["qwen_vl"]
    cross = entry["boxes"][1]
    height, width = entry["size"]
    x1, y1 = max(0, cross["x1"] - PADDING), max(0, cross["y1"] - PADDING)
    x2, y2 = min(width, cross["x2"] + PADDING), min(height, cross["y2"] + PADDING)
    (crop,) = ended["outputs"][SHOW]["images"]
    size = graph.canvas.js(
        """async (file) => {
          const picture = await createImageBitmap(
            await (await fetch(`/view?${new URLSearchParams(file)}`)).blob(),
          );
          return [picture.width, picture.height];
        }""",
        crop,
    )
    assert size == [x2 - x1, y2 - y1]
    graph.click(PICK, "orange triangle")
    for node in (FIND, PICK):
        graph.wait(node, [True, True])
    assert graph.off() == []


def test_undo_and_redo_of_a_choice(graph: Graph) -> None:
    graph.open()
    graph.run()
    graph.wait(PICK, [True, True])
    graph.click(FIND, "blue cross")
    graph.wait(PICK, [True, False])
    graph.page.evaluate("document.activeElement.blur()")
    graph.page.keyboard.press("Control+z")
    for node in (FIND, PICK):
        graph.wait(node, [True, True])
    graph.page.keyboard.press("Control+y")
    for node in (FIND, PICK):
        graph.wait(node, [True, False])
    # What is on the page is the new node's, not what was left of the old one.
    graph.click(FIND, "orange triangle")
    graph.wait(PICK, [False, False])


def test_without_pick_boxes_the_choice_waits_for_it(graph: Graph) -> None:
    graph.open()
    graph.run()
    graph.wait(FIND, [True, True])
    graph.canvas.js("(id) => app.graph.remove(app.graph.getNodeById(id))", PICK)
    graph.click(FIND, "blue cross")
    graph.wait(FIND, [True, False])
    hint = graph.view(FIND).query_selector(".qvl-hint")
    assert hint.inner_text() == "Add Qwen-VL Pick Boxes to use this choice"
    hint.click()
    hint.wait_for_element_state("hidden")
    assert graph.off() == ["blue cross"]
    (links,) = graph.canvas.js(
        """() => app.graph.nodes.filter((node) => node.comfyClass === "QVL_PickBoxes")
          .map((node) => node.inputs.filter((i) => i.link != null).map((i) => i.name))"""
    )
    assert links == ["bboxes", "images"]


def test_a_choice_reaches_into_a_subgraph(graph: Graph) -> None:
    graph.open()
    graph.run()
    graph.wait(FIND, [True, True])
    graph.canvas.js(
        "(id) => { app.graph.convertToSubgraph(new Set([app.graph.getNodeById(id)])); }", PICK
    )
    graph.click(FIND, "blue cross")
    graph.wait(FIND, [True, False])
    assert graph.off() == ["blue cross"]


def test_the_view_is_neither_saved_nor_queued(graph: Graph) -> None:
    graph.open()
    graph.run()
    graph.wait(FIND, [True, True])
    saved = json.dumps(graph.canvas.js("app.rootGraph.serialize()"))
    queued = json.dumps(graph.canvas.js("async () => (await app.graphToPrompt()).output"))
    for text in (saved, queued):
        assert "qwen_vl_panels" not in text and "rgb(" not in text
    for node in (FIND, PICK):
        held = graph.canvas.js("(id) => app.rootGraph.getNodeById(id).serialize()", node)
        widgets = [item for item in held["inputs"] if "widget" in item]
        assert len(held["widgets_values"]) == len(widgets) > 5
