"""Choosing among boxes in a real ComfyUI: what a choice changes, and what it does not run again."""

from __future__ import annotations

import json
import urllib.parse
import urllib.request
from io import BytesIO
from typing import Any

import pytest
from graphs import batch, find, load, loader, preview, repeat, save
from PIL import Image

pytestmark = pytest.mark.comfyui


def pick(**widgets: Any) -> dict[str, Any]:
    links = {"bboxes": ["find", 1], "images": ["picture", 0]}
    values = {"labels": "", "order": "as found", "max_count": 0, "index": 0, "padding": 0}
    return {"class_type": "QVL_PickBoxes", "inputs": {**links, **values, **widgets}}


def graph(picture: str = "shapes.png", **widgets: Any) -> dict[str, Any]:
    return {
        "picture": load(picture),
        "model": loader(),
        "find": find("orange triangle, blue cross"),
        "pick": pick(**widgets),
        "crop": {
            "class_type": "ImageCropV2",
            "inputs": {"image": ["picture", 0], "crop_region": ["pick", 1]},
        },
        "save crop": save("crop", 0),
        "show labels": preview("pick", 3),
    }


def view(server: Any, item: dict[str, str]) -> Image.Image:
    address = f"{server.url}/view?{urllib.parse.urlencode(item)}"
    with urllib.request.urlopen(address, timeout=60) as response:
        return Image.open(BytesIO(response.read())).convert("RGB")


def off(*boxes: dict[str, Any], picture: int = 0) -> str:
    """As the page writes it, from the boxes that it was sent."""
    return json.dumps(
        [
            {
                "picture": picture,
                "x": box["x1"],
                "y": box["y1"],
                "width": box["x2"] - box["x1"],
                "height": box["y2"] - box["y1"],
                "label": box["label"],
            }
            for box in boxes
        ]
    )


def test_a_box_that_is_switched_off_leaves_the_crop_to_the_next_and_no_model_runs(
    server: Any,
) -> None:
    before = server.run(graph())
    (entry,) = before["find"]["qwen_vl"]
    triangle, cross = entry["boxes"]
    assert before["show labels"]["text"] == ["orange triangle, blue cross"]
    ended = server.finished(server.start(graph(off=off(triangle))))
    messages = dict(ended["status"]["messages"])
    assert set(messages["execution_cached"]["nodes"]) == {"picture", "model", "find"}
    after = ended["outputs"]
    assert after["show labels"]["text"] == ["blue cross"]
    for outputs, box in ((before, triangle), (after, cross)):
        (crop,) = (view(server, item) for item in outputs["save crop"]["images"])
        assert crop.size == (box["x2"] - box["x1"], box["y2"] - box["y1"])
    # What was not run again is shown again all the same, for a page that was opened since.
    assert after["find"] == before["find"]


def test_the_page_gets_the_picture_that_the_boxes_lie_in(server: Any) -> None:
    outputs = server.run(graph())
    source = Image.open(server.base / "input" / "shapes.png").convert("RGB")
    copies = []
    for name in ("find", "pick"):
        (entry,) = outputs[name]["qwen_vl"]
        assert entry["size"] == [source.height, source.width]
        assert entry["picture"]["type"] == "temp"
        copies.append(entry["picture"])
        shown = view(server, entry["picture"])
        assert shown.size == source.size
        difference = [abs(a - b) for a, b in zip(shown.tobytes(), source.tobytes(), strict=True)]
        assert sum(difference) / len(difference) < 4  # a JPEG of it, and of nothing else
    assert copies[0] == copies[1]


def test_without_a_box_the_crop_stops_and_the_rest_goes_on(server: Any) -> None:
    """The run itself succeeds: only what would take the missing box does not happen."""
    outputs = server.run(graph(labels="no such label"))
    assert outputs["show labels"]["text"] == [""]
    assert "save crop" not in outputs
    whole = server.run(graph(labels="no such label", when_empty="whole picture"))
    (crop,) = (view(server, item) for item in whole["save crop"]["images"])
    assert crop.size == (768, 512)


def test_each_picture_of_a_batch_meets_its_own_box(server: Any) -> None:
    prompt = graph()
    prompt["picture"] = {
        "class_type": "ImageBatch",
        "inputs": {"image1": ["first", 0], "image2": ["second", 0]},
    }
    prompt |= {
        "first": load("shapes.png"),
        "second": load("both.png"),
        "singly": {
            "class_type": "RebatchImages",
            "inputs": {"images": ["picture", 0], "batch_size": 1},
        },
    }
    prompt["crop"]["inputs"]["image"] = ["singly", 0]
    prompt["pick"] = pick(when_empty="whole picture", order="largest first")
    outputs = server.run(prompt)
    crops = [view(server, item) for item in outputs["save crop"]["images"]]
    for crop, entry in zip(crops, outputs["find"]["qwen_vl"], strict=True):
        height, width = entry["size"]
        sizes = [(box["x2"] - box["x1"], box["y2"] - box["y1"]) for box in entry["boxes"]]
        assert crop.size == max(sizes, key=lambda size: size[0] * size[1], default=(width, height))


def eight() -> dict[str, Any]:
    """A batch of eight pictures of one size, with other shapes at other places in every second."""
    return {
        "one": load("shapes.png"),
        "two": load("both.png"),
        "pair": batch("one", "two"),
        "picture": repeat("pair", 4),
    }


def test_a_batch_gives_one_crop_a_box(server: Any) -> None:
    prompt = graph() | eight()
    del prompt["crop"]
    prompt["save crop"] = save("pick", 5)
    prompt["show labels"] = preview("pick", 6)
    outputs = server.run(prompt)
    boxes = [box for entry in outputs["find"]["qwen_vl"] for box in entry["boxes"]]
    assert len(boxes) >= 8
    crops = [view(server, item) for item in outputs["save crop"]["images"]]
    assert [crop.size for crop in crops] == [
        (box["x2"] - box["x1"], box["y2"] - box["y1"]) for box in boxes
    ]
    assert outputs["show labels"]["text"] == [box["label"] for box in boxes]


@pytest.mark.parametrize(
    "between",
    [
        pytest.param({}, id="the batch itself"),
        pytest.param(
            {"class_type": "ImageInvert", "inputs": {"image": ["picture", 0]}}, id="made of it"
        ),
        pytest.param(["find", 2], id="drawn on"),
    ],
)
def test_one_box_a_picture_never_meets_the_whole_batch(server: Any, between: Any) -> None:
    prompt = graph(when_empty="whole picture") | eight()
    if isinstance(between, list):
        prompt["crop"]["inputs"]["image"] = between
    elif between:
        prompt["between"] = between
        prompt["crop"]["inputs"]["image"] = ["between", 0]
    error = server.ends(server.start(prompt))["execution_error"]
    assert error["node_id"] == "crop"
    assert "the output crops" in error["exception_message"]


def test_in_a_list_of_pictures_a_choice_holds_for_its_own_picture(server: Any) -> None:
    """The page counts the pictures of all items of a list."""
    prompt = graph()
    prompt["picture"] = {
        "class_type": "RebatchImages",
        "inputs": {"images": ["two", 0], "batch_size": 1},
    }
    prompt |= {
        "one": load("shapes.png"),
        "two": {"class_type": "RepeatImageBatch", "inputs": {"image": ["one", 0], "amount": 2}},
    }
    first, second = server.run(prompt)["find"]["qwen_vl"]
    assert first["boxes"] == second["boxes"]
    prompt["pick"] = pick(off=off(second["boxes"][0], picture=1))
    outputs = server.run(prompt)
    assert outputs["show labels"]["text"] == ["orange triangle, blue cross", "blue cross"]
