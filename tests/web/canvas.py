"""ComfyUI's page in a browser, with one workflow on it, in either of its two renderers."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

_LIMIT = 60_000  # milliseconds
_EXAMPLE = Path(__file__).resolve().parent / "workflows" / "describe.json"
_NODES = json.loads(_EXAMPLE.read_text(encoding="utf-8"))["nodes"]

DESCRIBE = next(str(node["id"]) for node in _NODES if node["type"] == "QVL_Describe")

_BUILD = """async ([saved, name, pictures, repeat, widgets]) => {
  await app.loadGraphData(saved, true, true, name);
  const { LiteGraph } = globalThis;
  const graph = app.rootGraph;
  const the = (type) => graph.nodes.find((node) => node.type === type);
  const [source, describe] = [the("LoadImage"), the("QVL_Describe")];
  const set = (node, values) => {
    for (const [name, value] of Object.entries(values)) {
      node.widgets.find((widget) => widget.name === name).value = value;
    }
  };
  const add = (type, values) => {
    const node = LiteGraph.createNode(type);
    node.pos = [-400, 600 + 100 * graph.nodes.length];
    graph.add(node);
    set(node, values);
    return node;
  };
  app.canvas.emitBeforeChange();
  set(source, { image: pictures[0] });
  set(describe, widgets);
  let from = source;
  if (pictures.length > 1) {
    from = add("ImageBatch", {});
    source.connect(0, from, 0);
    add("LoadImage", { image: pictures[1] }).connect(0, from, 1);
  } else if (repeat > 1) {
    from = add("RepeatImageBatch", { amount: repeat });
    source.connect(0, from, 0);
  }
  from.connect(0, describe, describe.inputs.findIndex((input) => input.name === "images"));
  describe.pos = [0, 0];
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [150, 120];
  app.canvas.emitAfterChange();
  app.graph.setDirtyCanvas(true, true);
}"""

_PANEL = """(id) => app.canvas.graph.getNodeById(id)
  ?.widgets?.find(({ name }) => name === "qwen_vl_panels").element.firstChild"""


class Canvas:
    """``vue``: nodes drawn as elements of the page, rather than on the canvas."""

    def __init__(self, page: Any, server: Any, vue: bool):
        self.page, self.vue = page, vue
        page.set_default_timeout(_LIMIT)
        settings = {"Comfy.VueNodes.Enabled": vue, "Comfy.TutorialCompleted": True}
        server.post("/settings", settings)
        page.goto(server.url)
        self._ready()

    def reload(self) -> None:
        self.page.reload()
        self._ready()

    def _ready(self) -> None:
        self.page.wait_for_function(
            """globalThis.app?.vueAppReady && app.rootGraph?.nodes.length
              && app.extensionManager.workflow.activeWorkflow"""
        )

    def js(self, code: str, value: Any = None) -> Any:
        return self.page.evaluate(code, value)

    def open(self, *pictures: str, repeat: int = 1, name: str = "test", **widgets: Any) -> None:
        """Opens the example in a tab of its own, with these pictures (one or two) as a batch, or
        one of them many times over, and these widgets of Describe."""
        saved = json.loads(_EXAMPLE.read_text(encoding="utf-8"))
        saved["id"] = str(uuid.uuid4())
        self.js(_BUILD, [saved, name, pictures, repeat, widgets])

    def run(self) -> None:
        self.js("() => { app.queuePrompt(0, 1); }")

    def panel(self, node: str = DESCRIBE) -> Any:
        """The text panel of a node of the graph on view."""
        return self.page.evaluate_handle(_PANEL, node).as_element()

    def shown(self, node: str = DESCRIBE) -> tuple[str, str]:
        """(state, text)"""
        panel = self.panel(node)
        words = panel.query_selector(".qvl-text-words")
        return panel.get_attribute("data-state"), words.text_content()

    def wait(self, state: str, node: str = DESCRIBE) -> None:
        is_so = f"([id, state]) => ({_PANEL})(id)?.dataset.state === state"
        self.page.wait_for_function(is_so, arg=[node, state])

    def wait_for_clipboard(self, text: str) -> None:
        is_so = "(text) => navigator.clipboard.readText().then((held) => held.trim() === text)"
        self.page.wait_for_function(is_so, arg=text)

    def record(self) -> None:
        """From now on keeps every text that the page's panels showed, for ``recorded``."""
        self.js(
            """() => {
              const texts = (globalThis.recorded = []);
              const keep = () => document.querySelectorAll(".qvl-text-words").forEach(
                ({ textContent }) => texts.at(-1) !== textContent && texts.push(textContent));
              const changes = { subtree: true, childList: true, characterData: true };
              new MutationObserver(keep).observe(document.body, changes);
            }"""
        )

    @property
    def recorded(self) -> list[str]:
        return [text for text in self.js("recorded") if text]
