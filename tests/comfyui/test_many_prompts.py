"""A long day: many prompts in a row do not make ComfyUI larger."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import pytest
import real
from graphs import batch, describe, find, load, loader, preview, read

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
WARM, ALL = 40, 200
PICTURES = ("shapes.png", "words.png", "both.png")
THINGS = ("blue cross", "orange triangle", "text", "star")


@pytest.fixture(scope="module")
def classic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Server]:
    """A ComfyUI that keeps the results of the last workflow only. What it keeps by default would
    grow with every prompt, and tell nothing of us."""
    base = tmp_path_factory.mktemp("classic")
    with real.started(base, "--cache-classic", extensions=[real.PRETEND_CARD]) as running:
        yield running


@dataclass(frozen=True)
class Size:
    resident: int  # bytes
    threads: int
    files: int
    models: int
    tensors: int  # bytes


def size(server: real.Server) -> Size:
    process = psutil.Process(server.pid)
    models = server.get("/pretend_card")["requests"]["models"]
    tensors = server.get("/pretend_card/tensors")
    memory = process.memory_info().rss
    return Size(memory, process.num_threads(), process.num_fds(), models, tensors)


def ask(server: real.Server, turns: Iterable[int]) -> None:
    """Waits for each answer before the next question, as a person does."""
    for turn in turns:
        assert server.run(prompt(turn))["show"]["text"]


def prompt(turn: int) -> dict[str, Any]:
    """Never twice the same: pictures, batches, questions and seeds change. Pictures come again:
    what a model keeps of all that it saw has a bound of its own."""
    chance = {"sampling": "model default", "seed": turn, "max_new_tokens": 12}
    keep = {"when_unreadable": "keep going"}
    questions: tuple[Callable[[], dict[str, Any]], ...] = (
        lambda: describe(**chance),
        lambda: read(output=("lines", "plain")[turn % 2], max_new_tokens=40 + turn, **keep),
        lambda: find(f"{THINGS[turn % 4]} {turn}", **keep),
    )
    ground = {"width": 224, "height": 224, "batch_size": 1, "color": 1_300_000 * (turn % 12)}
    plain = {"class_type": "EmptyImage", "inputs": ground}
    nodes = {"drawn": load(PICTURES[turn % 3]), "plain": plain, "model": loader(device="auto")}
    nodes["picture"] = (batch("drawn", "plain"), plain, nodes["drawn"], plain)[turn % 4]
    return {**nodes, "ask": questions[turn % 3](), "show": preview("ask", 0)}


def test_two_hundred_prompts_leave_it_as_large_as_forty_did(classic: real.Server) -> None:
    # Both times ComfyUI holds the pictures of the same last prompt.
    ask(classic, [*range(1, WARM), 0])
    before = size(classic)
    ask(classic, [*range(WARM, ALL), 0])
    after = size(classic)
    assert abs(after.resident - before.resident) < 0.05 * before.resident, (before, after)
    assert after.models == before.models == 1
    assert after.threads <= before.threads + 2  # of pools that are not full yet
    assert after.files <= before.files + 2
    assert after.tensors == before.tensors
