"""A model that is chosen before it is here: downloaded in a real ComfyUI, from a hub of ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from graphs import describe, load, loader, preview
from hub import Hub
from pages import LIVE, Message, Page, ends

pytestmark = pytest.mark.comfyui
REPO = "Qwen/Qwen3-VL-2B-Instruct"
WEIGHTS = "model.safetensors"


@pytest.fixture
def offered(hub: Hub, tmp_path: Path) -> Iterator[dict[str, bytes]]:
    """A checkpoint of 8 MB under the name of one in the catalogue; by file."""
    wide = {"hidden_size": 256, "intermediate_size": 1024}
    shape = tiny.CONFIGS["qwen3_vl"]
    vision = {**shape["vision_config"], "out_hidden_size": 256}
    config = {"text_config": {**shape["text_config"], **wide}, "vision_config": vision}
    folder = tiny.make("qwen3_vl", tmp_path / "made", config=config)
    hub.repos[REPO] = {file.name: file.read_bytes() for file in folder.iterdir()}
    yield hub.repos[REPO]
    del hub.repos[REPO]
    hub.pace = 0


def beyond(share: float, prompt_id: str) -> Callable[[Message], bool]:
    """For ``Page.wait``: the Loader has more than ``share`` of what it downloads."""

    def wanted(message: Message) -> bool:
        mine = message.kind == "progress" and message.data["prompt_id"] == prompt_id
        return mine and message.data["value"] > share * message.data["max"]

    return wanted


def test_a_stopped_download_keeps_what_came_and_the_next_run_completes_it(
    server: Any, hub: Hub, offered: dict[str, bytes]
) -> None:
    graph = {
        "picture": load("shapes.png"),
        "model": loader(model=f"{REPO} (download, 4.3 GB)"),
        "describe": describe(max_new_tokens=8),
        "show": preview("describe", 0),
    }
    folder = server.base / "models" / "LLM" / "Qwen-VL" / REPO.split("/")[1]
    with Page(server) as page:
        hub.pace = 0.05
        stopped = page.start(graph)
        page.wait(beyond(0.4, stopped))
        server.post("/interrupt", {})
        assert page.wait(ends(stopped)).kind == "execution_interrupted"
        assert server.ends(stopped)["execution_interrupted"]["node_id"] == "model"
        told = [message.data for message in page.heard(LIVE, stopped)]
        assert {item["node"] for item in told} == {"model"}
        assert all(item["status"].startswith(f"Downloading {REPO}: 0.0") for item in told)
        assert len(told) > 3
        came = (folder / f"{WEIGHTS}.part").stat().st_size
        assert 0 < came < len(offered[WEIGHTS])
        assert not (folder / WEIGHTS).exists()

        hub.pace = 0
        hub.requested.clear()
        outputs = server.finished(page.run(graph))["outputs"]
    assert [(name, where) for name, where, _ in hub.requested] == [(WEIGHTS, f"bytes={came}-")]
    assert {name: (folder / name).read_bytes() for name in offered} == offered
    assert outputs["show"]["text"][0]
