"""Answer panel in a real ComfyUI, in both renderers."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from canvas import DESCRIBE, Canvas

pytestmark = [pytest.mark.web, pytest.mark.comfyui]
_seeds = itertools.count(1)  # equal inputs would be answered from ComfyUI's cache


def seed() -> int:
    return next(_seeds)


def history(site: Any) -> dict[str, Any]:
    """The newest run."""
    entries = site.get("/history?max_items=1")
    return next(iter(entries.values()))


def results(site: Any) -> list[str]:
    return [entry["text"] for entry in history(site)["outputs"][DESCRIBE]["qwen_vl"]]


def test_text_streams_into_the_node_and_stays_out_of_the_workflow(
    site: Any, canvas: Canvas
) -> None:
    canvas.open("shapes.png", seed=seed())
    assert canvas.shown() == ("empty", "")
    canvas.record()
    with canvas.page.expect_request("**/prompt") as sent:
        canvas.run()
    canvas.wait("done")
    (final,) = results(site)
    assert canvas.shown() == ("done", final)
    growing = canvas.recorded
    assert growing[-1] == final
    assert all(final.startswith(text) for text in growing)
    assert canvas.panel().is_visible()

    queued = json.dumps(sent.value.post_data_json)
    saved = json.dumps(canvas.js("app.rootGraph.serialize()"))
    for trace in ("qwen_vl_panels", final, growing[0]):
        assert trace not in queued and trace not in saved
    counts = """(id) => {
      const node = app.rootGraph.getNodeById(id);
      return node.widgets.length - node.serialize().widgets_values.length;
    }"""
    assert canvas.js(counts, DESCRIBE) == 2  # the panel, and the button for the style's words


def test_copying_and_selecting(site: Any, canvas: Canvas) -> None:
    canvas.open("shapes.png", seed=seed())
    canvas.run()
    canvas.wait("done")
    (final,) = results(site)
    canvas.page.get_by_role("button", name="Copy", exact=True).click()
    canvas.wait_for_clipboard(final)
    words = canvas.page.locator(".qvl-text-words")
    words.click()
    canvas.page.keyboard.press("Control+a")
    assert canvas.js("getSelection().toString()").strip() == final
    assert canvas.js("Object.keys(app.canvas.selected_nodes).length") <= 1
    words.dblclick(position={"x": 8, "y": 8})
    word = canvas.js("getSelection().toString()").strip()
    assert word and word in final
    canvas.page.keyboard.press("Control+c")
    canvas.wait_for_clipboard(word)
    canvas.page.keyboard.press("Delete")
    assert canvas.js("(id) => app.rootGraph.getNodeById(id) !== null", DESCRIBE)


def test_leafing_through_a_batch(site: Any, canvas: Canvas) -> None:
    canvas.open("both.png", "shapes.png", seed=seed())
    canvas.run()
    canvas.wait("done")
    first, second = results(site)
    assert first != second
    assert canvas.shown() == ("done", first)
    canvas.page.get_by_role("button", name="Next picture").click()
    assert canvas.shown() == ("done", second)
    assert canvas.page.locator(".qvl-text-place").text_content() == "2 / 2"
    canvas.page.get_by_role("button", name="Copy all").click()
    canvas.wait_for_clipboard(f"{first}\n\n{second}")


def test_an_answer_from_the_cache_is_shown(site: Any, canvas: Canvas) -> None:
    same = seed()
    canvas.open("shapes.png", seed=same)
    canvas.run()
    canvas.wait("done")
    text = canvas.shown()[1]
    canvas.open("shapes.png", seed=same, name="anew")
    assert canvas.shown() == ("empty", "")
    canvas.run()
    canvas.wait("done")
    assert canvas.shown() == ("done", text)


def test_stop_keeps_what_was_written(site: Any, canvas: Canvas) -> None:
    canvas.open("words.png", repeat=400, seed=seed())
    canvas.record()
    canvas.run()
    canvas.page.wait_for_function("recorded.some((text) => text)")
    site.post("/interrupt", {})
    canvas.wait("stopped")
    written = canvas.panel().query_selector(".qvl-text-place").text_content()
    assert written.endswith("/ 400")
    assert canvas.recorded[-1] == canvas.shown()[1] != ""


def test_an_error_amid_the_answer_is_marked(site: Any, canvas: Canvas) -> None:
    canvas.open("shapes.png", seed=seed())
    canvas.js(
        """(id) => {
          const { graph, widgets, inputs } = app.rootGraph.getNodeById(id);
          const find = globalThis.LiteGraph.createNode("QVL_Grounding");
          graph.add(find);
          const set = { find: "blue cross", max_new_tokens: 3 };
          find.widgets.forEach((widget) => (widget.value = set[widget.name] ?? widget.value));
          const source = (name) => graph.getNodeById(
            graph.links.get(inputs.find((input) => input.name === name).link).origin_id);
          const slot = (name) => find.inputs.findIndex((input) => input.name === name);
          for (const name of ["model", "images"]) source(name).connect(0, find, slot(name));
          const shown = globalThis.LiteGraph.createNode("PreviewAny");
          graph.add(shown);
          find.connect(0, shown, 0);
          globalThis.found = String(find.id);
        }""",
        DESCRIBE,
    )
    canvas.run()
    found = canvas.js("found")
    canvas.wait("failed", found)
    assert canvas.shown(found)[1]


def inside(canvas: Canvas) -> str:
    """Puts the Describe node into a subgraph. The subgraph node's id."""
    return canvas.js(
        """(id) => {
          const node = app.rootGraph.getNodeById(id);
          const { node: outer } = app.rootGraph.convertToSubgraph(new Set([node]));
          return String(outer.id);
        }""",
        DESCRIBE,
    )


def test_a_node_in_a_subgraph(site: Any, canvas: Canvas) -> None:
    canvas.open("shapes.png", seed=seed())
    outer = inside(canvas)
    canvas.run()
    canvas.page.wait_for_function(
        "([outer, inner]) => Object.values(app.nodeOutputs).some(({ qwen_vl }) => qwen_vl)",
        arg=[outer, DESCRIBE],
    )
    canvas.js("(id) => app.canvas.openSubgraph(app.rootGraph.getNodeById(id).subgraph)", outer)
    inner = canvas.js("String(app.canvas.graph.nodes[0].id)")
    canvas.wait("done", inner)
    outputs = history(site)["outputs"][f"{outer}:{inner}"]["qwen_vl"]
    assert canvas.shown(inner) == ("done", outputs[0]["text"])
    canvas.panel(inner).wait_for_element_state("visible")


def tab(canvas: Canvas, name: str) -> None:
    """Opens another tab that is there already."""
    canvas.js(
        """async (name) => {
          const { workflow, command } = app.extensionManager;
          for (let turn = 0; turn < workflow.openWorkflows.length; turn++) {
            if (workflow.activeWorkflow.path.includes(name)) return;
            await command.execute("Workspace.NextOpenedWorkflow");
          }
          throw new Error("no such tab");
        }""",
        name,
    )
    canvas.page.wait_for_function("(id) => app.rootGraph.getNodeById(id)", arg=DESCRIBE)


def test_a_run_is_shown_in_its_own_tab(site: Any, canvas: Canvas) -> None:
    canvas.open("words.png", repeat=24, name="runs", seed=seed())
    canvas.run()
    canvas.wait("running")
    canvas.open("shapes.png", name="waits", seed=seed())
    assert canvas.shown() == ("empty", "")
    tab(canvas, "runs")
    assert canvas.shown()[0] in ("running", "done")
    tab(canvas, "waits")
    canvas.page.wait_for_function("app.ui.lastQueueSize === 0")
    assert canvas.shown() == ("empty", "")
    tab(canvas, "runs")
    canvas.wait("done")
    assert canvas.shown() == ("done", results(site)[0])
    tab(canvas, "waits")
    assert canvas.shown() == ("empty", "")


def test_undo_and_copies(site: Any, canvas: Canvas) -> None:
    canvas.open("shapes.png", seed=seed())
    canvas.run()
    canvas.wait("done")
    (final,) = results(site)
    canvas.js(
        """(id) => {
          const node = app.rootGraph.getNodeById(id);
          app.canvas.selectNode(node);
          app.canvas.copyToClipboard();
          app.canvas.emitBeforeChange();
          app.canvas.pasteFromClipboard();
          app.canvas.emitAfterChange();
          app.canvas.emitBeforeChange();
          app.rootGraph.remove(node);
          app.canvas.emitAfterChange();
        }""",
        DESCRIBE,
    )
    (copy,) = canvas.js("app.rootGraph.findNodesByType('QVL_Describe').map(({ id }) => `${id}`)")
    assert canvas.shown(copy) == ("empty", "")
    canvas.js("app.extensionManager.command.execute('Comfy.Undo')")
    canvas.page.wait_for_function("(id) => app.rootGraph.getNodeById(id)", arg=DESCRIBE)
    assert canvas.shown() == ("done", final)
    assert canvas.shown(copy) == ("empty", "")


def test_removing_and_folding_amid_a_run(site: Any, canvas: Canvas) -> None:
    canvas.open("words.png", repeat=24, seed=seed())
    canvas.run()
    canvas.wait("running")
    canvas.js("(id) => app.rootGraph.getNodeById(id).collapse()", DESCRIBE)
    canvas.page.wait_for_timeout(500)
    assert not canvas.panel().is_visible()
    canvas.js("(id) => app.rootGraph.getNodeById(id).collapse()", DESCRIBE)
    canvas.panel().wait_for_element_state("visible")
    canvas.js("(id) => app.rootGraph.remove(app.rootGraph.getNodeById(id))", DESCRIBE)
    canvas.page.wait_for_function("app.ui.lastQueueSize === 0")


def test_a_page_that_is_opened_amid_a_run_catches_up(site: Any, canvas: Canvas) -> None:
    canvas.open("words.png", repeat=400, seed=seed())
    canvas.run()
    canvas.wait("running")
    canvas.page.wait_for_timeout(2000)  # for ComfyUI to keep the workflow over a reload
    canvas.reload()
    canvas.page.wait_for_function("(id) => app.rootGraph?.getNodeById(id)", arg=DESCRIBE)
    canvas.page.wait_for_function(
        """(id) => {
          const element = app.rootGraph.getNodeById(id).widgets.at(-1).element.firstChild;
          return element.dataset.state === "running" && element.textContent.includes("/ 400");
        }""",
        arg=DESCRIBE,
    )


def test_the_wheel_over_the_panel(site: Any, canvas: Canvas) -> None:
    canvas.open("shapes.png", seed=seed())
    canvas.run()
    canvas.wait("done")
    canvas.panel().wait_for_element_state("stable")
    body = canvas.panel().query_selector(".qvl-text-body")
    box = body.bounding_box()
    canvas.page.mouse.move(box["x"] + 20, box["y"] + 20)
    before = canvas.js("app.canvas.ds.scale")
    canvas.page.mouse.wheel(0, 120)
    canvas.page.wait_for_function("(before) => app.canvas.ds.scale < before", arg=before)
    before = canvas.js("app.canvas.ds.scale")
    canvas.js(
        """async (node) => {
          const { api } = await import("/scripts/api.js");
          const text = "line\\n".repeat(200);
          const output = { qwen_vl: [{ text, thinking: "", finish_reason: "stop", error: "" }] };
          const detail = { node, display_node: node, prompt_id: "none", output };
          api.dispatchEvent(new CustomEvent("executed", { detail }));
        }""",
        DESCRIBE,
    )
    canvas.page.wait_for_function("(body) => body.scrollHeight > 1000", arg=body)
    box = body.bounding_box()
    canvas.page.mouse.click(box["x"] + 20, box["y"] + 20)  # ComfyUI scrolls what has the focus
    canvas.page.mouse.wheel(0, 120)
    canvas.page.wait_for_function("(body) => body.scrollTop > 0", arg=body)
    assert canvas.js("app.canvas.ds.scale") == before
