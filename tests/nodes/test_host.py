"""Progress, live text and interrupt, as ComfyUI gets to see them."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import comfy.model_management
import comfy.utils
import pytest
import torch
from qwen_vl_suite.nodes import host
from qwen_vl_suite.nodes.host import folders, graph, live_text, machine, memory, page, progress
from qwen_vl_suite.qwenvl.notes import RunNote
from qwen_vl_suite.qwenvl.types import Response, Result


@pytest.fixture
def bar(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every (value, total) that the progress bar showed."""
    shown: list[tuple[int, int]] = []

    class ProgressBar:
        def __init__(self, total: int):
            self.total = total

        def update_absolute(self, value: int, total: int | None = None) -> None:
            shown.append((value, total or self.total))

    monkeypatch.setattr(comfy.utils, "ProgressBar", ProgressBar)
    return shown


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(live_text, "time", clock)
    return clock


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[dict[str, Any]]:
    """Every live message that was sent."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(page, "send_live", lambda **news: messages.append(news))
    return messages


def pieces(sent: list[dict[str, Any]]) -> list[tuple[int, int, str]]:
    """(picture, part, text) of each message that has words."""
    return [(item["index"], item["part"], item["text"]) for item in sent if "index" in item]


def read(messages: list[dict[str, Any]]) -> str:
    """What a page has in the end that heard these messages about one picture, and no others."""
    text, last = "", -2
    for message in (item for item in messages if "index" in item):
        if message["part"] == 0:
            text, last = message["text"], 0
        elif message["part"] == last + 1:
            text, last = text + message["text"], message["part"]
    return text


def test_the_bar_only_grows_and_is_full_with_the_last_answer(
    bar: list[tuple[int, int]], sent: list[dict[str, Any]]
) -> None:
    watch = host.NodeObserver()
    watch.start([10, 10], [4, 4])
    watch.token(0, "a")
    watch.token(1, "b")
    watch.done(0, Response("a"))
    watch.token(1, "c")
    watch.done(1, Response("bc"))
    assert [value for value, _ in bar] == [125, 250, 625, 750, 1000]
    assert {total for _, total in bar} == {1000}


def test_an_answer_at_its_limit_is_not_done_until_it_is(
    bar: list[tuple[int, int]], sent: list[dict[str, Any]]
) -> None:
    watch = host.NodeObserver()
    watch.start([10], [2])
    for _ in range(5):
        watch.token(0, "a")
    assert max(value for value, _ in bar) == 999


def test_reading_the_weights_and_answering_share_one_bar(
    bar: list[tuple[int, int]], sent: list[dict[str, Any]]
) -> None:
    watch = host.NodeObserver()
    for done in range(5):
        watch.loading(done, 4)
    watch.start([10], [4])
    watch.token(0, "a")
    watch.done(0, Response("a"))
    assert [value for value, _ in bar] == [1, 50, 100, 150, 200, 400, 1000]
    assert [item.get("status") for item in sent[:2]] == [
        "Loading the model",
        "Looking at the picture",
    ]


def test_an_answer_that_begins_anew_takes_its_share_of_the_bar_back(
    bar: list[tuple[int, int]], sent: list[dict[str, Any]]
) -> None:
    watch = host.NodeObserver()
    watch.start([10], [4])
    watch.token(0, "a")
    watch.token(0, "b")
    watch.restart(0)
    watch.token(0, "a")
    assert [value for value, _ in bar] == [250, 500, 250]


def test_words_go_on_where_the_last_message_ended(
    bar: list[tuple[int, int]], sent: list[dict[str, Any]], clock: Clock
) -> None:
    watch = host.NodeObserver()
    watch.start([10], [9])
    for word in ("Hel", "lo", " ", "you"):
        clock.now += 1
        watch.token(0, word)
    watch.done(0, Response("Hello you."))
    # The space comes with the next word: a text never ends in one.
    assert pieces(sent) == [(0, 0, "Hel"), (0, 1, "lo"), (0, 2, " you"), (0, 0, "Hello you.")]
    assert sent[-1]["finish_reason"] == "stop"


def test_words_wait_for_a_tenth_of_a_second(
    bar: list[tuple[int, int]], sent: list[dict[str, Any]], clock: Clock
) -> None:
    watch = host.NodeObserver()
    watch.start([10], [99])
    for letter in "abcdefghij":
        clock.now += 1 / 64
        watch.token(0, letter)
    assert pieces(sent) == [(0, 0, "a"), (0, 1, "bcdefgh")]


def test_live_text_is_that_of_the_first_picture_being_answered(
    bar: list[tuple[int, int]], sent: list[dict[str, Any]], clock: Clock
) -> None:
    def token(index: int, text: str) -> None:
        clock.now += 1
        watch.token(index, text)

    watch = host.NodeObserver()
    watch.start([10, 10, 10], [9, 9, 9])
    token(1, "Bye")
    token(0, "Hel")
    token(1, " now")
    token(0, "lo")
    watch.done(0, Response("Hello."))
    token(2, "x")
    assert pieces(sent) == [
        (1, 0, "Bye"), (0, 0, "Hel"), (0, 1, "lo"), (0, 0, "Hello."), (1, 0, "Bye now")
    ]  # fmt: skip
    assert {item["count"] for item in sent} == {3}


def test_a_thought_is_shown_apart_from_the_text(
    bar: list[tuple[int, int]], sent: list[dict[str, Any]], clock: Clock
) -> None:
    watch = host.NodeObserver(thinking={0})
    watch.start([10], [9])
    for text in ("A red", " thing?</think>", "An apple"):
        clock.now += 1
        watch.token(0, text)
    watch.done(0, Response("An apple.", thinking="A red thing?"))
    assert [(item["thinking"], item["text"]) for item in sent if "index" in item] == [
        ("A red", ""), (" thing?", ""), ("", "An apple"), ("A red thing?", "An apple.")
    ]  # fmt: skip


def test_a_text_that_changes_is_sent_whole(
    bar: list[tuple[int, int]], sent: list[dict[str, Any]], clock: Clock
) -> None:
    watch = host.NodeObserver()
    watch.start([10], [9])
    watch.token(0, "Hel")
    watch.restart(0)
    clock.now += 1
    watch.token(0, "Good day")
    assert pieces(sent)[-1] == (0, 0, "Good day")


def test_a_long_answer_stays_cheap_and_a_page_that_joins_late_catches_up(
    bar: list[tuple[int, int]], sent: list[dict[str, Any]], clock: Clock
) -> None:
    watch = host.NodeObserver()
    watch.start([10], [16384])
    for number in range(16384):
        clock.now += 0.02
        watch.token(0, f"w{number:04d} "[-5:])
    text = "".join(f"w{number:04d} "[-5:] for number in range(16384))
    missed = len(sent) // 2 + 1
    assert sent[missed]["part"] > 0
    assert text.startswith(read(sent)) and len(text) - len(read(sent)) < 60
    assert read(sent[missed:]) == read(sent)
    letters = sum(len(item.get("text", "")) for item in sent)
    # Ten times a second the whole of it would be 110 million.
    assert len(sent) < 3300 and letters < 40 * len(text)


def test_a_note_on_the_whole_run_is_shown_with_the_first_of_its_results() -> None:
    results = [Result("a", notes=(RunNote("top_k has no effect here."), "cut"))] * 2
    first, second = host.results_ui(results)["qwen_vl"]
    assert first["notes"] == ["top_k has no effect here.", "cut"]
    assert second["notes"] == ["cut"]


def test_results_are_shown_before_an_error(sent: list[dict[str, Any]]) -> None:
    cut = Result("A red", finish_reason="length", notes=("The reply was cut at 3 tokens.",))
    results = [cut, Result("nonsense", error="The reply is no JSON.")]
    host.send_results(results)
    assert sent == [{"results": host.results_ui(results)["qwen_vl"]}]
    first, second = sent[0]["results"]
    assert (first["text"], first["notes"]) == ("A red", ["The reply was cut at 3 tokens."])
    assert (second["text"], second["error"]) == ("nonsense", "The reply is no JSON.")


def test_stop_ends_a_run_within_a_token(
    run_node: Callable[..., Any], scripted: Any, pictures: torch.Tensor
) -> None:
    model, _ = scripted("a long reply that nobody wants any more")
    comfy.model_management.interrupt_current_processing(True)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        run_node("QVL_Describe", model=model, images=pictures)
    texts, _ = run_node("QVL_Describe", model=model, images=pictures)
    assert len(texts) == 3


def test_a_host_without_a_part_loses_only_that_part(monkeypatch: pytest.MonkeyPatch) -> None:
    absent: Callable[..., None] = lambda module, name="": None  # noqa: E731
    for module in (folders, machine, memory, page, progress):
        monkeypatch.setattr(module, "optional_import", absent)
    host.register_folders()
    host.check_interrupt()
    host.send_live(text="x")
    assert host.manager() is None
    progress.ProgressBar(3).set(1)
    assert host.model_roots() == []
    assert host.device("auto") == "auto"
    assert host.device("cuda:1") == "cuda:1"
    assert host.devices()[0] == "auto" and host.devices()[-1] == "cpu"


class _Kind(SimpleNamespace):
    INPUT_IS_LIST = False
    OUTPUT_IS_LIST: tuple[bool, ...] = (False,)


KINDS = {
    "Load": _Kind(RETURN_TYPES=["IMAGE"]),
    "Scale": _Kind(RETURN_TYPES=["IMAGE"]),
    "Split": _Kind(RETURN_TYPES=["IMAGE"], OUTPUT_IS_LIST=(True,)),
    "QVL_Find": _Kind(RETURN_TYPES=["STRING", "IMAGE", "BOUNDING_BOX"], OUTPUT_IS_LIST=(True,) * 3),
    "QVL_Pick": _Kind(RETURN_TYPES=["BOUNDING_BOX", "BOUNDING_BOX"], OUTPUT_IS_LIST=(True,) * 2),
    "Crop": _Kind(RETURN_TYPES=["IMAGE"]),
    "Pairs": _Kind(RETURN_TYPES=["IMAGE"], INPUT_IS_LIST=True),
}


@pytest.mark.parametrize(
    ("kind", "inputs", "expected"),
    [
        pytest.param("Crop", {"image": ["load", 0]}, True, id="the batch itself"),
        pytest.param("Crop", {"image": ["scaled", 0]}, True, id="made of the batch"),
        pytest.param("Crop", {"image": ["find", 1]}, True, id="drawn on"),
        pytest.param("Crop", {"image": ["split", 0]}, False, id="as a list"),
        pytest.param("Crop", {"image": ["other", 0]}, False, id="another picture"),
        pytest.param("Crop", {"text": ["find", 0]}, False, id="a text a picture"),
        pytest.param("Crop", {"size": 512}, False, id="no picture"),
        pytest.param(
            "Crop", {"image": ["load", 0], "box": ["pick", 0]}, False, id="another output"
        ),
        pytest.param("Pairs", {"image": ["load", 0]}, False, id="a node that takes lists"),
    ],
)
@pytest.mark.parametrize("connected", [True, False], ids=["with images", "without images"])
def test_a_box_a_picture_and_the_whole_batch_are_seen_to_meet(
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    inputs: dict[str, Any],
    expected: bool,
    connected: bool,
) -> None:
    picker = {"bboxes": ["find", 2], **({"images": ["load", 0]} if connected else {})}
    nodes = {
        "load": ("Load", {}),
        "other": ("Load", {}),
        "scaled": ("Scale", {"image": ["load", 0]}),
        "split": ("Split", {"images": ["load", 0]}),
        "find": ("QVL_Find", {"images": ["load", 0]}),
        "pick": ("QVL_Pick", picker),
        "now": (kind, {"box": ["pick", 1], **inputs}),
    }
    prompt = {name: {"class_type": kind, "inputs": given} for name, (kind, given) in nodes.items()}
    parts = {
        "get_executing_context": lambda: SimpleNamespace(node_id="now"),
        "get_progress_state": lambda: SimpleNamespace(
            dynprompt=SimpleNamespace(get_node=prompt.__getitem__)
        ),
        "NODE_CLASS_MAPPINGS": KINDS,
        "is_link": lambda value: isinstance(value, list),
    }
    monkeypatch.setattr(graph, "optional_import", lambda _, name: parts[name])
    assert host.pairs_with_whole_batch("QVL_Pick", 1) is expected
