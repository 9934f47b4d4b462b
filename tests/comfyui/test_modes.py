"""The ways in which ComfyUI can be told to use memory: a question is answered in all of them, and
a model that is in the way of another leaves the (pretended) card as ComfyUI wants it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import real
import tiny
from graphs import describe, load, loader, preview

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]
seeds = count()


@dataclass(frozen=True)
class Mode:
    """``vram``: how ComfyUI calls it. ``place``: where our model is after another one needed the
    card (empty: no longer anywhere). ``stays``: whether the card keeps a model after its run."""

    options: tuple[str, ...]
    vram: str
    place: str
    stays: bool = True


MODES = [
    # Without RAM to go to, the weights are read from disk again.
    Mode(("--gpu-only",), "HIGH_VRAM", "disk"),
    # Nor does anything of a workflow outlive it.
    Mode(("--highvram", "--cache-none"), "HIGH_VRAM", "", stays=False),
    Mode(("--lowvram", "--cache-lru", "20"), "LOW_VRAM", "ram"),
    Mode(("--novram", "--cache-classic"), "NO_VRAM", "ram"),
    Mode(("--disable-smart-memory",), "NORMAL_VRAM", "ram", stays=False),
]


@pytest.fixture(scope="module", params=MODES, ids=lambda mode: " ".join(mode.options))
def running(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[real.Server, Mode]]:
    mode = request.param
    base = tmp_path_factory.mktemp("mode")
    with real.started(base, *mode.options, extensions=[real.PRETEND_CARD]) as server:
        yield server, mode


def looking(**model: Any) -> dict[str, Any]:
    return {
        "picture": load("shapes.png"),
        "model": loader(device="auto", precision="auto", **model),
        "describe": describe(seed=next(seeds)),
        "show": preview("describe", 0),
    }


def sampling() -> dict[str, Any]:
    inputs = {"after": ["describe", 0], "megabytes": 298, "seed": next(seeds)}
    return {"class_type": "PretendSampling", "inputs": inputs}


def on_card(server: real.Server) -> list[str]:
    books = server.get("/pretend_card")["comfyui"]
    return [
        "diffusion" if item["model"] == "Diffusion" else "ours" for item in books if item["bytes"]
    ]


def test_pictures_are_described_before_and_after_sampling(
    running: tuple[real.Server, Mode],
) -> None:
    server, mode = running
    (calm,) = server.run(looking())["show"]["text"]
    assert "triangle" in calm
    assert server.get("/pretend_card")["vram_state"] == mode.vram
    assert on_card(server) == (["ours"] if mode.stays else [])

    graph = looking()
    graph["sample"] = sampling()
    graph["style"] = {"class_type": "PretendStyle", "inputs": {"after": ["sample", 0]}}
    graph["again"] = describe(seed=next(seeds), style=["style", 0])
    graph["say"] = preview("again", 0)
    outputs = server.run(graph)
    assert outputs["show"]["text"] == outputs["say"]["text"] == [calm]


def test_what_sampling_leaves_of_the_model(running: tuple[real.Server, Mode]) -> None:
    server, mode = running
    graph = {**looking(), "sample": sampling(), "loaded": preview("sample", 0)}
    outputs = server.run(graph)
    loaded = int(outputs["loaded"]["text"][0])
    assert loaded > 290_000_000 or mode.vram == "NO_VRAM", "the diffusion model did not fit"
    ours = [model["place"] for model in server.get("/pretend_card")["ours"]]
    assert ours == ([mode.place] if mode.place else [])
    assert "ours" not in on_card(server)
    assert server.run(looking())["show"]["text"] == outputs["show"]["text"]


def test_models_of_different_workflows(running: tuple[real.Server, Mode], tmp_path: Path) -> None:
    """Whether each is opened once is for ComfyUI's cache of results to say."""
    server, mode = running
    folder = server.base / "models" / "LLM" / "other"
    folder.parent.mkdir(exist_ok=True)
    folder.symlink_to(tiny.make("qwen2_5_vl", tmp_path / "made"))
    server.run(looking())
    before = server.get("/pretend_card")["requests"]["misses"]
    for _ in range(3):
        server.run(looking(model="other"))
        server.run(looking())
    opened = server.get("/pretend_card")["requests"]["misses"] - before
    assert opened == (1 if "--cache-lru" in mode.options else 6)
