"""Words panel: a button puts the words behind a choice into a text box. ComfyUI is faked."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.web

START = """async () => {
  const { api } = await import("/scripts/api.js");
  const { app } = await import("/scripts/app.js");
  const words = { short: "One sentence.", "a b": "Two words." };
  api.fetchApi = async (route) => {
    if (!route.startsWith("/qwen_vl/style")) return new Response("{}");
    const name = new URL(route, location).searchParams.get("name");
    return words[name]
      ? new Response(JSON.stringify({ words: words[name] }))
      : new Response(JSON.stringify({ error: `no style ${name}` }), { status: 400 });
  };
  app.registerExtension({
    nodeCreated(node) {
      const style = { name: "style", type: "combo", value: "short", options: { values: [] } };
      const prompt = { name: "prompt", value: "", heard: [] };
      prompt.callback = (value) => prompt.heard.push(value);
      node.widgets.push(style, prompt);
      node.addWidget = (type, name, value, press, options) => {
        const widget = { type, name, value, press, options };
        node.widgets.push(widget);
        return widget;
      };
      globalThis.test = { style, prompt, node };
    },
  });
  await import("/extensions/qwen-vl-suite/words_panel.js");
  app.rootGraph.add(1, "QVL_Describe");
  test.press = test.node.widgets.find(({ name }) => name === "take_words");
}"""


def pressed(page: Any, style: str) -> str:
    """The text in the box, once the words of that style were asked for."""
    page.evaluate("async (style) => { test.style.value = style; await test.press.press(); }", style)
    return page.evaluate("test.prompt.value")


def test_words_go_into_the_box_and_nothing_written_is_lost(bare: Any) -> None:
    bare.evaluate(START)
    assert pressed(bare, "short") == "One sentence."
    assert pressed(bare, "a b") == "Two words."  # nobody has changed what was put there
    bare.evaluate("test.prompt.value = 'My words.'")
    assert pressed(bare, "short") == "My words.\n\nOne sentence."
    assert bare.evaluate("test.prompt.heard.at(-1)") == "My words.\n\nOne sentence."
    assert pressed(bare, "short") == "My words.\n\nOne sentence."  # they are there already


def test_words_of_a_saved_workflow_are_not_put_in_twice(bare: Any) -> None:
    bare.evaluate(START)
    bare.evaluate("test.prompt.value = 'One sentence.'")
    assert pressed(bare, "short") == "One sentence."


def test_an_error_is_said_on_the_button_and_goes_away(bare: Any) -> None:
    bare.evaluate(START)
    assert pressed(bare, "gone") == ""
    assert bare.evaluate("test.press.label") == "The words are not known: no style gone"
    assert pressed(bare, "short") == "One sentence."
    assert bare.evaluate("test.press.label") == "Take the style's words into the prompt"


def test_the_button_is_no_value_of_the_node(bare: Any) -> None:
    """Values are saved by their position, so it also comes after all others."""
    bare.evaluate(START)
    names = bare.evaluate("test.node.widgets.map(({ name }) => name)")
    assert names.index("take_words") > names.index("prompt")
    assert bare.evaluate("[test.press.serialize, test.press.options.serialize]") == [False, False]
