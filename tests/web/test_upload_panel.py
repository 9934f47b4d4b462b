"""Upload panel: a file goes to ComfyUI's input folder and is chosen in the list."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.web

START = """async ([status, answer]) => {
  const { api } = await import("/scripts/api.js");
  const { app } = await import("/scripts/app.js");
  const sent = [];
  api.fetchApi = async (route, options) => {
    sent.push([route, options?.method, options?.body?.get("image")?.name]);
    return new Response(JSON.stringify(answer), { status });
  };
  app.registerExtension({
    nodeCreated(node) {
      const chosen = [];
      const file = { name: "file", value: "a.pdf", options: { values: ["a.pdf"] } };
      file.callback = (value) => chosen.push(value);
      node.widgets.push(file);
      node.addWidget = (type, name, value, press, options) => {
        const widget = { type, name, value, press, options };
        node.widgets.push(widget);
        return widget;
      };
      globalThis.test = { node, file, chosen, sent };
    },
  });
  await import("/extensions/qwen-vl-suite/upload_panel.js");
  app.rootGraph.add(1, "QVL_LoadPDF");
}"""
DROP = """(name) => {
  const files = new DataTransfer();
  files.items.add(new File(["%PDF"], name));
  return test.node.onDragDrop({ dataTransfer: files });
}"""
PICK = """(name) => {
  const click = HTMLInputElement.prototype.click;
  HTMLInputElement.prototype.click = function () { test.picker = this; }; // opens no dialog
  test.node.widgets.at(-1).press();
  HTMLInputElement.prototype.click = click;
  const files = new DataTransfer();
  files.items.add(new File(["?"], name));
  test.picker.files = files.files;
  test.picker.dispatchEvent(new Event("change"));
}"""


def start(page: Any, status: int, answer: dict[str, str]) -> None:
    page.evaluate(START, [status, answer])


def label(page: Any) -> str:
    return page.evaluate("test.node.widgets.at(-1).label")


def test_a_dropped_file_is_uploaded_and_chosen(bare: Any) -> None:
    start(bare, 200, {"name": "b (1).pdf", "subfolder": ""})
    assert label(bare) == "Choose a file to upload"
    assert bare.evaluate(DROP, "b.pdf") is True
    bare.wait_for_function("test.chosen.length")
    assert bare.evaluate("[test.file.value, test.file.options.values, test.chosen]") == [
        "b (1).pdf", ["a.pdf", "b (1).pdf"], ["b (1).pdf"]
    ]  # fmt: skip
    uploads = bare.evaluate("test.sent.filter(([route]) => route.startsWith('/upload'))")
    assert uploads == [["/upload/image", "POST", "b.pdf"]]
    assert label(bare) == "Choose a file to upload"


def test_a_picture_is_not_taken(bare: Any) -> None:
    start(bare, 200, {"name": "b.png"})
    assert bare.evaluate(DROP, "b.png") is False
    assert bare.evaluate("test.chosen") == []


def test_the_file_dialog_takes_no_other_file_either(bare: Any) -> None:
    start(bare, 200, {"name": "b.pdf"})
    bare.evaluate(PICK, "b.png")
    assert label(bare) == "Only .pdf files can be chosen here"
    assert bare.evaluate("[test.chosen, test.picker.value]") == [[], ""]
    bare.evaluate(PICK, "b.PDF")
    bare.wait_for_function("test.chosen.length")
    uploads = bare.evaluate("test.sent.filter(([route]) => route.startsWith('/upload'))")
    assert uploads == [["/upload/image", "POST", "b.PDF"]]
    assert label(bare) == "Choose a file to upload"


def test_a_failed_upload_is_said_and_chooses_nothing(bare: Any) -> None:
    start(bare, 413, {})
    bare.evaluate(DROP, "b.pdf")
    bare.wait_for_function("test.node.widgets.at(-1).label.includes('failed')")
    assert label(bare) == "The upload failed: 413"
    assert bare.evaluate("[test.file.value, test.chosen]") == ["a.pdf", []]


def test_the_button_is_no_value_of_the_node(bare: Any) -> None:
    """Values are saved by their position, so it also comes after all others."""
    start(bare, 200, {})
    assert bare.evaluate("test.node.widgets.map(({ name }) => name).slice(0, 2)") == [
        "file", "upload"
    ]  # fmt: skip
    button = "test.node.widgets.find(({ name }) => name === 'upload')"
    assert bare.evaluate(f"[{button}.serialize, {button}.options.serialize]") == [False, False]
