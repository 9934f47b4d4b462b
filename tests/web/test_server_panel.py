"""Server panel: a button lists the models of a server, of which one is chosen. ComfyUI is faked."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.web

START = """async () => {
  const { api } = await import("/scripts/api.js");
  const { app } = await import("/scripts/app.js");
  const test = (globalThis.test = { asked: [], answer: { models: [] }, status: 200 });
  const others = api.fetchApi.bind(api);
  api.fetchApi = async (route, options) => {
    if (!route.startsWith("/qwen_vl/server")) return others(route, options);
    test.asked.push([route, options.method, JSON.parse(options.body)]);
    const { answer, status } = test;
    await test.delay;
    return new Response(JSON.stringify(answer), { status });
  };
  const values = { servers: "http://127.0.0.1:8000/v1", model: "", allow_http: false };
  app.registerExtension({
    nodeCreated(node) {
      for (const [name, value] of Object.entries(values)) {
        node.widgets.push({ name, value, callback() {} });
      }
      test.node = node;
    },
  });
  await import("/extensions/qwen-vl-suite/server_panel.js");
  app.rootGraph.add(5, "QVL_Server");
  test.find = (wanted) => test.node.widgets.find(({ name }) => name === wanted);
}"""
MODELS = [{"name": "Qwen3-VL-8B", "family": "Qwen3-VL"}, {"name": "mine", "family": ""}]


def press(page: Any, answer: dict[str, Any], status: int = 200) -> None:
    page.evaluate("([answer, status]) => Object.assign(test, { answer, status })", [answer, status])
    page.locator(".qvl-server-ask").click()
    page.evaluate("() => new Promise((resolve) => setTimeout(resolve, 20))")


def shown(page: Any) -> list[list[str]]:
    return page.evaluate(
        """[...document.querySelectorAll(".qvl-server-model")].map((entry) =>
             [entry.textContent, entry.getAttribute("aria-pressed")])"""
    )


def test_nothing_is_asked_before_the_button_is_pressed(bare: Any) -> None:
    bare.evaluate(START)
    bare.evaluate("() => { test.find('servers').callback(); test.find('model').callback(); }")
    assert bare.evaluate("test.asked") == []
    press(bare, {"models": MODELS})
    settings = {"servers": "http://127.0.0.1:8000/v1", "allow_http": "false"}
    assert bare.evaluate("test.asked") == [["/qwen_vl/server_models", "POST", settings]]


def test_a_model_that_is_chosen_goes_into_the_widget(bare: Any) -> None:
    bare.evaluate(START)
    press(bare, {"models": MODELS})
    assert shown(bare) == [["Qwen3-VL-8BQwen3-VL", "false"], ["mine", "false"]]
    bare.locator(".qvl-server-model").nth(1).click()
    assert bare.evaluate("test.find('model').value") == "mine"
    assert [pressed for _, pressed in shown(bare)] == ["false", "true"]


def test_a_name_is_text_whatever_a_server_calls_its_model(bare: Any) -> None:
    bare.evaluate(START)
    press(bare, {"models": [{"name": "<img src=x onerror=alert(1)>", "family": ""}]})
    assert shown(bare)[0][0] == "<img src=x onerror=alert(1)>"
    assert bare.locator(".qvl-server-list img").count() == 0


def test_an_error_is_said_and_goes_with_another_address(bare: Any) -> None:
    bare.evaluate(START)
    press(bare, {"error": "No server answers."}, 400)
    assert bare.locator(".qvl-server-line").inner_text() == "No server answers."
    bare.evaluate("test.find('servers').callback()")
    assert not bare.locator(".qvl-server-line").is_visible()


def test_an_answer_that_comes_too_late_is_of_another_server(bare: Any) -> None:
    bare.evaluate(START)
    bare.evaluate("() => { test.delay = new Promise((resolve) => (test.arrive = resolve)); }")
    press(bare, {"models": MODELS})
    bare.evaluate(
        """() => { test.find('servers').callback(); test.arrive();
                   return new Promise((resolve) => setTimeout(resolve, 20)); }"""
    )
    assert shown(bare) == []
