"""Two people at one ComfyUI, each with a workflow and a model of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import tiny
from graphs import describe, load, loader, preview
from pages import LIVE, Page, ends

pytestmark = pytest.mark.comfyui
NANO, OTHER = "nano (bundled demo)", "somebody elses"
PICTURES = ("shapes.png", "words.png")
ROUNDS = 10


@pytest.fixture(scope="module")
def other_model(card: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = card.base / "models" / "LLM" / OTHER
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(tiny.make("qwen2_5_vl", tmp_path_factory.mktemp("tiny") / "made"))


@pytest.fixture
def nothing_loaded(card: Any) -> None:
    card.free(lambda: not card.get("/pretend_card")["ours"])


@pytest.fixture
def pages(card: Any) -> Iterator[tuple[Page, Page]]:
    with Page(card) as mine, Page(card) as yours:
        yield mine, yours


def graph(model: str, picture: str, seed: int) -> dict[str, Any]:
    return {
        "picture": load(picture),
        "model": loader(model=model, device="auto"),
        "describe": describe(seed=seed, max_new_tokens=40),
        "show": preview("describe", 0),
    }


def text(page: Page, prompt_id: str) -> str:
    return page.server.finished(prompt_id)["outputs"]["show"]["text"][0]


def openings(server: Any) -> int:
    """How often a model was opened so far."""
    return server.get("/pretend_card")["requests"]["misses"]


def in_turns(models: dict[Page, str]) -> None:
    """Queues workflows of both pages at once, one of each in turn. Every answer must be that of
    the same question asked alone before."""
    alone = {
        (model, picture): text(page, page.run(graph(model, picture, seed=0)))
        for page, model in models.items()
        for picture in PICTURES
    }
    assert len(set(alone.values())) == len(alone)
    queued = []
    for turn in range(1, 2 * ROUNDS + 1, 2):
        for place, (page, model) in enumerate(models.items()):
            picture = PICTURES[(turn // 2 + place) % 2]
            prompt_id = page.start(graph(model, picture, seed=turn + place))
            queued.append((page, model, picture, prompt_id))
    for page, model, picture, prompt_id in queued:
        assert page.wait(ends(prompt_id)).kind == "execution_success"
        assert text(page, prompt_id) == alone[model, picture]
        assert page.heard(LIVE, prompt_id), "answered from ComfyUI's cache"


def test_two_pages_share_one_model(
    card: Any, pages: tuple[Page, Page], nothing_loaded: None
) -> None:
    before = openings(card)
    in_turns(dict.fromkeys(pages, NANO))
    assert openings(card) - before == 1


def test_two_models_do_not_mix_and_the_one_that_nothing_holds_leaves(
    card: Any, pages: tuple[Page, Page], other_model: None, nothing_loaded: None
) -> None:
    """ComfyUI forgets what the workflow that runs does not use; so each turn opens its model
    anew. (With ``--cache-lru`` both stay: see ``test_modes``.)"""
    in_turns(dict(zip(pages, (NANO, OTHER), strict=True)))
    assert len(card.get("/pretend_card")["ours"]) == 1
