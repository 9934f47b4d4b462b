"""Model panel: what the Loader shows of the model it will load, with ComfyUI's scripts faked."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytestmark = pytest.mark.web

GB = 10**9
WIDGETS = {
    "model": "Qwen-VL/Qwen3-VL-4B-Instruct",
    "quantization": "none",
    "precision": "auto",
    "attention": "auto",
    "device": "auto",
    "max_pixels": 0,
}
HERE = {
    "name": "Qwen3-VL-4B-Instruct",
    "availability": "here",
    "device": "cuda:0",
    "free": 20 * GB,
    "movable": 0,
    "total": 25 * GB,
    "problem": "",
    "to_download": 0,
    "partial": False,
    "weights": 9 * GB,
    "loaded": "",
    "fits": "now",
    "lighter": "",
    "retrieval": "",
}


class Loader:
    """A page with one Loader as node 5; the server answers what the test says."""

    def __init__(self, page: Any):
        self.page = page
        self.tell(HERE)
        page.evaluate(
            """async (values) => {
              const { api } = await import("/scripts/api.js");
              const { app } = await import("/scripts/app.js");
              const test = (globalThis.test = { ...globalThis.test, api, app, asked: [] });
              const jobs = api.fetchApi.bind(api);
              api.workflows = { run: "one", elsewhere: "two" };
              api.fetchApi = async (route, options) => {
                if (!route.startsWith("/qwen_vl/")) return jobs(route);
                if (options) (test.sent ??= []).push([route, options]);
                else test.asked.push(route);
                await test.delay;
                const [status, body] = test.answer;
                return new Response(body, { status });
              };
              const widgets = () =>
                Object.entries(values).map(([name, value]) => ({ name, value, callback() {} }));
              const nodeCreated = (node) => node.widgets.push(...widgets());
              const hooks = [];
              const register = app.registerExtension.bind(app);
              app.registerExtension = (one) => (hooks.push(one), register(one));
              app.registerExtension({ nodeCreated });
              app.refreshComboInNodes = async () => {
                test.refreshed = (test.refreshed ?? 0) + 1;
                hooks.forEach((one) => one.refreshComboInNodes?.({}));
              };
              await import("/extensions/qwen-vl-suite/model_panel.js");
              test.node = app.rootGraph.add(5, "QVL_Loader");
              app.rootGraph.add(6, "QVL_Describe");
            }""",
            WIDGETS,
        )
        self.settle()

    def tell(self, body: Any, status: int = 200) -> None:
        self.page.evaluate(
            """([status, body]) => {
              const text = typeof body === "string" ? body : JSON.stringify(body);
              globalThis.test = Object.assign(globalThis.test ?? {}, { answer: [status, text] });
            }""",
            [status, body],
        )

    def settle(self) -> None:
        """Until every question that is due was asked and answered."""
        self.page.wait_for_timeout(300)

    def set(self, name: str, value: Any) -> None:
        self.page.evaluate(
            """([name, value]) => {
              const widget = test.node.widgets.find((one) => one.name === name);
              widget.value = value;
              widget.callback(value);
            }""",
            [name, value],
        )

    def hear(self, kind: str, **detail: Any) -> None:
        self.page.evaluate("([kind, detail]) => test.api.tell(kind, detail)", [kind, detail])
        self.settle()

    def shows(self, body: Any, status: int = 200) -> str:
        """What the panel says once the server has told this."""
        self.tell(body, status)
        self.hear("execution_success", prompt_id="run")
        return self.text()

    def text(self) -> str:
        return " | ".join(self.panel().inner_text().split("\n"))

    def panel(self) -> Any:
        return self.page.query_selector(".qvl-model-panel")

    def state(self) -> str:
        return self.panel().get_attribute("data-state")

    def asked(self) -> list[dict[str, str]]:
        """The questions since the last call."""
        routes = self.page.evaluate("test.asked.splice(0)")
        return [{k: v[0] for k, v in parse_qs(urlsplit(route).query).items()} for route in routes]

    def bar(self, part: str) -> tuple[float, float]:
        """Where a part of the memory bar begins and ends, in per cent of what is seen."""
        return tuple(
            self.page.evaluate(
                """(part) => {
                  const whole = document.querySelector(".qvl-model-bar").getBoundingClientRect();
                  const box = document.querySelector(part).getBoundingClientRect();
                  const at = (x) => Math.round((100 * (x - whole.left)) / whole.width);
                  return [at(box.left), Math.min(100, at(box.right))];
                }""",
                f".qvl-model-{part}",
            )
        )


@pytest.fixture
def loader(bare: Any) -> Loader:
    return Loader(bare)


def test_its_panel_is_neither_saved_nor_sent(loader: Loader) -> None:
    widgets = loader.page.evaluate(
        """() => test.app.rootGraph.nodes.map((node) => node.widgets
          .filter(({ name }) => name === "qwen_vl_panels")
          .map(({ serialize, options }) => [serialize, options.serialize, options.getValue()]))"""
    )
    assert widgets == [[[False, False, ""]], []]


def test_it_asks_for_what_decides_and_for_nothing_else(loader: Loader) -> None:
    (asked,) = loader.asked()
    assert asked == {name: value for name, value in WIDGETS.items() if name != "max_pixels"}


def test_several_changes_are_one_question(loader: Loader) -> None:
    loader.asked()
    for value in ("8bit", "4bit"):
        loader.set("quantization", value)
    loader.set("max_pixels", 4096)
    loader.settle()
    (asked,) = loader.asked()
    assert asked["quantization"] == "4bit"
    loader.set("max_pixels", 0)
    loader.settle()
    assert loader.asked() == []


@pytest.mark.parametrize(
    "kind",
    ["executed", "execution_success", "execution_error", "execution_interrupted", "reconnected"],
)
def test_it_asks_again_when_something_may_have_changed(loader: Loader, kind: str) -> None:
    loader.asked()
    loader.hear(kind, prompt_id="run", output={})
    assert len(loader.asked()) == 1


def test_a_gguf_model_has_a_forecast_of_its_own(loader: Loader) -> None:
    loader.asked()
    loader.page.evaluate("test.app.rootGraph.add(8, 'QVL_GGUF')")
    loader.settle()
    (asked,) = loader.page.evaluate("test.asked")
    assert urlsplit(asked).path == "/qwen_vl/gguf_model"
    assert loader.asked() == [{"model": WIDGETS["model"]}]


def test_it_does_not_ask_by_itself(loader: Loader) -> None:
    loader.asked()
    loader.page.wait_for_timeout(1500)
    assert loader.asked() == []


def test_the_button_renews_the_list_of_models_and_the_figures(loader: Loader) -> None:
    loader.asked()
    loader.page.click(".qvl-model-refresh")
    loader.settle()
    assert loader.page.evaluate("test.refreshed") == 1
    assert len(loader.asked()) == 1


FIGURES = "needs 9.0 GB | 20.0 of 25.0 GB free"


@pytest.mark.parametrize(
    ("told", "state", "text"),
    [
        pytest.param({}, "here", f"On disk | cuda:0 | ↻ | {FIGURES}", id="here"),
        pytest.param(
            {"availability": "download", "to_download": 8_900_000_000},
            "download",
            "To download: 8.9 GB | cuda:0 | ↻ | needs ~9.0 GB | 20.0 of 25.0 GB free",
            id="download",
        ),
        pytest.param(
            {"availability": "download", "to_download": 640_000_000, "partial": True},
            "download",
            "Partly here, 640.0 MB to go | cuda:0 | ↻ | needs ~9.0 GB | 20.0 of 25.0 GB free",
            id="partly here",
        ),
        pytest.param(
            {"loaded": "device", "device": "cpu", "free": 500_000_000},
            "device",
            "Loaded | RAM | ↻ | takes 9.0 GB | 500.0 MB of 25.0 GB free",
            id="loaded, on the CPU",
        ),
        pytest.param(
            {"loaded": "ram"},
            "ram",
            "In RAM, off the card | cuda:0 | ↻ | takes 9.0 GB | 20.0 of 25.0 GB free",
            id="in RAM",
        ),
        pytest.param(
            {"retrieval": "embedding"},
            "here",
            f"On disk | cuda:0 | ↻ | {FIGURES} | An embedding model: for Qwen-VL Score alone, it "
            "writes no text.",
            id="a model that only compares",
        ),
        pytest.param(
            {"fits": "after others", "movable": 10 * GB},
            "here",
            f"On disk | cuda:0 | ↻ | {FIGURES} | Other models will be moved out for it.",
            id="after others",
        ),
        pytest.param(
            {"fits": "no", "lighter": "8bit", "free": 4 * GB, "movable": 2 * GB},
            "warning",
            "On disk | cuda:0 | ↻ | needs 9.0 GB | 4.0 of 25.0 GB free | Too large for the 6.0 GB "
            "that can be had. In 8bit it would fit.",
            id="too large",
        ),
        pytest.param(
            {"fits": "no"},
            "warning",
            f"On disk | cuda:0 | ↻ | {FIGURES} | Too large for the 20.0 GB that can be had. "
            "Choose a smaller model.",
            id="far too large",
        ),
        pytest.param(
            {
                "availability": "incomplete",
                "weights": None,
                "problem": "model.safetensors is missing",
            },
            "warning",
            "Incomplete | cuda:0 | ↻ | 20.0 of 25.0 GB free | model.safetensors is missing",
            id="incomplete",
        ),
    ],
)
def test_what_is_told_is_said(loader: Loader, told: Any, state: str, text: str) -> None:
    assert loader.shows({**HERE, **told}) == text
    assert loader.state() == state


@pytest.mark.parametrize(
    ("told", "used", "taken"),
    [
        ({}, (0, 20), (20, 56)),
        ({"loaded": "device", "free": 11 * GB}, (0, 20), (20, 56)),
        ({"fits": "no", "weights": 60 * GB}, (0, 20), (20, 100)),
        ({"fits": "after others", "free": 5 * GB, "movable": 15 * GB}, (0, 80), (64, 100)),
    ],
    ids=["to be loaded", "loaded", "too large", "others move out"],
)
def test_the_bar_shows_the_models_part_of_memory(
    loader: Loader, told: Any, used: tuple[int, int], taken: tuple[int, int]
) -> None:
    loader.shows({**HERE, **told})
    assert (loader.bar("used"), loader.bar("taken")) == (used, taken)


def test_a_refusal_is_shown_as_text(loader: Loader) -> None:
    refusal = "<img src=x onerror=alert(1)> is a mixture of experts"
    assert loader.shows({"error": refusal}, 400) == f"Cannot be loaded | ↻ | {refusal}"
    assert loader.state() == "warning"
    assert loader.page.query_selector(".qvl-model-panel img") is None
    assert "On disk" in loader.shows(HERE)


def test_a_server_that_does_not_answer_is_no_fault_of_the_model(loader: Loader) -> None:
    assert "ComfyUI does not answer." in loader.shows("<html>Bad gateway</html>", 502)


def test_an_old_answer_does_not_replace_a_new_one(loader: Loader) -> None:
    loader.page.evaluate("() => { test.delay = new Promise((done) => (test.let = done)); }")
    loader.tell({**HERE, "loaded": "ram"})
    loader.hear("executed")
    loader.page.evaluate("() => { test.delay = null; }")
    assert "Loaded" in loader.shows({**HERE, "loaded": "device"})
    loader.tell({**HERE, "loaded": "ram"})
    loader.page.evaluate("() => { test.let(); }")
    loader.settle()
    assert "Loaded" in loader.text()


def test_a_download_is_followed_until_the_next_node_is_done(loader: Loader) -> None:
    status = "Downloading Qwen/Qwen3-VL-4B-Instruct: 1.20 of 8.90 GB (model-00001.safetensors)"
    loader.hear("qwen_vl.live", node="5", prompt_id="run", status=status)
    assert (loader.state(), loader.text()) == ("running", f"{status} | ↻")
    cut = "(line) => line.scrollWidth > line.clientWidth || line.scrollHeight > line.clientHeight"
    assert not loader.page.eval_on_selector(".qvl-model-state", cut)
    assert loader.shows(HERE).startswith("On disk")


def test_why_it_failed_stands_until_something_else_is_chosen(loader: Loader) -> None:
    error = {"node_id": "5", "prompt_id": "run", "exception_message": "The hub did not answer."}
    loader.hear("execution_error", **error)
    assert loader.text() == "Cannot be loaded | ↻ | The hub did not answer."
    loader.hear("executed")
    assert loader.text() == "Cannot be loaded | ↻ | The hub did not answer."
    loader.set("quantization", "4bit")
    loader.settle()
    assert loader.text().startswith("On disk")


def test_news_of_other_nodes_and_other_tabs_are_not_its_own(loader: Loader) -> None:
    before = loader.text()
    loader.hear("qwen_vl.live", node="6", prompt_id="run", status="Loading the model")
    loader.hear("qwen_vl.live", node="5", prompt_id="elsewhere", status="Downloading")
    assert loader.text() == before


def test_a_setting_that_comes_from_a_link_is_not_guessed(loader: Loader) -> None:
    loader.asked()
    loader.page.evaluate(
        """() => {
          test.node.inputs = [{ name: "model", link: 3 }];
          test.node.onConnectionsChange();
        }"""
    )
    loader.settle()
    assert loader.asked() == []
    assert loader.text() == "Known when it runs: a setting comes from a link | ↻"


def test_a_removed_node_asks_no_more(loader: Loader) -> None:
    loader.asked()
    loader.page.evaluate("test.node.onRemoved()")
    loader.hear("executed")
    assert loader.asked() == []


def test_the_node_grows_when_there_is_more_to_say(loader: Loader) -> None:
    height = """() => test.node.widgets.at(-1).options.getMinHeight()"""
    short = loader.page.evaluate(height)
    changes = loader.page.evaluate("test.app.graph.changes")
    loader.shows({**HERE, "fits": "no"})
    assert loader.page.evaluate(height) >= short + 30
    assert loader.page.evaluate("test.app.graph.changes") > changes


def test_the_canvas_below_still_zooms(loader: Loader) -> None:
    loader.page.hover(".qvl-model-state")
    loader.page.mouse.wheel(0, 100)
    loader.page.mouse.down(button="middle")
    loader.page.mouse.up(button="middle")
    loader.settle()
    calls = loader.page.evaluate("test.app.canvas.calls")
    assert {"processMouseWheel", "processMouseDown", "processMouseUp"} <= set(calls)


NAMED = {
    **HERE,
    "availability": "download",
    "weights": None,
    "to_download": 9 * GB,
    "consent": "needed",
    "repository": "somebody/Tiny-VL@v1.0",
    "source": "modelscope",
    "disk": 120 * GB,
}


def test_a_download_of_another_model_is_allowed_on_the_node(loader: Loader) -> None:
    said = loader.shows(NAMED)
    assert "To download: 9.0 GB" in said and loader.state() == "warning"
    assert "somebody/Tiny-VL@v1.0 from ModelScope is none of the models in the list" in said
    assert "120.0 GB free on the disk" in said and "Allow this download" in said
    loader.asked()
    loader.tell({**NAMED, "consent": "given"})
    loader.page.click(".qvl-model-allow")
    loader.settle()
    routes = loader.page.evaluate("test.sent")
    assert [route for route, _ in routes] == ["/qwen_vl/allow_download"]
    sent = routes[0][1]
    assert sent["method"] == "POST" and sent["headers"]["Content-Type"] == "application/json"
    assert json.loads(sent["body"])["model"] == WIDGETS["model"]
    assert "as you allowed" in loader.text() and "Allow this" not in loader.text()
    assert "no room" in (said := loader.shows({**NAMED, "problem": "There is no room for it."}))
    assert "Allow this" not in said and "Allow this" not in loader.shows(HERE)


def test_the_hub_is_asked_for_a_size_only_when_the_user_wants_it(loader: Loader) -> None:
    said = loader.shows({**NAMED, "consent": "not asked", "to_download": 0})
    assert "Ask for its size" in said and "Allow this" not in said
    loader.tell(NAMED)
    loader.page.click(".qvl-model-allow")
    loader.settle()
    routes = loader.page.evaluate("test.sent.map(([route]) => route)")
    assert routes == ["/qwen_vl/download_size"]
    assert "Allow this download" in loader.text()


def test_where_the_consent_could_not_be_noted_the_panel_says_why(loader: Loader) -> None:
    loader.shows(NAMED)
    loader.tell({"error": "allowed.json cannot be written"}, 400)
    loader.page.click(".qvl-model-allow")
    loader.page.wait_for_function(
        "document.querySelector('.qvl-model-note').textContent.includes('cannot be written')"
    )
