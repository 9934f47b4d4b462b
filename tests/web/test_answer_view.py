"""Answer view alone: what a user sees, follows, copies and pages through."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.web


class Panel:
    """A panel of 320 by 170 pixels on a bare page, told the messages of a run."""

    def __init__(self, page: Any):
        self.page = page
        page.evaluate(
            """async () => {
              const at = "/extensions/qwen-vl-suite/";
              const { AnswerState } = await import(at + "answer_state.js");
              const { AnswerView } = await import(at + "answer_view.js");
              const style = document.createElement("link");
              Object.assign(style, { rel: "stylesheet", href: at + "answer_view.css" });
              const sheet = new Promise((done) => (style.onload = done));
              document.head.append(style);
              await sheet;
              const panel = new AnswerView((answer, index) => {
                answer.show(index);
                panel.draw(answer);
              });
              const answer = new AnswerState();
              panel.element.style = "width: 320px; height: 170px";
              document.body.append(panel.element);
              globalThis.test = { panel, answer };
            }"""
        )

    def hear(self, **message: Any) -> None:
        self.page.evaluate(
            "(m) => { test.answer.receive(m); test.panel.draw(test.answer); }", message
        )

    def words(self, text: str, index: int = 0, count: int = 1, part: int = 0, **more: Any) -> None:
        message = {"index": index, "count": count, "part": part, "text": text, "thinking": ""}
        self.hear(**{**message, **more})

    def finish(self, *results: dict[str, Any]) -> None:
        plain = {"text": "", "thinking": "", "finish_reason": "stop", "error": ""}
        self.page.evaluate(
            "(r) => { test.answer.finish(r); test.panel.draw(test.answer); }",
            [{**plain, **result} for result in results],
        )

    def end(self, outcome: str) -> None:
        self.page.evaluate("(o) => { test.answer.end(o); test.panel.draw(test.answer); }", outcome)

    def text(self, part: str = "words") -> str:
        return self.page.locator(f".qvl-text-{part}").evaluate("(e) => e.textContent")

    def button(self, label: str) -> Any:
        return self.page.get_by_role("button", name=label, exact=True)

    @property
    def state(self) -> str:
        return self.page.locator(".qvl-text-panel").get_attribute("data-state")

    @property
    def clipboard(self) -> str:
        return self.page.evaluate("navigator.clipboard.readText()")


@pytest.fixture
def panel(bare: Any) -> Panel:
    return Panel(bare)


def three() -> list[dict[str, Any]]:
    return [{"text": text} for text in ("First.", "Second.", "Third.")]


def test_words_appear_as_they_come(panel: Panel) -> None:
    panel.hear(status="Looking at the picture", count=1)
    assert panel.text("status") == "Looking at the picture"
    panel.words("A red")
    panel.words(" circle", part=1)
    assert panel.text() == "A red circle"
    assert panel.text("status") == "Answering"
    assert panel.state == "running"
    panel.finish({"text": "A red circle."})
    assert panel.text() == "A red circle."
    assert panel.text("status") == ""
    assert panel.state == "done"


def test_who_missed_the_beginning_waits_for_the_whole(panel: Panel) -> None:
    panel.words(" circle", part=1)
    panel.words(" and", part=2)
    assert panel.text() == ""
    panel.words("A red circle and", part=0)
    panel.words(" a star", part=1)
    assert panel.text() == "A red circle and a star"
    panel.words(" lost", part=3)
    assert panel.text() == "A red circle and a star"
    panel.end("stopped")
    panel.words(" of another run", part=2)
    assert panel.text() == ""


def test_text_is_never_taken_for_markup(panel: Panel) -> None:
    text = '<img src=x onerror="globalThis.harm = 1"><b>bold</b> & <script>harm = 1</script>'
    panel.words(text, thinking=text)
    panel.finish({"text": text, "thinking": text, "error": text})
    for part in ("words", "thought", "notice"):
        assert panel.text(part) == text
    assert panel.page.locator(".qvl-text-panel :is(img, b, script)").count() == 0
    assert panel.page.evaluate("globalThis.harm") is None


def test_a_selection_lasts_while_the_text_grows(panel: Panel) -> None:
    panel.words("A red circle")
    panel.page.evaluate(
        """() => {
          const text = document.querySelector(".qvl-text-words").firstChild;
          getSelection().setBaseAndExtent(text, 2, text, 5);
        }"""
    )
    panel.words(" and a star", part=1)
    assert panel.page.evaluate("getSelection().toString()") == "red"


def test_the_picture_being_answered_is_shown(panel: Panel) -> None:
    panel.words("First", 0, 3)
    panel.words("First.", 0, 3, finish_reason="stop")
    panel.words("Second", 1, 3)
    assert panel.text() == "Second"
    assert panel.text("place") == "2 / 3"
    assert panel.text("status") == "Answering"


def test_who_leafs_is_left_there_until_the_next_run(panel: Panel) -> None:
    panel.words("First.", 0, 3, finish_reason="stop")
    panel.words("Second", 1, 3)
    panel.button("Previous picture").click()
    panel.words(" goes on", 1, 3, part=1)
    assert panel.text() == "First."
    assert panel.text("status") == "Answering 2"
    panel.finish(*three())
    assert panel.text() == "First."
    panel.button("Next picture").click()
    panel.hear(status="Looking at 3 pictures", count=3)
    panel.words("New", 2, 3)
    assert panel.text() == "New"


def test_leafing_through_a_batch(panel: Panel) -> None:
    panel.finish(*three())
    seen = [(panel.text("place"), panel.text())]
    while panel.button("Next picture").is_enabled():
        panel.button("Next picture").click()
        seen.append((panel.text("place"), panel.text()))
    assert seen == [("1 / 3", "First."), ("2 / 3", "Second."), ("3 / 3", "Third.")]
    panel.button("Previous picture").click()
    assert panel.text() == "Second."
    panel.page.locator(".qvl-text-body").focus()
    panel.page.keyboard.press("ArrowLeft")
    panel.page.keyboard.press("ArrowLeft")
    assert panel.text() == "First."
    assert panel.button("Previous picture").is_disabled()


def test_one_picture_has_no_pager(panel: Panel) -> None:
    panel.finish({"text": "Alone."})
    for title in ("Previous picture", "Next picture", "Copy the texts of all pictures"):
        assert panel.page.get_by_title(title).is_hidden()


def test_copying_the_text_on_view_and_all_texts(panel: Panel) -> None:
    panel.finish(*three())
    panel.button("Next picture").click()
    panel.button("Copy").click()
    panel.page.get_by_text("Copied").wait_for()
    assert panel.clipboard == "Second."
    panel.button("Copy all").click()
    panel.page.wait_for_function("navigator.clipboard.readText().then((t) => t.includes('Third'))")
    assert panel.clipboard == "First.\n\nSecond.\n\nThird."


def test_copying_on_a_page_without_a_secure_origin(panel: Panel) -> None:
    panel.finish({"text": "Old way."})
    panel.page.evaluate(
        """() => {
          globalThis.read = navigator.clipboard.readText.bind(navigator.clipboard);
          Object.defineProperty(navigator, "clipboard", { value: undefined });
        }"""
    )
    panel.button("Copy").click()
    panel.page.get_by_text("Copied").wait_for()
    assert panel.page.evaluate("read()") == "Old way."
    assert panel.page.locator("textarea").count() == 0


def test_a_thought_is_open_while_it_is_thought_and_folded_after(panel: Panel) -> None:
    thought = panel.page.locator(".qvl-text-thought")
    panel.words("", thinking="A red thing?")
    assert thought.is_visible()
    assert panel.text("status") == "Thinking"
    panel.words("An apple", part=1)
    assert not thought.is_visible()
    panel.page.get_by_text("Thinking", exact=True).click()
    panel.words(" it is", part=2)
    assert thought.is_visible(), "opened by hand"
    panel.finish({"text": "An apple it is.", "thinking": "A red thing?"})
    assert thought.is_visible()
    assert panel.text("thought") == "A red thing?"


@pytest.mark.parametrize(
    ("result", "notice"),
    [
        ({"text": "x", "finish_reason": "length"}, "Cut at max_new_tokens"),
        ({"text": "x", "finish_reason": "repetition"}, "began to repeat itself"),
        ({"text": "", "finish_reason": "error"}, "no answer"),
        ({"text": "raw", "error": "The reply holds no boxes."}, "The reply holds no boxes."),
        ({"text": "x", "finish_reason": "length", "notes": ["Cut at 9."]}, "Cut at 9."),
        ({"text": "x", "notes": ["One.", "Two."]}, "One.\nTwo."),
        ({"text": "x", "error": "No boxes.", "notes": ["Cut."]}, "No boxes.\nCut."),
    ],
)
def test_an_answer_that_is_not_whole_says_so(
    panel: Panel, result: dict[str, Any], notice: str
) -> None:
    panel.finish(result)
    assert notice in panel.text("notice")
    assert panel.text() == result["text"]
    panel.finish({"text": "whole"})
    assert panel.text("notice") == ""


def test_what_was_written_stays_after_a_stop(panel: Panel) -> None:
    panel.words("First.", 0, 2, finish_reason="stop")
    panel.words("Sec", 1, 2)
    panel.end("stopped")
    assert (panel.state, panel.text(), panel.text("status")) == ("stopped", "Sec", "Stopped")
    panel.words("Anew")
    panel.end("failed")
    assert (panel.state, panel.text(), panel.text("status")) == ("failed", "Anew", "Failed")
    assert panel.text("place") == "1 / 1"


def lines(count: int) -> str:
    return "\n".join(f"line {number}" for number in range(count))


def scrolled(panel: Panel) -> float:
    """How far below the view the text goes on, in pixels."""
    return panel.page.locator(".qvl-text-body").evaluate(
        "(e) => e.scrollHeight - e.scrollTop - e.clientHeight"
    )


def test_the_end_of_a_growing_text_stays_in_sight(panel: Panel) -> None:
    panel.words(lines(50))
    assert scrolled(panel) < 2
    panel.words(lines(50), part=1)
    assert scrolled(panel) < 2


def test_who_scrolled_back_is_left_there(panel: Panel) -> None:
    panel.words(lines(50))
    body = panel.page.locator(".qvl-text-body")
    body.evaluate("(e) => (e.scrollTop = 40)")
    panel.words(lines(50), part=1)
    assert body.evaluate("(e) => e.scrollTop") == 40


def test_a_text_is_read_from_its_beginning_when_leafed_to(panel: Panel) -> None:
    panel.finish({"text": lines(50)}, {"text": lines(60)})
    body = panel.page.locator(".qvl-text-body")
    body.evaluate("(e) => (e.scrollTop = 300)")
    panel.button("Next picture").click()
    assert body.evaluate("(e) => e.scrollTop") == 0


def test_only_what_goes_on_is_announced(panel: Panel) -> None:
    panel.words("First", 0, 2)
    spoken = panel.page.locator("[aria-live=polite]")
    assert spoken.count() == 1
    assert spoken.evaluate("(e) => e.textContent") == "Answering"
    changes = panel.page.evaluate(
        """async () => {
          let changes = 0;
          const spoken = document.querySelector("[aria-live=polite]");
          const seen = new MutationObserver((list) => (changes += list.length));
          seen.observe(spoken, { childList: true, characterData: true, subtree: true });
          for (let part = 1; part < 20; part++) {
            test.answer.receive({ index: 0, count: 2, part, text: " more", thinking: "" });
            test.panel.draw(test.answer);
          }
          await new Promise(requestAnimationFrame);
          return changes;
        }"""
    )
    assert changes == 0


def test_before_the_first_run_it_says_what_it_is_for(panel: Panel) -> None:
    assert (panel.state, panel.text("status")) == ("empty", "The answer appears here")
    panel.finish({"text": ""})
    assert (panel.state, panel.text("status")) == ("done", "")


def test_its_keys_are_not_the_canvas_s(panel: Panel) -> None:
    panel.finish(*three())
    panel.page.evaluate(
        """() => {
          globalThis.keys = [];
          document.addEventListener("keydown", ({ key }) => keys.push(key));
        }"""
    )
    panel.page.locator(".qvl-text-body").focus()
    for key in ("Delete", " ", "ArrowRight", "PageDown", "Control+a", "Escape"):
        panel.page.keyboard.press(key)
    assert panel.page.evaluate("keys") == ["Control", "Escape"]
    assert panel.page.evaluate("getSelection().toString()").strip() == "Second."


def test_everything_can_be_reached_by_keyboard(panel: Panel) -> None:
    panel.finish({"text": "a", "thinking": "b"}, {"text": "c", "thinking": "d"})
    reached = []
    for _ in range(6):
        panel.page.keyboard.press("Tab")
        reached.append(
            panel.page.evaluate(
                "document.activeElement.ariaLabel || document.activeElement.textContent"
            )
        )
    assert reached[:5] == [
        "Next picture",
        "Copy",
        "Copy all",
        "Answer",
        "Thinking",
    ]
