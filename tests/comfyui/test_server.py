"""The pack in a real ComfyUI: workflows sent by HTTP, outputs as core nodes show and save them."""

from __future__ import annotations

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from graphs import describe, find, load, loader, preview, read, save
from PIL import Image
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.local import load as load_model
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.media import draw, images
from qwen_vl_suite.qwenvl.tasks.describe import describe as ask_to_describe
from qwen_vl_suite.qwenvl.tasks.ground import ground as ask_to_find
from qwen_vl_suite.qwenvl.tasks.ocr import ocr as ask_to_read
from qwen_vl_suite.qwenvl.types import LocalSpec, Result, Sampling, Task
from saved import WORKFLOWS

pytestmark = pytest.mark.comfyui
CORE_SCHEMA = Path(__file__).resolve().parents[1] / "golden" / "core_nodes.json"
NODES = [
    "QVL_Loader",
    "QVL_LoRA",
    "QVL_FromCLIP",
    "QVL_Server",
    "QVL_GGUF",
    "QVL_Describe",
    "QVL_Chat",
    "QVL_OCR",
    "QVL_Grounding",
    "QVL_Extract",
    "QVL_Layout",
    "QVL_Score",
    "QVL_Video",
    "QVL_Listen",
    "QVL_Prompt",
    "QVL_CaptionFolder",
    "QVL_PickBoxes",
    "QVL_BoxFormat",
    "QVL_LoadPDF",
    "QVL_Unload",
    "QVL_ExamplePicture",
]
PICTURES = Path(__file__).resolve().parents[2] / "example_workflows" / "pictures"


def pictures(server: Any, output: dict[str, Any]) -> list[Image.Image]:
    shown = []
    for item in output["images"]:
        query = urllib.parse.urlencode(item)
        with urllib.request.urlopen(f"{server.url}/view?{query}", timeout=60) as response:
            shown.append(Image.open(BytesIO(response.read())).convert("RGB"))
    return shown


@pytest.fixture(scope="module")
def engine() -> Callable[..., Result]:
    """``engine(task, "shapes.png")``: what the bundled model answers without any ComfyUI."""
    backend = load_model(LocalSpec(str(library.BUNDLED), precision="fp32", device="cpu"))

    def ask(task: Task, name: str, max_new_tokens: int) -> Result:
        sampling = Sampling(max_new_tokens=max_new_tokens)
        return run.answer(backend, task, [images.read(PICTURES / name)], sampling=sampling)[0]

    return ask


def test_every_node_is_there_with_its_help(server: Any) -> None:
    info = server.get("/object_info")
    assert [name for name in info if name.startswith("QVL_")] == NODES
    for name in NODES:
        help_page = f"{server.url}/extensions/qwen-vl-suite/docs/{name}.md"
        with urllib.request.urlopen(help_page, timeout=60) as response:
            assert response.read().startswith(b"# Qwen-VL ")


def test_the_templates_are_offered(server: Any) -> None:
    offered = server.get("/api/workflow_templates")["qwen-vl-suite"]
    # By the names of their files, which are what the templates browser calls them.
    assert sorted(offered) == sorted(path.stem for path in WORKFLOWS)


def test_the_server_has_all_that_is_recorded_of_core_nodes(server: Any) -> None:
    """The record holds what every supported ComfyUI has, and an example relies on no more; newer
    ones have further inputs and outputs."""
    recorded = json.loads(CORE_SCHEMA.read_text(encoding="utf-8"))
    info = server.get("/object_info")
    for name, node in recorded.items():
        now = summary(info[name])
        assert node["inputs"].items() <= now["inputs"].items(), name
        assert node["outputs"] == now["outputs"][: len(node["outputs"])], name


def summary(node: dict[str, Any]) -> dict[str, Any]:
    """Names and types only."""
    inputs = {
        name: spec[0] if isinstance(spec[0], str) else "COMBO"
        for group in ("required", "optional")
        for name, spec in node["input"].get(group, {}).items()
    }
    outputs = [list(pair) for pair in zip(node["output_name"], node["output"], strict=True)]
    return {"inputs": inputs, "outputs": outputs}


def test_a_loader_a_picture_and_one_of_our_nodes_are_a_whole_graph(server: Any) -> None:
    graph = {"picture": load("shapes.png"), "model": loader()}
    for name, node in {
        "describe": describe(),
        "read": read(),
        "find": find("orange triangle"),
    }.items():
        before = server.run({**graph, name: node})
        (entry,) = before[name]["qwen_vl"]
        assert "text" in entry
        # Answered from ComfyUI's cache, it is shown again.
        assert server.run({**graph, name: node}) == before


def test_look_read_and_find_through_core_nodes(server: Any, engine: Any) -> None:
    outputs = server.run(
        {
            "picture": load("shapes.png"),
            "page": load("words.png"),
            "model": loader(),
            "describe": describe(),
            "read": read(images=["page", 0]),
            "find": find("orange triangle"),
            "draw": {
                "class_type": "DrawBBoxes",
                "inputs": {"image": ["picture", 0], "bboxes": ["find", 1]},
            },
            "crop": {
                "class_type": "CropByBBoxes",
                "inputs": {
                    "image": ["picture", 0],
                    "bboxes": ["find", 1],
                    "output_width": 128,
                    "output_height": 128,
                    "padding": 0,
                    "keep_aspect": "stretch",
                },
            },
            "mask": {"class_type": "MaskToImage", "inputs": {"mask": ["find", 4]}},
            "show description": preview("describe", 0),
            "show text": preview("read", 0),
            "show found": preview("find", 0),
            "show points": preview("find", 3),
            "save drawn": save("draw", 0),
            "save annotated": save("find", 2),
            "save read": save("read", 2),
            "save crop": save("crop", 0),
            "save mask": save("mask", 0),
        }
    )
    looked = engine(ask_to_describe("detailed"), "shapes.png", 200)
    words = engine(ask_to_read("lines"), "words.png", 4096)
    found = engine(ask_to_find("orange triangle"), "shapes.png", 2048)
    assert outputs["show description"]["text"] == [looked.text]
    assert "triangle" in looked.text
    assert outputs["show text"]["text"] == [words.text]
    assert len(words.text.splitlines()) == 3
    assert outputs["show found"]["text"] == [found.text]
    assert found.boxes
    points = json.loads(outputs["show points"]["text"][0])
    assert len(points) == len(found.boxes) and set(points[0]) == {"x", "y"}
    source = Image.open(server.base / "input" / "shapes.png").convert("RGB")
    for name in ("save drawn", "save annotated", "save mask"):
        (picture,) = pictures(server, outputs[name])
        assert picture.size == source.size
        assert picture.tobytes() != source.tobytes()
    (crop,) = pictures(server, outputs["save crop"])
    assert crop.size == (128, 128)
    (mask,) = pictures(server, outputs["save mask"])
    inside = draw.mask((source.height, source.width), found.boxes)
    assert mask.convert("L").tobytes() == (inside * 255).byte().numpy().tobytes()


def test_a_batch_gives_a_list_in_order(server: Any, engine: Any) -> None:
    batch = {
        "class_type": "ImageBatch",
        "inputs": {"image1": ["first", 0], "image2": ["second", 0]},
    }
    outputs = server.run(
        {
            "first": load("both.png"),
            "second": load("shapes.png"),
            "picture": batch,
            "model": loader(),
            "find": find("blue cross"),
            "describe": describe(),
            "show found": preview("find", 0),
            "show description": preview("describe", 0),
            "draw": {
                "class_type": "DrawBBoxes",
                "inputs": {"image": ["picture", 0], "bboxes": ["find", 1]},
            },
            "save drawn": save("draw", 0),
            "save annotated": save("find", 2),
        }
    )
    # Equal to each picture asked alone, in the order of the batch.
    names, task = ("both.png", "shapes.png"), ask_to_find("blue cross")
    found = [engine(task, name, 2048) for name in names]
    looked = [engine(ask_to_describe("detailed"), name, 200) for name in names]
    assert outputs["show found"]["text"] == [result.text for result in found]
    assert outputs["show description"]["text"] == [result.text for result in looked]
    assert looked[0].text != looked[1].text
    assert len(pictures(server, outputs["save drawn"])) == 2
    assert len(pictures(server, outputs["save annotated"])) == 2


def test_nested_widgets_reach_the_node(server: Any) -> None:
    custom = {
        "sampling": "custom",
        "sampling.temperature": 0.9,
        "sampling.top_p": 0.9,
        "sampling.top_k": 10,
        "sampling.min_p": 0.0,
        "sampling.repetition_penalty": 1.0,
        "sampling.presence_penalty": 0.0,
        "seed": 7,
        "system_prompt": "Be brief.",
        "thinking": "off",
    }
    language = {"language": "other", "language.other_language": "Latin capitals"}
    outputs = server.run(
        {
            "picture": load("words.png"),
            "model": loader(max_pixels=65536, precision="fp32", device="cpu"),
            "describe": describe(**custom),
            "read": read(output="plain", **language),
            "show description": preview("describe", 0),
            "show text": preview("read", 0),
        }
    )
    assert outputs["show description"]["text"][0]
    assert outputs["show text"]["text"][0]


def test_boxes_from_core_go_through_the_converter(server: Any) -> None:
    box = {"x": 10, "y": 20, "width": 30, "height": 40}
    outputs = server.run(
        {
            "picture": load("shapes.png"),
            "box": {"class_type": "PrimitiveBoundingBox", "inputs": box},
            "convert": {
                "class_type": "QVL_BoxFormat",
                "inputs": {"bboxes": ["box", 0], "images": ["picture", 0]},
            },
            "show": preview("convert", 0),
            "show tuples": preview("convert", 2),
        }
    )
    assert json.loads(outputs["show"]["text"][0]) == [[[10, 20, 40, 60]]]
    assert json.loads(outputs["show tuples"]["text"][0]) == [[10, 20, 30, 40]]


def test_a_model_that_is_nowhere_is_refused_before_the_run(server: Any) -> None:
    prompt = {
        "picture": load("shapes.png"),
        "model": loader(model="someone/else-7B"),
        "describe": describe(),
        "show": preview("describe", 0),
    }
    answer = server.post("/prompt", {"prompt": prompt, "client_id": "test"})
    assert "no model 'someone/else-7B'" in json.dumps(answer["node_errors"]["model"])


def test_an_error_names_what_to_do(server: Any) -> None:
    prompt = {
        "picture": load("shapes.png"),
        "model": loader(),
        "find": find("   "),
        "show": preview("find", 0),
    }
    error = server.ends(server.start(prompt))["execution_error"]
    assert error["node_id"] == "find"
    assert error["exception_type"].endswith("BadOption")


def unloadings(server: Any) -> int:
    return (server.base / "server.log").read_text().count("Unloading ")


def grows(server: Any, before: int) -> bool:
    """Whether one more model was unloaded, given a moment: ComfyUI frees between two runs."""
    for _ in range(150):
        if unloadings(server) > before:
            return True
        time.sleep(0.2)
    return False


def test_freeing_the_node_cache_unloads_the_model_and_the_next_run_loads_it(server: Any) -> None:
    prompt = {
        "picture": load("both.png"),
        "model": loader(),
        "describe": describe(seed=101),
        "show": preview("describe", 0),
    }
    text = server.run(prompt)["show"]["text"]
    before = unloadings(server)
    server.free(lambda: unloadings(server) > before)
    assert server.run(prompt)["show"]["text"] == text


def test_other_loader_settings_unload_the_model_of_the_old_ones(server: Any) -> None:
    prompt = {
        "picture": load("both.png"),
        "model": loader(),
        "describe": describe(seed=102),
        "show": preview("describe", 0),
    }
    server.run(prompt)
    before = unloadings(server)
    server.run({**prompt, "model": loader(attention="eager")})
    assert grows(server, before)
