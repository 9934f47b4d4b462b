"""The example workflows in a real ComfyUI."""

from __future__ import annotations

import re
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from saved import WORKFLOWS, api_form, read

pytestmark = pytest.mark.comfyui
# What the bundled model must have said, in order, where an example runs without other models.
SAID = {
    "Caption a folder": ["5 captioned, 0 skipped, 0 failed"],
    "Choose among boxes and cut them out": ["pink star", "red circle"],
    "Compare two prompts on one picture": ["purple star", "green circle", "OPEN", "Yes."],
    "Describe a picture": ["blue triangle", "orange square", "yellow circle", "SNAKE"],
    "Extract facts as JSON": ['{"word": "OPEN"}'],
    "Find the picture that fits": ["0.0", "0.0", "★"],
    "Find things in a picture": ["orange triangle", "blue cross"],
    "Follow a thing in a video": ['"time": 3.5', "seen", '"time": 4.0', "missing"],
    "Look, read and find with one model": ["blue triangle", "SNAKE", "yellow circle"],
    "Read a PDF page by page": [
        "HOTEL",
        "KEY",
        "417",
        "TODAY",
        "LUNCH",
        "724",
        "GARDEN",
        "PLAN",
        "35",
    ],
    "Read the text in a picture": ["COLD", "670267", "BREAD"],
    "Save the text of pages to files": ["SUMMER", "MARKET", "2026", "COLD", "670267", "BREAD"],
    "Talk about a picture": ["SNAKE", "blue triangle", "orange square", "yellow circle", "SNAKE"],
    "Write the layout of a picture": ['"palette": ["#FAF5E4", "#1EA03C", "#7D28A5", "#141E6E"]'],
}


def by_type(prompt: dict[str, Any], class_type: str) -> list[str]:
    return [place for place, node in prompt.items() if node["class_type"] == class_type]


def said(outputs: dict[str, Any]) -> str:
    """Every text that our nodes show."""
    places = sorted(outputs, key=int)
    return "\n".join(
        entry["text"] + " " + " ".join(box["label"] for box in entry.get("boxes", []))
        for place in places
        for entry in outputs[place].get("qwen_vl", [])
        if "text" in entry
    )


def in_order(words: list[str], text: str) -> bool:
    return re.search(".*".join(map(re.escape, words)), text, re.DOTALL) is not None


# Those that ask a server are run in test_servers, where there is one.
HERE = [path for path in WORKFLOWS if path.stem != "One server for three tasks"]


@pytest.mark.parametrize("path", HERE, ids=lambda path: path.stem)
def test_an_example_runs_or_lacks_a_file_of_the_users_only(server: Any, path: Path) -> None:
    prompt = api_form(read(path))
    files = {
        "CheckpointLoaderSimple": "ckpt_name",
        "CLIPLoader": "clip_name",
        "LoadAudio": "audio",
        "QVL_GGUF": "model",
    }
    lacking = {place: name for kind, name in files.items() for place in by_type(prompt, kind)}
    if not lacking:
        outputs = server.run(prompt)
        text = said(outputs)
        assert in_order(SAID[path.stem], text), text
        for place in by_type(prompt, "QVL_Grounding"):
            labels = [box["label"] for box in outputs[place]["qwen_vl"][0]["boxes"]]
            assert sorted(labels) == sorted(prompt[place]["inputs"]["find"].split(", "))
        return
    answer = server.post("/prompt", {"prompt": prompt, "client_id": "test"})
    errors = answer["node_errors"]
    assert set(errors) == set(lacking)
    for place, name in lacking.items():
        error = errors[place]["errors"][0]  # one for each input that was looked at
        assert error["extra_info"]["input_name"] == name
        assert error["type"] in ("value_not_in_list", "custom_validation_failed")


def test_each_page_gets_its_own_text_file(server: Any) -> None:
    (path,) = (path for path in WORKFLOWS if path.stem == "Save the text of pages to files")
    prompt = api_form(read(path))
    outputs = server.run(prompt)
    (shown,) = by_type(prompt, "QVL_OCR")
    texts = [entry["text"] for entry in outputs[shown]["qwen_vl"]]
    assert texts == ["SUMMER\nMARKET\n2026", "COLD\n670267\nBREAD"]
    folder = server.base / "output" / "ocr"
    assert [file.read_text("utf-8") for file in sorted(folder.glob("*.txt"))] == texts
    assert len(list(folder.glob("*.png"))) == 2


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_the_templates_browser_gets_its_picture(server: Any, path: Path) -> None:
    name = urllib.parse.quote(f"{path.stem}.jpg")
    address = f"{server.url}/api/workflow_templates/qwen-vl-suite/{name}"
    with urllib.request.urlopen(address, timeout=60) as response:
        assert response.read() == path.with_suffix(".jpg").read_bytes()
