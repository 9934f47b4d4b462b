"""Lists, masks and metadata in a real ComfyUI: what core's nodes send, and what they get."""

from __future__ import annotations

import json
from typing import Any

import pytest
import real
from graphs import describe, find, load, loader, preview, save
from pages import LIVE, Page, ends
from PIL import Image

pytestmark = pytest.mark.comfyui
NAMES = ["both.png", "shapes.png"]


@pytest.fixture(scope="module")
def small(server: Any) -> str:
    """A picture of another size than the shipped ones."""
    with Image.open(real.PICTURES / "shapes.png") as picture:
        picture.resize((384, 256)).save(server.base / "input" / "small.png")
    return "small.png"


def text(words: str) -> dict[str, Any]:
    return {"class_type": "PrimitiveString", "inputs": {"value": words}}


def create_list(*names: str) -> dict[str, Any]:
    inputs = {f"inputs.input{n}": [name, 0] for n, name in enumerate(names)}
    return {"class_type": "CreateList", "inputs": inputs}


def shown(outputs: dict[str, Any], node: str) -> list[str]:
    return [entry["text"] for entry in outputs[node]["qwen_vl"]]


def test_pictures_of_a_list_get_the_answers_they_get_alone(server: Any, small: str) -> None:
    graph = {
        "model": loader(),
        "describe": describe(),
        "find": find("orange triangle, blue cross"),
    }
    single = [server.run({**graph, "picture": load(name)}) for name in ("both.png", small)]
    lists = server.run(
        {
            **graph,
            "first": load("both.png"),
            "second": load(small),
            "picture": create_list("first", "second"),
            "show": preview("describe", 0),
            "drawn": save("find", 2),
            "white": {"class_type": "MaskToImage", "inputs": {"mask": ["find", 4]}},
            "masks": save("white", 0),
        }
    )
    for node in ("describe", "find"):
        assert shown(lists, node) == [shown(outputs, node)[0] for outputs in single]
    assert lists["show"]["text"] == shown(lists, "describe")
    assert len(lists["drawn"]["images"]) == len(lists["masks"]["images"]) == 2
    assert [entry["size"] for entry in lists["find"]["qwen_vl"]] == [[512, 768], [256, 384]]


def test_question_by_question_picture_by_picture(server: Any) -> None:
    questions = ["Is there a triangle?", "What does it say?"]
    outputs = server.run(
        {
            "model": loader(),
            **{f"question {n}": text(words) for n, words in enumerate(questions)},
            "questions": create_list("question 0", "question 1"),
            **{f"picture {n}": load(name) for n, name in enumerate(NAMES)},
            "picture": create_list("picture 0", "picture 1"),
            "describe": describe(prompt=["questions", 0]),
        }
    )
    alone = [
        server.run({"model": loader(), "picture": load(name), "describe": describe(prompt=words)})
        for words, name in zip(questions, NAMES, strict=True)
    ]
    assert shown(outputs, "describe") == [shown(one, "describe")[0] for one in alone]


def test_what_is_transparent_is_not_described(server: Any) -> None:
    with Image.open(real.PICTURES / "shapes.png") as picture:
        picture = picture.convert("RGBA")
    picture.putalpha(0)
    picture.save(server.base / "input" / "hidden.png")
    picture.convert("L").point(lambda _: 255).convert("RGB").save(
        server.base / "input" / "white.png"
    )
    graph = {"picture": load("hidden.png"), "model": loader(), "describe": describe()}
    (seen,) = shown(server.run(graph), "describe")
    graph["describe"] = describe(mask=["picture", 1])
    (masked,) = shown(server.run(graph), "describe")
    (white,) = shown(
        server.run({"picture": load("white.png"), "model": loader(), "describe": describe()}),
        "describe",
    )
    assert "triangle" in seen and masked == white != seen


def test_labels_reach_cores_own_boxes(server: Any) -> None:
    if "CreateBoundingBoxes" not in server.get("/object_info"):
        pytest.skip("this ComfyUI has no node that shows boxes with their labels")
    boxes = {"width": 768, "height": 512, "editor_state": {"__value__": []}, "bboxes": ["find", 1]}
    outputs = server.run(
        {
            "picture": load("shapes.png"),
            "model": loader(),
            "find": find("orange triangle, blue cross"),
            "boxes": {"class_type": "CreateBoundingBoxes", "inputs": boxes},
            "elements": preview("boxes", 2),
        }
    )
    elements = json.loads(outputs["elements"]["text"][0])
    assert [element["desc"] for element in elements] == ["orange triangle", "blue cross"]


def test_elements_go_into_cores_own_boxes(server: Any) -> None:
    if "CreateBoundingBoxes" not in server.get("/object_info"):
        pytest.skip("this ComfyUI has no node that reads elements")
    boxes = {"width": 768, "height": 512, "editor_state": {"__value__": []}, "bboxes": ["find", 7]}
    outputs = server.run(
        {
            "picture": load("shapes.png"),
            "model": loader(),
            "find": find("orange triangle\nblue cross"),
            "boxes": {"class_type": "CreateBoundingBoxes", "inputs": boxes},
            "elements": preview("boxes", 2),
            "ours": preview("find", 7),
            "counts": preview("find", 6),
        }
    )
    elements, ours = (json.loads(outputs[node]["text"][0]) for node in ("elements", "ours"))
    assert [element["desc"] for element in elements] == ["orange triangle", "blue cross"]
    for element, own in zip(elements, ours, strict=True):
        assert element["type"] == own["type"]
        assert element["bbox"] == pytest.approx(own["bbox"], abs=2)  # it goes by whole pixels
    assert json.loads(outputs["counts"]["text"][0]) == {"orange triangle": 1, "blue cross": 1}


def test_grounding_looks_inside_what_other_nodes_give(server: Any) -> None:
    outputs = server.run(
        {
            "picture": load("shapes.png"),
            "model": loader(),
            "first": find("orange triangle"),
            "boxes": find("orange triangle, blue cross", inside=["first", 1]),
            "mask": find("orange triangle, blue cross", inside=["first", 4]),
            "again": find("orange triangle, blue cross", look_again=True),
        }
    )
    labels = {
        node: [box["label"] for box in outputs[node]["qwen_vl"][0]["boxes"]]
        for node in ("boxes", "mask", "again")
    }
    assert labels["boxes"] == labels["mask"]
    assert "orange triangle" in labels["boxes"] and "blue cross" not in labels["boxes"]
    assert labels["again"] == ["orange triangle", "blue cross"]


def test_a_model_handle_prints_as_its_name(server: Any) -> None:
    outputs = server.run({"model": loader(), "show": preview("model", 0)})
    assert outputs["show"]["text"] == ["nano"]


def test_an_unreadable_reply_leaves_the_others_to_see(server: Any) -> None:
    prompt = {
        "picture": load("shapes.png"),
        "model": loader(),
        "plenty": {"class_type": "PrimitiveInt", "inputs": {"value": 0}},
        "scarce": {"class_type": "PrimitiveInt", "inputs": {"value": 1}},
        "limits": create_list("plenty", "scarce"),
        "find": find("orange triangle", max_new_tokens=["limits", 0]),
    }
    with Page(server) as page:
        prompt_id = page.start(prompt)
        error = page.wait(ends(prompt_id)).data
        assert "picture 2 of 2" in error["exception_message"]
        assert "set when_unreadable to keep going" in error["exception_message"]
        (told,) = (item.data for item in page.heard(LIVE, prompt_id) if "results" in item.data)
    first, second = told["results"]
    assert first["boxes"] and not first["error"]
    assert second["error"] and "raise max_new_tokens" in second["notes"][0]
