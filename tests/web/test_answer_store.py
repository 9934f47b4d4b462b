"""Answer store and panels: which node shows which answer, over runs, tabs, subgraphs and undo.
ComfyUI's scripts are faked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

pytestmark = pytest.mark.web


class Workflow:
    """The page of a workflow "one" with the pack's extension, told what the server tells."""

    def __init__(self, page: Any):
        self.page = page
        page.evaluate(
            """async () => {
              const { api } = await import("/scripts/api.js");
              const { app } = await import("/scripts/app.js");
              await import("/extensions/qwen-vl-suite/answer_panel.js");
              await import("/extensions/qwen-vl-suite/box_panel.js");
              api.workflows = { run: "one", elsewhere: "two" };
              globalThis.test = { api, app };
            }"""
        )

    def load(self, workflow: str, outputs: Mapping[str, Any] | None = None) -> None:
        """Opens a tab whose workflow has a Describe node 5, and another one as node 7 of the
        subgraph in node 12."""
        self.page.evaluate(
            """([workflow, outputs]) => test.app.load(workflow, (graph) => {
              graph.add(5, "QVL_Describe");
              const inner = new test.app.Graph("inner");
              inner.add(7, "QVL_OCR");
              graph.add(12, "inner", inner);
              graph.add(20, "PreviewAny");
            }, outputs)""",
            [workflow, outputs or {}],
        )

    def tell(self, kind: str, **detail: Any) -> None:
        self.page.evaluate(
            """async ([kind, detail]) => {
              test.api.tell(kind, detail);
              await new Promise((done) => setTimeout(done, 20)); // it asks for the workflow
            }""",
            [kind, detail],
        )

    def words(self, text: str, node: str = "5", prompt_id: str = "run", **more: Any) -> None:
        place = {"node": node, "prompt_id": prompt_id, "index": 0, "count": 1, "part": 0}
        self.tell("qwen_vl.live", **{**place, "thinking": "", "text": text, **more})

    def executed(self, *texts: str, node: str = "5", prompt_id: str = "run") -> None:
        detail = {"node": node, "display_node": node, "prompt_id": prompt_id}
        self.tell("executed", **detail, output=output(*texts))

    def panel(self, node: int = 5, graph: str = "") -> Any:
        handle = self.page.evaluate_handle(
            """([id, inner]) => {
              const { rootGraph } = test.app;
              const graph = inner ? rootGraph.getNodeById(inner).subgraph : rootGraph;
              return graph.getNodeById(id).widgets[0].element.firstChild;
            }""",
            [node, graph],
        )
        return handle.as_element()

    def shown(self, node: int = 5, graph: str = "") -> tuple[str, str]:
        """(state, text) of a node's panel."""
        panel = self.panel(node, graph)
        words = panel.query_selector(".qvl-text-words")
        return panel.get_attribute("data-state"), words.text_content()


def output(*texts: str) -> dict[str, Any]:
    plain = {"thinking": "", "finish_reason": "stop", "error": ""}
    return {"qwen_vl": [{"text": text, **plain} for text in texts]}


EMPTY = ("empty", "")


@pytest.fixture
def workflow(bare: Any) -> Workflow:
    opened = Workflow(bare)
    opened.load("one")
    return opened


def test_only_nodes_that_answer_have_a_panel(workflow: Workflow) -> None:
    widgets = workflow.page.evaluate(
        "test.app.rootGraph.nodes.map((node) => node.widgets.map((w) => w.name))"
    )
    assert widgets == [["qwen_vl_panels"], [], []]


def test_the_panel_is_neither_saved_nor_sent(workflow: Workflow) -> None:
    widget = workflow.page.evaluate(
        """() => {
          const { serialize, options } = test.app.rootGraph.nodes[0].widgets[0];
          return [serialize, options.serialize, options.getValue()];
        }"""
    )
    assert widget == [False, False, ""]


def test_a_run_from_its_first_word_to_its_result(workflow: Workflow) -> None:
    assert workflow.shown() == EMPTY
    workflow.words("A red")
    assert workflow.shown() == ("running", "A red")
    workflow.words(" circle", part=1)
    workflow.executed("A red circle.")
    assert workflow.shown() == ("done", "A red circle.")


def test_a_node_in_a_subgraph_is_found_by_its_execution_id(workflow: Workflow) -> None:
    workflow.words("INVOICE", node="12:7")
    assert workflow.shown(7, "12") == ("running", "INVOICE")
    assert workflow.shown() == EMPTY
    workflow.words("elsewhere", node="12:8")
    workflow.words("elsewhere", node="99")
    assert workflow.shown(7, "12") == ("running", "INVOICE")


@pytest.mark.parametrize(
    ("node_type", "least"),
    [("QVL_Describe", 150), ("QVL_OCR", 300), ("QVL_Grounding", 300), ("QVL_PickBoxes", 200)],
)
def test_a_node_has_the_room_for_its_answer_from_the_beginning(
    workflow: Workflow, node_type: str, least: int
) -> None:
    room = """(type) => {
      const node = test.app.rootGraph.add(30, type);
      return node.widgets.at(-1).options.getMinHeight();
    }"""
    before = workflow.page.evaluate(room, node_type)
    assert before >= least
    picture = {"text": "INVOICE", "size": [8, 8], "boxes": [], "points": [], "picture": None}
    workflow.tell("executed", node="30", prompt_id="run", output={"qwen_vl": [picture]})
    after = "test.app.rootGraph.getNodeById(30).widgets.at(-1).options.getMinHeight()"
    assert workflow.page.evaluate(after) == before


def test_a_stop_leaves_what_was_written(workflow: Workflow) -> None:
    workflow.words("A red")
    workflow.tell("execution_interrupted", prompt_id="another", node_id="5")
    assert workflow.shown() == ("running", "A red")
    workflow.tell("execution_interrupted", prompt_id="run", node_id="5")
    assert workflow.shown() == ("stopped", "A red")


def test_an_error_leaves_what_was_written(workflow: Workflow) -> None:
    workflow.words("A red")
    workflow.tell("execution_error", prompt_id="run", node_id="5")
    assert workflow.shown() == ("failed", "A red")


ERROR = {"prompt_id": "run", "node_id": "5", "exception_message": "The reply is no JSON.\n"}


def reason(workflow: Workflow, node: int = 5) -> str:
    """Why a node says that it failed."""
    return workflow.panel(node).query_selector(".qvl-text-error").text_content()


def test_the_words_of_an_error_stand_in_the_node_beside_what_was_written(
    workflow: Workflow,
) -> None:
    workflow.words("A red")
    workflow.tell("execution_error", **ERROR)
    assert workflow.shown() == ("failed", "A red")
    assert reason(workflow) == "The reply is no JSON."
    workflow.tell("execution_start", prompt_id="run")
    assert (workflow.shown()[1], reason(workflow)) == ("A red", "")


def test_an_error_before_the_first_word_leaves_no_older_answer_beside_it(
    workflow: Workflow,
) -> None:
    workflow.executed("Of another picture.")
    workflow.tell("execution_error", **ERROR)
    assert workflow.shown() == ("failed", "")
    assert reason(workflow) == "The reply is no JSON."


def test_an_error_of_another_node_is_not_told_here(workflow: Workflow) -> None:
    workflow.words("A red")
    workflow.tell("execution_error", **{**ERROR, "node_id": "20"})
    assert workflow.shown() == ("failed", "A red")
    assert reason(workflow) == ""


def test_the_answers_of_a_batch_that_failed_stay(workflow: Workflow) -> None:
    """The node sends them itself: of one that raises, ComfyUI sends none."""
    workflow.words("Begun", count=3)
    results = output("First.", "nonsense", "Third.")["qwen_vl"]
    results[1]["error"] = "The reply is no JSON."
    workflow.tell("qwen_vl.live", node="5", prompt_id="run", results=results)
    workflow.tell("execution_error", **ERROR)
    assert workflow.shown() == ("failed", "nonsense"), "what could not be read comes first"
    panel = workflow.panel()
    assert panel.query_selector(".qvl-text-place").text_content() == "2 / 3"
    panel.query_selector(".qvl-text-next").click()
    assert workflow.shown() == ("failed", "Third.")
    workflow.load("two")
    workflow.load("one")
    assert workflow.shown() == ("failed", "Third.")


@pytest.mark.parametrize("node_type", ["QVL_BoxFormat", "QVL_Unload"])
def test_nodes_without_answers_have_a_panel_only_for_their_errors(
    workflow: Workflow, node_type: str
) -> None:
    height = """(type) => {
      const graph = test.app.rootGraph;
      return (graph.getNodeById(30) ?? graph.add(30, type)).widgets[0].options.getMinHeight();
    }"""
    assert workflow.page.evaluate(height, node_type) == 0
    assert not workflow.panel(30).is_visible()
    workflow.tell("execution_error", **{**ERROR, "node_id": "30"})
    assert reason(workflow, 30) == "The reply is no JSON." and workflow.panel(30).is_visible()
    assert workflow.page.evaluate(height, node_type) > 50
    workflow.tell("execution_start", prompt_id="run")
    assert workflow.page.evaluate(height, node_type) == 0


def test_pick_boxes_tells_its_error_where_its_boxes_are(workflow: Workflow) -> None:
    workflow.page.evaluate("test.app.rootGraph.add(30, 'QVL_PickBoxes')")
    workflow.tell("execution_error", **{**ERROR, "node_id": "30"})
    waits = workflow.page.locator(".qvl-boxes.qvl-failed .qvl-wait")
    assert waits.text_content() == "The reply is no JSON."


def test_text_and_picture_of_a_node_are_turned_together(workflow: Workflow) -> None:
    workflow.page.evaluate("test.app.rootGraph.add(30, 'QVL_Grounding')")
    results = output("One.", "Two.", "Three.")["qwen_vl"]
    for entry in results:
        entry |= {"size": [8, 8], "boxes": [], "points": [], "picture": None}
    workflow.tell("executed", node="30", prompt_id="run", output={"qwen_vl": results})

    def places() -> list[str]:
        parts = workflow.page.locator(".qvl-text-place:visible, .qvl-page:visible")
        return parts.all_inner_texts()

    assert places() == ["1 / 3"] * 2
    workflow.page.locator(".qvl-text-next:visible").click()
    assert places() == ["2 / 3"] * 2
    workflow.page.locator(".qvl-boxes").get_by_role("button", name="›").click()
    assert places() == ["3 / 3"] * 2
    assert workflow.shown(30) == ("done", "Three.")


def test_pictures_of_the_last_run_are_turned_with_the_words_of_the_next(
    workflow: Workflow,
) -> None:
    workflow.page.evaluate("test.app.rootGraph.add(30, 'QVL_Grounding')")
    results = output("One.", "Two.")["qwen_vl"]
    for entry in results:
        entry |= {"size": [8, 8], "boxes": [], "points": [], "picture": None}
    workflow.tell("executed", node="30", prompt_id="run", output={"qwen_vl": results})
    page = workflow.page.locator(".qvl-page:visible")
    workflow.words("New", node="30", count=2)
    assert page.inner_text() == "1 / 2"
    workflow.words("New too", node="30", count=2, index=1)
    assert page.inner_text() == "2 / 2"
    workflow.page.locator(".qvl-text-previous:visible").click()
    assert (workflow.shown(30)[1], page.inner_text()) == ("New", "1 / 2")


def test_a_server_that_went_down_does_not_leave_a_node_running(workflow: Workflow) -> None:
    workflow.words("A red")
    workflow.tell("status", exec_info={"queue_remaining": 1})
    assert workflow.shown() == ("running", "A red")
    workflow.tell("status", exec_info={"queue_remaining": 0})
    assert workflow.shown() == ("stopped", "A red")


def test_a_connection_that_is_gone_is_no_error(workflow: Workflow) -> None:
    workflow.words("A red")
    workflow.page.evaluate("test.api.tell('status', null)")
    assert workflow.shown() == ("running", "A red")


def test_a_run_of_another_tab_is_not_shown_in_this_one(workflow: Workflow) -> None:
    workflow.executed("Mine.")
    workflow.words("Of two", prompt_id="elsewhere")
    assert workflow.shown() == ("done", "Mine.")
    workflow.load("two")
    assert workflow.shown() == ("running", "Of two")
    workflow.words(" goes on", prompt_id="elsewhere", part=1)
    assert workflow.shown() == ("running", "Of two goes on")
    workflow.load("one")
    workflow.executed("Of two goes on.", prompt_id="elsewhere")
    assert workflow.shown() == ("done", "Mine.")
    workflow.load("two")
    assert workflow.shown() == ("done", "Of two goes on.")


def test_what_comfyui_filed_under_the_wrong_tab_is_not_shown_there(workflow: Workflow) -> None:
    """ComfyUI puts every output into the tab on view before it tells of it."""
    workflow.page.evaluate(
        """(output) => {
          test.app.nodeOutputs["5"] = structuredClone(output);
          test.api.tell("executed", { node: "5", prompt_id: "elsewhere", output });
        }""",
        output("Of two."),
    )
    workflow.page.wait_for_function("!('5' in test.app.nodeOutputs)")
    assert workflow.shown() == EMPTY
    workflow.load("one", workflow.page.evaluate("test.app.nodeOutputs"))
    assert workflow.shown() == EMPTY


def test_a_run_that_nobody_knows_is_taken_for_one_of_the_tab_on_view(workflow: Workflow) -> None:
    offline = "() => { test.api.fetchApi = () => Promise.reject(new TypeError('offline')); }"
    workflow.page.evaluate(offline)
    workflow.words("A red", prompt_id="unheard of")
    assert workflow.shown() == ("running", "A red")


def test_words_that_come_while_the_workflow_is_asked_for_keep_their_order(
    workflow: Workflow,
) -> None:
    workflow.page.evaluate(
        """() => {
          const known = test.api.fetchApi;
          test.api.fetchApi = async function (route) {
            await new Promise((done) => setTimeout(done, 100));
            return known.call(test.api, route);
          };
          const place = { node: "5", prompt_id: "run", index: 0, count: 1, thinking: "" };
          ["A", " red", " circle"].forEach((text, part) =>
            test.api.tell("qwen_vl.live", { ...place, text, part }));
          test.api.tell("execution_interrupted", { prompt_id: "run" });
        }"""
    )
    workflow.page.wait_for_selector("[data-state=stopped]")
    assert workflow.shown() == ("stopped", "A red circle")


def test_a_node_that_is_made_anew_shows_its_text_again(workflow: Workflow) -> None:
    workflow.words("A red")
    workflow.load("one")  # as undo does
    assert workflow.shown() == ("running", "A red")
    workflow.words(" circle", part=1)
    workflow.executed("A red circle.")
    workflow.load("one")
    assert workflow.shown() == ("done", "A red circle.")


def test_a_node_that_is_removed_amid_a_run_is_no_error(workflow: Workflow) -> None:
    workflow.words("A red")
    workflow.page.evaluate("test.app.rootGraph.remove(test.app.rootGraph.getNodeById(5))")
    workflow.words(" circle", part=1)
    workflow.executed("A red circle.")
    workflow.load("one")
    assert workflow.shown() == ("done", "A red circle.")


def test_a_copy_of_a_node_starts_empty(workflow: Workflow) -> None:
    workflow.executed("A red circle.")
    workflow.page.evaluate("test.app.rootGraph.add(6, 'QVL_Describe')")
    assert workflow.shown(6) == EMPTY


def test_results_of_the_history_are_shown(workflow: Workflow) -> None:
    workflow.executed("Newest.")
    workflow.load("one", {"5": output("From the history."), "inner:7": output("Inside.")})
    assert workflow.shown() == ("done", "From the history.")
    assert workflow.shown(7, "12") == ("done", "Inside.")


def test_a_stopped_text_is_not_replaced_by_the_results_before_it(workflow: Workflow) -> None:
    workflow.executed("Before.")
    workflow.words("A red")
    workflow.load("one", {"5": output("Before.")})
    assert workflow.shown() == ("running", "A red")
    workflow.tell("execution_interrupted", prompt_id="run", node_id="5")
    workflow.load("one", {"5": output("Before.")})
    assert workflow.shown() == ("stopped", "A red")


def test_outputs_of_other_nodes_are_left_alone(workflow: Workflow) -> None:
    workflow.tell("executed", node="5", prompt_id="run", output={"images": []})
    workflow.tell("executed", node="5", prompt_id="run", output=None)
    workflow.load("one", {"5": {"images": []}, "20": output("Not ours.")})
    assert workflow.shown() == EMPTY


def test_a_list_of_many_results_can_be_leafed(workflow: Workflow) -> None:
    workflow.executed("One.", "Two.")
    panel = workflow.panel()
    panel.query_selector(".qvl-text-next").click()
    assert workflow.shown() == ("done", "Two.")


def test_the_wheel_scrolls_a_long_text_and_else_moves_the_canvas(workflow: Workflow) -> None:
    def turn(x: int = 0, y: int = 100, control: bool = False) -> tuple[float, int]:
        """How far the text stands and how often the canvas was told, after turning the wheel."""
        return tuple(
            workflow.page.evaluate(
                """async ([deltaX, deltaY, ctrlKey]) => {
                  test.app.canvas.calls.length = 0;
                  const body = document.querySelector(".qvl-text-body");
                  const event = new WheelEvent("wheel",
                    { deltaX, deltaY, ctrlKey, bubbles: true, cancelable: true });
                  const native = body.dispatchEvent(event);
                  return [native, test.app.canvas.calls.length];
                }""",
                [x, y, control],
            )
        )

    workflow.executed("short")
    assert turn() == (False, 1)
    workflow.executed("\n".join("long" for _ in range(99)))
    assert turn() == (True, 0)
    assert turn(control=True) == (False, 1)
    assert turn(x=200) == (False, 1)


def test_the_middle_button_moves_the_canvas(workflow: Workflow) -> None:
    workflow.executed("text")
    box = workflow.panel().query_selector(".qvl-text-body").bounding_box()
    mouse = workflow.page.mouse
    mouse.move(box["x"] + 9, box["y"] + 9)
    mouse.down(button="middle")
    mouse.move(box["x"] + 19, box["y"] + 19)
    mouse.up(button="middle")
    assert workflow.page.evaluate("test.app.canvas.calls") == [
        "processMouseDown",
        "processMouseMove",
        "processMouseUp",
    ]
