"""What ComfyUI's page is told of a run: words while they are written, progress, results."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from graphs import batch, describe, find, load, loader, preview, read
from pages import LIVE, Message, Page

pytestmark = pytest.mark.comfyui


@pytest.fixture
def page(server: Any) -> Iterator[Page]:
    with Page(server) as opened:
        yield opened


def one(**widgets: Any) -> dict[str, Any]:
    return {
        "picture": load("shapes.png"),
        "model": loader(),
        "describe": describe(**widgets),
        "show": preview("describe", 0),
    }


def three(**widgets: Any) -> dict[str, Any]:
    pictures = {name: load(f"{name}.png") for name in ("words", "shapes", "both")}
    batches = {"two": batch("words", "shapes"), "picture": batch("two", "both")}
    return {**one(**widgets), **pictures, **batches}


class Written:
    """The texts that live messages make, put together as a page does it."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.ended: list[int] = []
        self._last = (-1, -1)  # picture and part of the message before

    def hear(self, message: Message) -> None:
        index, part = message.data["index"], message.data["part"]
        before = self.texts.get(index, "")
        if part == 0:
            self.texts[index] = message.data["text"]
        else:
            assert self._last == (index, part - 1)
            self.texts[index] = before + message.data["text"]
        self._last = (index, part)
        assert self.texts[index].startswith(before), "words that were shown are gone"
        if message.data.get("finish_reason"):
            assert index not in self.ended
            self.ended.append(index)


def results(page: Page, prompt_id: str, node: str = "describe") -> list[dict[str, Any]]:
    """What the page was sent when the node was done."""
    done = [item.data for item in page.heard("executed", prompt_id) if item.data["node"] == node]
    assert len(done) == 1
    return done[0]["output"]["qwen_vl"]


def progress(page: Page, prompt_id: str, node: str) -> list[tuple[float, float]]:
    """(value, total) of the node, at each time that the page was told of it."""
    told = (item.data["nodes"] for item in page.heard("progress_state", prompt_id))
    return [(nodes[node]["value"], nodes[node]["max"]) for nodes in told if node in nodes]


@pytest.mark.parametrize(("graph", "count", "seed"), [(one, 1, 11), (three, 3, 12)])
def test_words_come_while_they_are_written_and_end_as_the_answer(
    page: Page, graph: Any, count: int, seed: int
) -> None:
    prompt_id = page.run(graph(seed=seed))
    written, spoken = Written(), 0
    live = page.heard(LIVE, prompt_id)
    assert {item.data["node"] for item in live} == {"describe"}
    for item in live:
        if "index" in item.data:
            assert item.data["count"] == count
            written.hear(item)
            spoken += 1
    final = [result["text"] for result in results(page, prompt_id)]
    assert [written.texts[index] for index in range(count)] == final
    assert sorted(written.ended) == list(range(count))
    assert spoken > count, "nothing came before the ends"
    # Before the node was done, not with it.
    (executed,) = (m for m in page.heard("executed", prompt_id) if m.data["node"] == "describe")
    everything = page.heard(prompt_id=prompt_id)
    assert everything.index(live[-1]) < everything.index(executed)
    outputs = page.server.finished(prompt_id)["outputs"]
    assert outputs["show"]["text"] == final
    assert [entry["text"] for entry in outputs["describe"]["qwen_vl"]] == final


def test_loading_is_told_first_and_the_bar_fills_once(page: Page) -> None:
    graph = three(seed=13)
    graph["model"] = loader(precision="bf16")  # a model that no other test has loaded
    prompt_id = page.run(graph)
    live = [item.data for item in page.heard(LIVE, prompt_id)]
    assert live[0]["status"] == "Loading the model"
    assert live[1]["status"] == "Looking at 3 pictures" and live[1]["count"] == 3
    steps = progress(page, prompt_id, "describe")
    assert all(0 <= value <= total for value, total in steps)
    shares = [value / total for value, total in steps]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    # Full with the last picture, of which the page is told next.
    everything = page.heard(prompt_id=prompt_id)
    full = next(
        place
        for place, item in enumerate(everything)
        if item.kind == "progress" and item.data["value"] == item.data["max"]
    )
    ended = [place for place, item in enumerate(everything) if "finish_reason" in item.data]
    assert ended[-2] < full < ended[-1]


def test_nobody_else_is_told(server: Any, page: Page) -> None:
    with Page(server) as other:
        prompt_id = page.run(one(seed=14))
        another = other.run(one(seed=15))
    assert page.heard(LIVE, prompt_id) and other.heard(LIVE, another)
    assert not other.heard(prompt_id=prompt_id)
    assert not page.heard(prompt_id=another)


def test_a_run_that_no_page_asked_for_is_told_to_none(server: Any, page: Page) -> None:
    answer = server.post("/prompt", {"prompt": one(seed=17)})
    assert server.finished(answer["prompt_id"])["status"]["status_str"] == "success"
    page.run(one(seed=18))  # whatever was sent before has come now
    assert not page.heard(LIVE, answer["prompt_id"])


def test_a_run_that_changes_nothing_runs_nothing_and_shows_its_results_again(page: Page) -> None:
    graph = three(seed=16)
    graph |= {"read": read(), "find": find("blue cross"), "found": preview("find", 0)}
    graph |= {"text": preview("read", 0)}
    first, again = page.run(graph), page.run(graph)
    (cached,) = page.heard("execution_cached", again)
    assert set(cached.data["nodes"]) == set(graph)
    assert not page.heard(LIVE, again)
    for node in ("describe", "read", "find"):
        assert len(results(page, again, node)) == 3
        assert results(page, again, node) == results(page, first, node)
    before, after = (page.server.finished(prompt_id)["outputs"] for prompt_id in (first, again))
    assert before == after
