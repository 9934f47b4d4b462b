"""Qwen-VL From CLIP on text encoders of ComfyUI's own classes, in its own Python and in a graph."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graphs
import pytest
import real
from pages import LIVE, Page, ends

pytestmark = pytest.mark.comfyui

SMALL = Path(__file__).resolve().parent / "small_encoders"


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What ``small_encoders/trial.py`` printed."""
    if not os.environ.get("COMFYUI"):
        pytest.skip("COMFYUI names no ComfyUI checkout")
    checkout = Path(os.environ["COMFYUI"]).resolve()
    pack = tmp_path_factory.mktemp("pack")
    (pack / "qwen_vl_suite").symlink_to(real.ROOT)
    done = subprocess.run(
        [real.python(checkout), str(SMALL / "trial.py"), "--cpu"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (checkout, pack, SMALL)))},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def need_qwen3vl() -> None:
    checkout = os.environ.get("COMFYUI")
    if checkout and not (Path(checkout) / "comfy/text_encoders/qwen3vl.py").is_file():
        pytest.skip("this ComfyUI has no Qwen3-VL")


def test_the_text_is_that_of_transformers_for_the_same_weights(trial: dict[str, Any]) -> None:
    need_qwen3vl()
    assert len(trial["answers"]) == 6
    for answer in trial["answers"]:
        assert answer["text"] == answer["official"] and answer["finish"] == "length"
        assert answer["sizes"] == answer["official_sizes"]
        assert answer["prompt_tokens"] == answer["official_tokens"]


@pytest.mark.parametrize(
    ("encoder", "reason"),
    [
        ("4b", ""),
        ("8b", ""),
        ("krea2", ""),
        ("ideogram4", ""),
        ("32b", "is cut to its first"),
        ("flux2", "vision tower"),
        ("qwen_image", "its head"),
        ("headless", "lacks its head"),
        ("qwen35", "M-RoPE"),
        ("joyimage", "M-RoPE"),
        ("sd", "none of Qwen's"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_reason(
    trial: dict[str, Any], encoder: str, reason: str
) -> None:
    if encoder not in trial["refused"]:
        need_qwen3vl()
    found = trial["refused"][encoder]
    assert reason in found and bool(found) == bool(reason)


def test_comfyui_moves_the_weights(trial: dict[str, Any]) -> None:
    need_qwen3vl()
    assert trial["places"][1:] == ["device", "ram", "device", "ram"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Server]:
    """One whose Load CLIP gives small encoders (see ``small_encoders``)."""
    need_qwen3vl()
    base = tmp_path_factory.mktemp("clip")
    encoders = base / "models" / "text_encoders"
    encoders.mkdir(parents=True)
    for name in ("nano", "random"):
        (encoders / f"{name}.safetensors").touch()
    env = {"NANO_CHECKPOINT": str(real.ROOT / "nano/checkpoint")}
    with real.started(base, extensions=[SMALL], env=env) as running:
        yield running


PICTURE = {"class_type": "QVL_ExamplePicture", "inputs": {"picture": "both"}}


def encoder(name: str, **widgets: Any) -> dict[str, Any]:
    clip = {"clip_name": f"{name}.safetensors", "type": "ideogram4"}
    return {
        "clip": {"class_type": "CLIPLoader", "inputs": clip},
        "model": {"class_type": "QVL_FromCLIP", "inputs": {"clip": ["clip", 0], **widgets}},
    }


def test_the_encoder_answers_as_the_same_model_from_the_loader(server: real.Server) -> None:
    """Texts and boxes, picture by picture; the pictures in the sizes that the model knows."""
    bounds = {"min_pixels": 40_960, "max_pixels": 50_176}
    asked = {"describe": graphs.describe(), "find": graphs.find("yellow circle, orange square")}
    asked |= {"read": graphs.read()}
    outputs = []
    for model in ({"model": graphs.loader(optimize="off", **bounds)}, encoder("nano", **bounds)):
        outputs.append(server.run({"picture": PICTURE, **model, **asked}))
    for node in asked:
        official, own = (found[node]["qwen_vl"] for found in outputs)
        assert [entry["text"] for entry in own] == [entry["text"] for entry in official]
        assert [entry.get("boxes") for entry in own] == [entry.get("boxes") for entry in official]
    boxes = outputs[1]["find"]["qwen_vl"][0]["boxes"]
    assert {box["label"] for box in boxes} == {"yellow circle", "orange square"}


def test_its_words_are_shown_as_they_are_written_and_stop_ends_them(server: real.Server) -> None:
    endless = {"describe": graphs.describe(max_new_tokens=20_000)}
    with Page(server) as page:
        asked = page.start({"picture": PICTURE, **encoder("random"), **endless})
        words = page.wait(lambda m: m.kind == LIVE and m.data.get("index", -1) >= 0)
        assert words.data["prompt_id"] == asked
        server.post("/interrupt", {})
        assert page.wait(ends(asked)).kind == "execution_interrupted"
    # Nothing is left of it in the encoder.
    short = {"describe": graphs.describe(max_new_tokens=3)}
    outputs = server.run({"picture": PICTURE, **encoder("random"), **short})
    assert "cut at 3 tokens" in json.dumps(outputs["describe"]["qwen_vl"])
