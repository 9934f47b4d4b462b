"""Models behind servers in a real ComfyUI: the example runs, and a key shows nowhere."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
from asked import KEY, files_with, give_key
from fake_server import FakeServer, serving
from saved import WORKFLOWS, api_form, read

pytestmark = pytest.mark.comfyui
BOX = '```json\n[{"bbox_2d": [765, 705, 920, 940], "label": "yellow circle"}]\n```'
LINE = '```json\n[{"bbox_2d": [95, 370, 570, 510], "text_content": "SNAKE"}]\n```'


def script(body: dict[str, Any], number: int) -> str:
    text = json.dumps(body["messages"])
    if "Locate" in text:
        return BOX
    return LINE if "potting" in text else "A blue triangle."


@pytest.fixture
def model() -> Iterator[FakeServer]:
    with serving(script, models=("Qwen3-VL-8B-Instruct",)) as running:
        yield running


def example(model: FakeServer) -> dict[str, Any]:
    (path,) = (path for path in WORKFLOWS if path.stem == "One server for three tasks")
    prompt = api_form(read(path))
    for node in prompt.values():
        if node["class_type"] == "QVL_Server":
            node["inputs"]["servers"] = model.url
    return prompt


def test_one_server_answers_three_nodes_and_its_key_shows_nowhere(
    server: Any, model: FakeServer
) -> None:
    keys = give_key(server.base, model)
    prompt = example(model)
    (picture,) = (n for n, node in prompt.items() if node["class_type"] == "QVL_ExamplePicture")
    save = {"images": [picture, 0], "filename_prefix": "with_key"}
    prompt["100"] = {"class_type": "SaveImage", "inputs": save}
    outputs = server.run(prompt)
    said = json.dumps(outputs)
    for words in ("A blue triangle.", "SNAKE", "yellow circle"):
        assert words in said
    assert {asked.headers.get("Authorization") for asked in model.chats} == {f"Bearer {KEY}"}
    saved = [path for path in (server.base / "output").glob("with_key*.png")]
    assert model.url.encode() in saved[0].read_bytes()  # the workflow is in it
    assert KEY not in json.dumps(server.get("/history"))
    assert files_with(server.base, KEY.encode()) == [keys]


def test_comfyui_hands_out_no_keys(server: Any) -> None:
    folder = server.base / "user" / "__qwen_vl"
    folder.mkdir(exist_ok=True)
    (folder / "keys.yaml").write_text(f"127.0.0.1: {KEY}\n")
    for path in ("..%2F__qwen_vl%2Fkeys.yaml", "__qwen_vl%2Fkeys.yaml", "keys.yaml"):
        for user in ("default", "__qwen_vl", "../__qwen_vl"):
            request = urllib.request.Request(f"{server.url}/userdata/{path}")
            request.add_header("comfy-user", user)
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=30)
            assert refused.value.code in (400, 403, 404, 500)
