"""The example workflows in a real ComfyUI."""

from __future__ import annotations

import urllib.request
from pathlib import Path
from typing import Any

import pytest
from saved import WORKFLOWS, api_form, read

pytestmark = pytest.mark.comfyui
# Pictures that the bundled model understands, in the place of those in the workflows.
PICTURES = ["shapes.png", "both.png"]


def by_type(prompt: dict[str, Any], class_type: str) -> list[str]:
    return [place for place, node in prompt.items() if node["class_type"] == class_type]


def opened(path: Path) -> dict[str, Any]:
    prompt = api_form(read(path))
    for place, name in zip(by_type(prompt, "LoadImage"), PICTURES, strict=False):
        prompt[place]["inputs"]["image"] = name
    return prompt


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_an_example_runs_or_lacks_a_checkpoint_only(server: Any, path: Path) -> None:
    prompt = opened(path)
    checkpoints = by_type(prompt, "CheckpointLoaderSimple")
    if not checkpoints:
        assert server.run(prompt)
        return
    answer = server.post("/prompt", {"prompt": prompt, "client_id": "test"})
    errors = answer["node_errors"]
    assert set(errors) == set(checkpoints)
    for place in checkpoints:
        (error,) = errors[place]["errors"]
        assert error["extra_info"]["input_name"] == "ckpt_name"
        assert error["type"] == "value_not_in_list"


def test_each_page_gets_its_own_text_file(server: Any) -> None:
    (path,) = (path for path in WORKFLOWS if path.stem == "ocr_to_text_file")
    prompt = opened(path)
    first, second = by_type(prompt, "LoadImage")
    # Of two sizes, which a batch cannot hold.
    prompt[first]["inputs"]["image"], prompt[second]["inputs"]["image"] = "words.png", "both.png"
    outputs = server.run(prompt)
    (shown,) = by_type(prompt, "PreviewAny")
    texts = outputs[shown]["text"]
    assert len(texts[0].splitlines()) == 3 and texts[1] == "SNAKE"
    folder = server.base / "output" / "ocr"
    assert [file.read_text("utf-8") for file in sorted(folder.glob("*.txt"))] == texts
    assert len(list(folder.glob("*.png"))) == 2


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_templates_browser_gets_its_picture(server: Any, path: Path) -> None:
    address = f"{server.url}/api/workflow_templates/qwen-vl-suite/{path.stem}.jpg"
    with urllib.request.urlopen(address, timeout=60) as response:
        assert response.read() == path.with_suffix(".jpg").read_bytes()
