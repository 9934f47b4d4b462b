"""Progress, live text and interrupt, as ComfyUI gets to see them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.utils
import pytest
import torch
from qwen_vl_suite.nodes import host
from qwen_vl_suite.nodes.host import folders, machine, memory, page, progress
from qwen_vl_suite.qwenvl.types import Response


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


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Every live message that was sent."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(page, "live", lambda **news: sent.append(news))
    return sent


def test_progress_only_grows_and_ends_whole(
    bar: list[tuple[int, int]], words: list[dict[str, Any]]
) -> None:
    watch = host.NodeWatch()
    watch.start([10, 10], [4, 4])
    watch.token(0, "a")
    watch.token(1, "b")
    watch.done(0, Response("a"))
    watch.token(1, "c")
    watch.done(1, Response("bc"))
    values = [value for value, _ in bar]
    assert values == [250, 500, 1250, 1500, 2000]
    assert {total for _, total in bar} == {2000}


def test_tokens_beyond_the_limit_do_not_run_over(
    bar: list[tuple[int, int]], words: list[dict[str, Any]]
) -> None:
    watch = host.NodeWatch()
    watch.start([10], [2])
    for _ in range(5):
        watch.token(0, "a")
    assert max(value for value, _ in bar) == 1000


def test_live_text_names_the_picture_of_a_batch(
    bar: list[tuple[int, int]], words: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_TEXT_INTERVAL", 0)
    watch = host.NodeWatch()
    watch.start([10, 10], [9, 9])
    watch.token(0, "Hel")
    watch.token(1, "Bye")
    watch.token(0, "lo")
    watch.done(0, Response("Hello."))
    watch.token(1, "!")
    assert [(item["index"], item["text"]) for item in words] == [
        (0, "Hel"), (0, "Hel"), (0, "Hello"), (0, "Hello."), (1, "Bye!")
    ]  # fmt: skip
    assert {item["count"] for item in words} == {2}


def test_a_thought_is_shown_apart_from_the_text(
    bar: list[tuple[int, int]], words: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_TEXT_INTERVAL", 0)
    watch = host.NodeWatch(thinking=True)
    watch.start([10], [9])
    watch.token(0, "A red")
    watch.token(0, " thing?</think>")
    watch.token(0, "An apple")
    watch.done(0, Response("An apple.", thinking="A red thing?"))
    assert [(item["thinking"], item["text"]) for item in words] == [
        ("A red", ""), ("A red thing?", ""), ("A red thing?", "An apple"),
        ("A red thing?", "An apple."),
    ]  # fmt: skip


def test_a_picture_that_is_asked_again_starts_with_no_words(
    bar: list[tuple[int, int]], words: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_TEXT_INTERVAL", 0)
    watch = host.NodeWatch()
    watch.start([10], [9])
    watch.token(0, "Hel")
    watch.restart(0)
    watch.token(0, "Hello")
    assert words[-1]["text"] == "Hello"


def test_loading_and_answering_share_one_bar(
    bar: list[tuple[int, int]], words: list[dict[str, Any]]
) -> None:
    watch = host.NodeWatch()
    watch.loading(1, 4)
    watch.loading(4, 4)
    watch.start([10], [4])
    watch.token(0, "a")
    assert bar == [(1, 4), (4, 4), (250, 1000)]
    assert words[0]["status"]


def test_live_text_of_one_picture_is_bare_and_not_sent_for_every_token(
    bar: list[tuple[int, int]], words: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_TEXT_INTERVAL", 3600)
    watch = host.NodeWatch()
    watch.start([10], [99])
    for letter in "abcdef":
        watch.token(0, letter)
    watch.done(0, Response("abcdef"))
    assert words[-1]["text"] == "abcdef"
    assert len(words) <= 2


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
        monkeypatch.setattr(module, "part", absent)
    host.register_folders()
    host.check_interrupt()
    host.live(text="x")
    assert host.manager() is None
    host.Bar(3).set(1)
    assert host.model_roots() == []
    assert host.device("auto") == "auto"
    assert host.device("cuda:1") == "cuda:1"
    assert host.devices()[0] == "auto" and host.devices()[-1] == "cpu"
