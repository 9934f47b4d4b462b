"""Appearance of the nodes in a real ComfyUI, in both renderers: sizes, zoom, lists, errors."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from canvas import DESCRIBE, Canvas

pytestmark = [pytest.mark.web, pytest.mark.comfyui]
_seeds = itertools.count(40_000)  # equal inputs would be answered from ComfyUI's cache
ANSWERING = ["QVL_Describe", "QVL_OCR", "QVL_Grounding"]

SIZE = "(id) => [...app.rootGraph.getNodeById(id).size].map(Math.round)"
ADD = """async ([type, values]) => {
  const { LiteGraph } = globalThis;
  const { graph, inputs } = app.rootGraph.nodes.find(({ type }) => type === "QVL_Describe");
  const node = LiteGraph.createNode(type);
  node.pos = [700, 0];
  graph.add(node);
  for (const widget of node.widgets) widget.value = values[widget.name] ?? widget.value;
  const slot = (name) => node.inputs.findIndex((input) => input.name === name);
  for (const name of ["model", "images"]) {
    const { link } = inputs.find((input) => input.name === name);
    const { origin_id, origin_slot } = graph.links.get(link);
    graph.getNodeById(origin_id).connect(origin_slot, node, slot(name));
  }
  const shown = LiteGraph.createNode("PreviewAny");
  graph.add(shown);
  node.connect(0, shown, 0);
  app.graph.setDirtyCanvas(true, true);
  return String(node.id);
}"""


def add(canvas: Canvas, node_type: str, **values: Any) -> str:
    """A new node on the model and the pictures of the example's Describe; its id."""
    return canvas.js(ADD, [node_type, values])


def settled(canvas: Canvas, node: str) -> list[int]:
    """A node's size once it is drawn."""
    size = None
    while size != (now := canvas.js(SIZE, node)):
        size = now
        canvas.page.wait_for_timeout(400)
    return now


@pytest.mark.parametrize("node_type", ANSWERING)
def test_a_node_is_as_large_after_its_first_run_as_before(canvas: Canvas, node_type: str) -> None:
    canvas.open("both.png", seed=next(_seeds))
    values = {"output": "lines", "find": "orange square"}
    node = add(canvas, node_type, **values)
    before = settled(canvas, node)
    canvas.run()
    canvas.wait("done", node)
    assert settled(canvas, node) == before
    if node_type != "QVL_Describe":
        assert canvas.page.locator(".qvl-image").first.is_visible()


def test_heights_stay_over_a_tab_and_a_reload(canvas: Canvas) -> None:
    canvas.open("shapes.png", seed=next(_seeds), name="tall")
    width, height = settled(canvas, DESCRIBE)
    canvas.js(
        """([id, size]) => {
          app.canvas.emitBeforeChange();
          app.rootGraph.getNodeById(id).setSize(size);
          app.canvas.emitAfterChange();
        }""",
        [DESCRIBE, [width + 40, height + 160]],
    )
    tall = settled(canvas, DESCRIBE)
    assert tall == [width + 40, height + 160]
    canvas.open("shapes.png", name="other")
    canvas.js(
        """async () => {
          const { workflow, command } = app.extensionManager;
          while (!workflow.activeWorkflow.path.includes("tall")) {
            await command.execute("Workspace.NextOpenedWorkflow");
          }
        }"""
    )
    assert settled(canvas, DESCRIBE) == tall
    canvas.page.wait_for_timeout(2000)  # for ComfyUI to keep the workflow over a reload
    canvas.reload()
    canvas.page.wait_for_function("(id) => app.rootGraph?.getNodeById(id)", arg=DESCRIBE)
    assert settled(canvas, DESCRIBE) == tall


def test_a_choice_with_inputs_of_its_own_leaves_the_node_its_height(canvas: Canvas) -> None:
    canvas.open("shapes.png")
    height = settled(canvas, DESCRIBE)[1] + 300
    canvas.js(
        """([id, height]) => {
          const node = app.rootGraph.getNodeById(id);
          node.setSize([node.size[0], height]);
        }""",
        [DESCRIBE, height],
    )
    for choice in ("custom", "greedy"):
        canvas.js(
            """([id, choice]) => {
              const node = app.rootGraph.getNodeById(id);
              node.widgets.find(({ name }) => name === "sampling").value = choice;
            }""",
            [DESCRIBE, choice],
        )
        assert settled(canvas, DESCRIBE)[1] == height


@pytest.mark.parametrize("scale", [1, 0.5, 0.25])
def test_panels_are_seen_at_every_zoom(canvas: Canvas, scale: float) -> None:
    canvas.open("shapes.png")
    canvas.js(
        """(scale) => {
          Object.assign(app.canvas.ds, { scale, offset: [300, 300] });
          app.graph.setDirtyCanvas(true, true);
        }""",
        scale,
    )
    canvas.page.wait_for_timeout(600)
    for panel in (".qvl-text-panel", ".qvl-model-panel"):
        assert canvas.page.locator(panel).first.is_visible()


def test_a_new_loader_shows_every_models_whole_name(canvas: Canvas) -> None:
    canvas.open("shapes.png")
    widths = canvas.js(
        """() => {
          const node = globalThis.LiteGraph.createNode("QVL_Loader");
          app.graph.add(node);
          const { options } = node.widgets.find(({ name }) => name === "model");
          const pen = document.createElement("canvas").getContext("2d");
          pen.font = "12px Arial";
          const longest = Math.max(...options.values.map((name) => pen.measureText(name).width));
          return [node.size[0], longest];
        }"""
    )
    width, longest = widths
    assert width >= longest + 60


def test_the_list_of_parameters_has_no_empty_inputs(canvas: Canvas, site: Any) -> None:
    canvas.open("shapes.png")
    canvas.js(
        """async (id) => {
          await app.extensionManager.setting.set("Comfy.RightSidePanel.IsOpen", true);
          app.canvas.selectItems([app.rootGraph.getNodeById(id)]);
        }""",
        DESCRIBE,
    )
    canvas.page.get_by_text("max_new_tokens").last.wait_for()
    assert canvas.page.get_by_text("qwen_vl_panels").count() == 0
    site.post("/settings", {"Comfy.RightSidePanel.IsOpen": False})


def test_an_errors_words_stand_in_the_node(canvas: Canvas) -> None:
    canvas.open("shapes.png", seed=next(_seeds))
    node = add(canvas, "QVL_Grounding", find="blue cross", max_new_tokens=3)
    before = settled(canvas, node)
    canvas.run()
    canvas.wait("failed", node)
    error = canvas.panel(node).query_selector(".qvl-text-error")
    assert "max_new_tokens" in error.text_content()
    assert error.is_visible()
    assert settled(canvas, node) == before


def test_a_cut_answer_says_which_number_to_raise(canvas: Canvas) -> None:
    canvas.open("shapes.png", seed=next(_seeds), max_new_tokens=3)
    canvas.run()
    canvas.wait("done")
    notice = canvas.panel().query_selector(".qvl-text-notice").text_content()
    assert "cut at 3 tokens" in notice and "raise max_new_tokens" in notice


def test_nothing_found_shows_the_picture(canvas: Canvas) -> None:
    canvas.open("shapes.png", seed=next(_seeds))
    node = add(canvas, "QVL_Grounding", find="purple elephant")
    canvas.run()
    canvas.wait("done", node)
    picture = canvas.page.locator(".qvl-image")
    picture.wait_for(state="visible")
    drawn = "(image) => image.decode().then(() => image.naturalWidth)"
    assert picture.evaluate(drawn) > 100


@pytest.mark.parametrize(
    ("language", "name", "status"),
    [
        ("zh", "贪心 (greedy)", "回答会显示在这里"),
        ("ja", "貪欲法 (greedy)", "ここに回答が表示されます"),
    ],
)
def test_lists_and_panels_are_translated(
    canvas: Canvas, site: Any, language: str, name: str, status: str
) -> None:
    site.post("/settings", {"Comfy.Locale": language})
    try:
        canvas.reload()
        canvas.open("shapes.png")
        assert canvas.panel().query_selector(".qvl-text-status").text_content() == status
        shown = """(id) => app.rootGraph.getNodeById(id).widgets
          .find(({ name }) => name === "sampling").options.getOptionLabel("greedy")"""
        assert canvas.js(shown, DESCRIBE) == name
        if canvas.vue:
            canvas.page.get_by_text(name).first.wait_for()
        queued = canvas.js("async () => (await app.graphToPrompt()).output")
        assert queued[DESCRIBE]["inputs"]["sampling"] in ("greedy", "model default")
    finally:
        site.post("/settings", {"Comfy.Locale": "en"})
