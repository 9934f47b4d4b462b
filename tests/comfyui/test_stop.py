"""Stop in a real ComfyUI: how soon a run ends, what it leaves, and that the next is like any."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from graphs import batch, describe, load, loader, preview, repeat
from pages import LIVE, Message, Page, ends

pytestmark = pytest.mark.comfyui
MB = 1_000_000


@pytest.fixture
def page(card: Any) -> Iterator[Page]:
    with Page(card) as opened:
        yield opened


def describing(picture: dict[str, Any], model: dict[str, Any], **widgets: Any) -> dict[str, Any]:
    """``picture``: the nodes that make it."""
    return {
        **picture,
        "model": loader(device="auto", precision="auto", **model),
        "describe": describe(**widgets),
        "show": preview("describe", 0),
    }


def many(amount: int) -> dict[str, Any]:
    return {"one": load("words.png"), "picture": repeat("one", amount)}


def words_of(prompt_id: str, first: int = 0) -> Callable[[Message], bool]:
    """For ``Page.wait``: words about picture ``first`` or a later one, as they begin to come."""

    def wanted(message: Message) -> bool:
        mine = message.kind == LIVE and message.data["prompt_id"] == prompt_id
        return mine and message.data.get("index", -1) >= first

    return wanted


def status_of(prompt_id: str, beginning: str) -> Callable[[Message], bool]:
    def wanted(message: Message) -> bool:
        mine = message.kind == LIVE and message.data["prompt_id"] == prompt_id
        return mine and message.data.get("status", "").startswith(beginning)

    return wanted


def stop(page: Page, prompt_id: str) -> tuple[float, list[Message]]:
    """Presses stop. Seconds until the run had ended, and what the page heard of it meanwhile."""
    pressed = time.monotonic()
    page.server.post("/interrupt", {})
    answered = time.monotonic()
    end = page.wait(ends(prompt_id))
    assert end.kind == "execution_interrupted"
    heard = [item for item in page.heard(LIVE, prompt_id) if item.at > answered]
    return end.at - pressed, heard


def tensors(server: Any) -> int:
    return server.get("/pretend_card/tensors")


def places(server: Any) -> list[str]:
    """Where the loaded models are."""
    return [model["place"] for model in server.get("/pretend_card")["ours"] if model["bytes"]]


def until(happened: Callable[[], bool]) -> None:
    """ComfyUI frees memory a moment after it was asked to."""
    for _ in range(150):
        if happened():
            return
        time.sleep(0.2)
    raise AssertionError("It did not happen within 30 s")


def test_stop_amid_a_long_batch_frees_what_it_took_and_keeps_the_model(
    card: Any, page: Page
) -> None:
    graph = describing(many(400), {}, seed=20)
    # Beforehand, what stays anyway: the model, and the pictures in ComfyUI's cache.
    graph["size"] = {"class_type": "GetImageSize", "inputs": {"image": ["picture", 0]}}
    first = {**graph, "describe": describe(images=["one", 0], seed=20), "high": preview("size", 1)}
    page.run(first)
    before = tensors(card)
    prompt_id = page.start(graph)
    page.wait(words_of(prompt_id))
    assert tensors(card) - before > MB
    page.wait(words_of(prompt_id, first=64))  # of the third of a dozen turns
    _, heard = stop(page, prompt_id)
    assert card.ends(prompt_id)["execution_interrupted"]["node_id"] == "describe"
    assert len(heard) <= 2 and not any("finish_reason" in item.data for item in heard)
    assert tensors(card) - before < MB
    assert places(card) == ["device"]


def test_stop_does_not_wait_until_a_large_picture_is_looked_at(card: Any, page: Page) -> None:
    def looking(name: str) -> tuple[str, float]:
        graph = describing({"picture": load(name)}, {"min_pixels": 1440 * 1440}, max_new_tokens=2)
        prompt_id = page.start(graph)
        return prompt_id, page.wait(status_of(prompt_id, "Looking")).at

    prompt_id, begun = looking("shapes.png")
    whole = page.wait(words_of(prompt_id)).at - begun
    prompt_id, _ = looking("both.png")
    time.sleep(0.2 * whole)
    took, heard = stop(page, prompt_id)
    assert not heard
    assert took < whole / 2


def test_a_run_after_a_stopped_one_says_what_an_undisturbed_one_says(card: Any, page: Page) -> None:
    two = {"a": load("words.png"), "b": load("shapes.png"), "picture": batch("a", "b")}
    chance = {"sampling": "custom", "sampling.temperature": 2.0, "sampling.top_k": 0}
    chance |= {f"sampling.{name}": 1.0 for name in ("top_p", "repetition_penalty")}
    chance |= {f"sampling.{name}": 0.0 for name in ("min_p", "presence_penalty")}

    def texts(**widgets: Any) -> list[str]:
        graph = describing(two, {}, **chance, **widgets)
        return card.finished(page.run(graph))["outputs"]["show"]["text"]

    graph = describing(two, {}, **chance, seed=23)
    prompt_id = page.start(graph)
    page.wait(words_of(prompt_id))
    stop(page, prompt_id)
    after = texts(seed=23)
    card.free(lambda: not places(card))
    assert texts(seed=23) == after
    assert texts(seed=24) != after, "chance has no part in it"


def test_stop_while_a_model_is_loaded_leaves_none_of_it(card: Any, page: Page, large: Path) -> None:
    folder = card.base / "models" / "LLM" / "heavy"
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(large)
    graph = describing(
        {"picture": load("words.png")}, {"model": "heavy"}, seed=25, max_new_tokens=8
    )
    before = tensors(card)
    prompt_id = page.start(graph)
    page.wait(status_of(prompt_id, "Loading"))
    stop(page, prompt_id)
    card.finished(prompt_id)
    assert not [item for item in page.heard(LIVE, prompt_id) if "count" in item.data]
    assert tensors(card) - before < MB
    (text,) = card.finished(page.run(graph))["outputs"]["show"]["text"]
    assert text
