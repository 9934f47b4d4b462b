"""Boxes over servers that resize pictures: right within a pixel, or refused by name."""

from __future__ import annotations

import pytest
import torch
from fake_server import serving
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend
from qwen_vl_suite.qwenvl.constraints import from_keys
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.servers.kinds import PictureLimits, kind
from qwen_vl_suite.qwenvl.tasks.extract import extract
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import ServerSpec
from seeing_server import RED, Seeing

MODELS = {"qwen2_5_vl": "Qwen2.5-VL-7B-Instruct", "qwen3_vl": "Qwen3-VL-8B-Instruct"}
LMSTUDIO_500 = PictureLimits(8, 4096, longest_side=500, rounding="half_up")
LESS = PictureLimits(most_pixels=500_000)


def scene(height, width, box):
    x1, y1, x2, y2 = box
    picture = torch.full((3, height, width), 240, dtype=torch.uint8)
    picture[:, y1:y2, x1:x2] = torch.tensor(RED, dtype=torch.uint8)[:, None, None]
    return picture


SCENES = [((700, 1000), (217, 140, 583, 413)), ((800, 510), (101, 600, 309, 701))]


def found(seeing, model, pictures, name, **options):
    """Results for ``pictures``, and how many chats there were."""
    with serving(seeing) as server:
        spec = ServerSpec((server.url,), MODELS[model], kind=name)
        backend = OpenAIServerBackend(spec)
        try:
            return run.answer(backend, ground("red"), pictures, **options), len(server.chats)
        finally:
            backend.close()


def off(result, box):
    """By how many pixels the one box of ``result`` is wrong."""
    (got,) = result.boxes
    corners = got.x1, got.y1, got.x2, got.y2
    return max(abs(one - other) for one, other in zip(corners, box, strict=True))


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("vllm", "qwen3_vl"),
        ("llama.cpp", "qwen2_5_vl"),
        ("ollama", "qwen2_5_vl"),
        ("lmstudio", "qwen2_5_vl"),
    ],
)
def test_boxes_are_right_over_every_kind_of_server(name, model):
    seeing = Seeing(FAMILIES[model], kind(name).pictures, marks=7 if name == "ollama" else 2)
    pictures = [scene(*size, box) for size, box in SCENES]
    results, chats = found(seeing, model, pictures, name)
    for result, (_, box) in zip(results, SCENES, strict=True):
        assert off(result, box) <= 1.5 and not result.notes
    # Two questions about the model, and one about the words, where boxes are in pixels.
    assert chats == 2 + (3 if model == "qwen2_5_vl" else 0)


@pytest.mark.parametrize("limits", [LMSTUDIO_500, LESS], ids=["longest 500", "fewer pixels"])
@pytest.mark.parametrize("model", MODELS)
def test_boxes_are_right_where_a_server_resizes_against_expectation(limits, model):
    seeing = Seeing(FAMILIES[model], limits)
    (size, box), _ = SCENES
    (result,), _ = found(seeing, model, [scene(*size, box)], "vllm")
    # A pixel of what the model saw is worth two of the picture.
    scale = size[1] / seeing.seen[0][1]
    assert off(result, box) <= 1 + scale
    if model == "qwen2_5_vl":
        (note,) = result.notes
        assert f"in {seeing.seen[0][1]}x{seeing.seen[0][0]} pixels instead of" in note


def test_without_the_proof_boxes_would_have_been_wrong():
    """The test above has teeth: a server that reports no tokens cannot be seen through."""
    seeing = Seeing(FAMILIES["qwen2_5_vl"], LMSTUDIO_500, counts=False)
    (size, box), _ = SCENES
    (result,), chats = found(seeing, "qwen2_5_vl", [scene(*size, box)], "vllm")
    assert off(result, box) > 50
    (note,) = result.notes
    assert "is not known" in note and chats == 3


def test_a_form_that_a_server_refuses_is_let_go_and_told_of():
    seeing = Seeing(FAMILIES["qwen3_vl"], kind("vllm").pictures, refuses=("response_format",))
    with serving(seeing) as server:
        spec = ServerSpec((server.url,), MODELS["qwen3_vl"], kind="vllm")
        backend = OpenAIServerBackend(spec)
        task = extract(from_keys(["title"]))
        (result,) = run.answer(backend, task, [scene(90, 90, (1, 1, 9, 9))], keep_unreadable=True)
        backend.close()
    assert "response_format" in server.chats[0].body
    assert "response_format" not in server.chats[-1].body
    assert any("which the server refused" in note for note in result.notes)
    assert any("this form is not known" in note for note in result.notes)


def test_the_kind_is_found_out_and_what_is_sent_is_of_it():
    seeing = Seeing(FAMILIES["qwen3_vl"], kind("ollama").pictures)
    with serving(seeing, owner="library") as server:
        backend = OpenAIServerBackend(ServerSpec((server.url,), "qwen3-vl:8b"))
        run.answer(backend, ground("red"), [scene(90, 90, (10, 10, 50, 50))])
        backend.close()
    assert backend.kind.name == "ollama"
    assert "top_k" not in server.chats[0].body  # which it would not read
    assert [height * width for height, width in seeing.seen] == [1024 * 32**2]
