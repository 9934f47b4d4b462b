"""Model panel, help pages and translated nodes in a real ComfyUI."""

from __future__ import annotations

import itertools
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from canvas import Canvas

pytestmark = [pytest.mark.web, pytest.mark.comfyui]
_seeds = itertools.count(70_000)
_IDS = [
    "Loader",
    "Describe",
    "OCR",
    "Grounding",
    "PickBoxes",
    "BoxFormat",
    "Unload",
    "ExamplePicture",
]
NODES = [f"QVL_{name}" for name in _IDS]


def ask(site: Any, **query: str) -> tuple[int, Any]:
    url = f"{site.url}/api/qwen_vl/model?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(url, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def free(site: Any, **settings: str) -> None:
    """Takes all models out of memory, and waits until the one of these settings is."""
    site.post("/free", {"unload_models": True, "free_memory": True})
    for _ in range(150):  # ComfyUI collects what it dropped some seconds later
        if not ask(site, model="nano", **settings)[1]["loaded"]:
            return
        time.sleep(0.2)
    raise AssertionError("The model is still in memory.")


def test_the_server_tells_what_a_model_takes(site: Any) -> None:
    status, told = ask(site, model="nano (bundled demo)", device="cpu", precision="fp32")
    assert status == 200
    assert (told["availability"], told["fits"], told["device"]) == ("here", "now", "cpu")
    assert 5_000_000 < told["weights"] < told["free"] < told["total"]
    status, told = ask(site, model="Qwen/Qwen3-VL-2B-Instruct (download, 4.3 GB)")
    assert (status, told["availability"]) == (200, "download")
    status, told = ask(site, model="../../../etc")
    assert status == 400 and "no model '../../../etc' in LLM" in told["error"]
    assert str(site.base) not in told["error"]


def megabytes(weights: Any) -> float:
    """What the model takes by the Loader's own panel, once that is there."""
    line = weights.get_by_text("needs")
    line.wait_for()
    return float(re.search(r"needs ([\d.]+) MB", line.inner_text())[1])


def test_the_panel_follows_the_settings_and_the_run(site: Any, canvas: Canvas) -> None:
    free(site, precision="bf16")
    canvas.open("shapes.png", seed=next(_seeds))
    panel = canvas.page.locator(".qvl-model-panel")
    weights = canvas.page.locator(".qvl-model-weights")
    whole = megabytes(weights)
    canvas.js(
        """() => {
          const { widgets } = app.rootGraph.nodes.find(({ type }) => type === "QVL_Loader");
          const widget = widgets.find(({ name }) => name === "precision");
          widget.value = "bf16";
          widget.callback(widget.value);
        }"""
    )
    weights.get_by_text(f"needs {whole:.1f} MB").wait_for(state="detached")
    assert megabytes(weights) == pytest.approx(whole / 2, rel=0.05)
    canvas.run()
    canvas.wait("done")
    canvas.page.wait_for_selector(".qvl-model-panel[data-state=device]")
    assert panel.inner_text().startswith("Loaded")
    assert "qwen_vl_panels" not in json.dumps(canvas.js("app.rootGraph.serialize()"))
    canvas.js(
        """() => {
          const the = (wanted) => app.rootGraph.nodes.find(({ type }) => type === wanted);
          the("QVL_Describe").pos = [600, 0];
          the("QVL_Loader").pos = [0, -60];
          app.graph.setDirtyCanvas(true, true);
        }"""
    )
    canvas.page.locator(".qvl-model-refresh").click()
    canvas.page.wait_for_selector(".qvl-model-panel[data-state=device]")


@pytest.fixture
def locale(site: Any) -> Iterator[Callable[[Canvas, str], None]]:
    """``locale(canvas, "zh")``: the page in that language."""

    def choose(canvas: Canvas, language: str) -> None:
        site.post("/settings", {"Comfy.Locale": language})
        canvas.reload()
        canvas.open("shapes.png")  # what the page itself opens at its start is there by then

    yield choose
    site.post("/settings", {"Comfy.Locale": "en"})


def put(canvas: Canvas, node_type: str) -> None:
    """That node alone on the canvas, selected."""
    canvas.js(
        """(type) => {
          app.graph.clear();
          const node = globalThis.LiteGraph.createNode(type);
          node.pos = [500, 300];
          app.graph.add(node);
          app.canvas.ds.scale = 1;
          app.canvas.ds.offset = [0, 0];
          app.canvas.selectItems([node]);
          app.canvas.setDirty(true, true);
        }""",
        node_type,
    )


@pytest.mark.parametrize(
    ("language", "title", "label"),
    [("zh", "Qwen-VL 加载器", "量化"), ("ja", "Qwen-VL ローダー", "量子化")],
)
def test_nodes_are_translated(
    canvas: Canvas, locale: Callable[..., None], language: str, title: str, label: str
) -> None:
    locale(canvas, language)
    put(canvas, "QVL_Loader")
    shown = canvas.js(
        """() => {
          const [node] = app.graph.nodes;
          return [node.title, node.widgets.find(({ name }) => name === "quantization").label];
        }"""
    )
    assert shown == [title, label]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_opens_with_its_picture(
    canvas: Canvas, locale: Callable[..., None], language: str
) -> None:
    # ComfyUI looks for a page of the language first; that there is none is an error to browsers.
    canvas.page.route("**/en.md", lambda route: route.fulfill(content_type="text/html"))
    locale(canvas, language)
    for node_type in NODES:
        put(canvas, node_type)
        canvas.page.get_by_test_id("info-button").first.click()
        ending = ".webp" if language == "en" else f".{language}.webp"
        picture = f".node-help-content img[src$='{node_type}{ending}']"
        canvas.page.wait_for_function(
            "(at) => document.querySelector(at)?.naturalWidth > 500", arg=picture
        )
