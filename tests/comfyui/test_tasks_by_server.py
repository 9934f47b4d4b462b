"""Every task node asks a model behind a server, in a real ComfyUI: what the server is sent, whose
answer is whose, what one that fails costs, and that its key shows nowhere."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import asked
import pytest
from asked import KEY, behind, in_list, picture, server_node
from fake_server import Answer, serving, until
from graphs import preview, save
from pages import Page, ends
from PIL import Image

pytestmark = pytest.mark.comfyui
KEEP_GOING = {"when_unreadable": "keep going"}
TOO_THIN = "200"  # times as long as wide, which no model is shown
LONG = {"max_new_tokens": 9000}
REFUSED = "blue pictures are not allowed"
MIDDLES = {"red": (24, 32), "green": (16, 48)}
"""Of the left half of each picture, in its pixels."""


def layout_of(colour: str) -> str:
    thing = {"type": "obj", "bbox_2d": [0, 0, 500, 1000], "label": colour, "desc": f"{colour} wall"}
    style = {"medium": "photograph", "look": "", "aesthetics": "", "lighting": ""}
    whole = {"caption": f"All {colour}.", "style": style, "background": "", "elements": [thing]}
    return json.dumps(whole)


def chance_of_yes(colour: str) -> Answer:
    chances = {"Yes": {"red": 0.6, "green": 0.9}[colour], "No": 0.1}
    top = [{"token": token, "logprob": math.log(p)} for token, p in chances.items()]
    first = {"token": "Yes", "logprob": top[0]["logprob"], "top_logprobs": top}
    return Answer("Yes", pieces=["Yes"], logprobs=[first], finish="length")


def held_by_schema(body: dict[str, Any], key: str) -> bool:
    form = body["response_format"]
    return form["type"] == "json_schema" and key in form["json_schema"]["schema"]["required"]


@dataclass(frozen=True)
class Row:
    """One task node. ``reply`` to a picture of that colour; what ``output`` must then hold for red
    and green, ``lost`` for a picture without an answer; ``sent``: what must hold of the requests
    that were answered."""

    node: str
    widgets: dict[str, Any]
    reply: Callable[[str], str | Answer]
    output: int
    shown: Callable[[str], str]
    lost: str = ""
    sent: Callable[[dict[str, Any]], bool] = lambda body: "response_format" not in body
    pictures: str = "images"
    keep_going: dict[str, str] = field(default_factory=lambda: KEEP_GOING)


ROWS = [
    Row(
        "QVL_Describe",
        {"style": "short", "prompt": "", "max_new_tokens": 50, "sampling": "greedy", "seed": 3},
        lambda colour: f"A {colour} wall.",
        0,
        lambda colour: f"A {colour} wall.",
        sent=lambda body: body["max_tokens"] == 50 and body["temperature"] == 0,
    ),
    Row(
        "QVL_OCR",
        {"output": "lines", "language": "auto"},
        lambda colour: json.dumps([{"bbox_2d": [1, 1, 90, 90], "text_content": colour}]),
        0,
        str,
    ),
    Row(
        "QVL_Grounding",
        {"find": "wall", "kind": "boxes", "max_count": 0},
        lambda colour: json.dumps([{"bbox_2d": [0, 0, 500, 1000], "label": "wall"}]),
        3,
        lambda colour: json.dumps([dict(zip("xy", MIDDLES[colour], strict=True))]),
        lost="[]",
    ),
    Row(
        "QVL_Extract",
        {"form": "keys", "fields": "colour, price"},
        lambda colour: json.dumps({"colour": colour, "price": None}),
        0,
        lambda colour: json.dumps({"colour": colour, "price": None}),
        sent=lambda body: held_by_schema(body, "price"),
    ),
    Row(
        "QVL_Layout",
        {"form": "ideogram", "max_elements": 5},
        layout_of,
        1,
        lambda colour: f"All {colour}.",
        sent=lambda body: held_by_schema(body, "elements"),
    ),
    Row(
        "QVL_Prompt",
        {"idea": "as a drawing", "target": "qwen_image", "seed": 4, "trigger_words": "sks"},
        lambda colour: f"A drawing of a {colour} wall.",
        0,
        lambda colour: f"sks, A drawing of a {colour} wall.",
        sent=lambda body: body["seed"] == 4 and body["messages"][0]["role"] == "system",
    ),
    Row(
        "QVL_Chat",
        {"message": "Which colour?", "max_new_tokens": 20, "sampling": "greedy", "seed": 5},
        lambda colour: f"It is {colour}.",
        0,
        lambda colour: f"It is {colour}.",
        sent=lambda body: "Which colour?" in asked.text(body) and body["max_tokens"] == 20,
        pictures="images.image_0",
    ),
    Row(
        "QVL_Score",
        {"text": "a wall", "top": 2},
        chance_of_yes,
        0,
        lambda colour: {"red": "0.857", "green": "0.9"}[colour],
        lost="nan",
        sent=lambda body: (body["max_tokens"], body["top_logprobs"]) == (1, 20),
        keep_going={"when_unscored": "keep going"},
    ),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.node)
def test_each_picture_gets_its_own_answer_and_one_that_fails_costs_none_of_the_others(
    server: Any, row: Row
) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        (colour,) = asked.colours(body)
        if colour == "blue":  # with the key in it, as some servers have
            return Answer(status=400, body=asked.error(f"{REFUSED} (key {KEY})"))
        reply = row.reply(colour)
        reply = Answer(reply) if isinstance(reply, str) else reply
        # The first answer comes last.
        return Answer(**{**vars(reply), "delay": 0.5 if colour == "red" else 0})

    links = {"model": ["model", 0], row.pictures: ["pictures", 0]}
    graph = {
        "red": picture("red"),
        "thin": picture("red", 1024, 4),
        "blue": picture("blue", 64, 64),
        "green": picture("green", 64, 96),
        "pictures": in_list(["red", "thin", "blue", "green"]),
        "ask": {
            "class_type": row.node,
            "inputs": {**row.widgets, **row.keep_going, **links},
        },
        "show": preview("ask", row.output),
        "saved": save("green", 0),
    }
    with behind(server, script) as model:
        outputs = server.run({"model": server_node(model), **graph})
    shown = [text[:5] if row.node == "QVL_Score" else text for text in outputs["show"]["text"]]
    assert [shown[0], shown[3]] == [row.shown("red"), row.shown("green")]
    if row.lost:
        assert shown[1:3] == [row.lost, row.lost]
    errors = [entry["error"] for entry in outputs["ask"]["qwen_vl"]]
    assert errors[0] == errors[3] == ""
    assert TOO_THIN in errors[1] and REFUSED in errors[2]
    requests = {colour: [] for colour in ("red", "green", "blue")}
    for one in model.chats:
        (colour,) = asked.colours(one.body)
        requests[colour].append(one.body)
    (red,), (green,) = requests["red"], requests["green"]
    assert row.sent(red) and row.sent(green)
    assert {body["model"] for body in (red, green, *requests["blue"])} == {"Qwen3-VL-8B"}


def test_a_prompt_that_lacks_a_word_is_asked_for_again(server: Any) -> None:
    def script(body: dict[str, Any], number: int) -> str:
        return "A quiet room." if number == 0 else "A quiet room with a lamp."

    values = {"idea": "a room", "target": "qwen_image", "seed": 1, "must_appear": "lamp"}
    ask = {"class_type": "QVL_Prompt", "inputs": {"model": ["model", 0], **values}}
    with behind(server, script) as model:
        outputs = server.run({"model": server_node(model), "ask": ask, "show": preview("ask", 0)})
    assert outputs["show"]["text"] == ["A quiet room with a lamp."]
    (system, first), (again, second) = (one.body["messages"] for one in model.chats)
    assert system == again
    assert second["content"].startswith(first["content"])
    assert 'A quiet room.\n\nMissing in the prompt: "lamp"' in second["content"]


@pytest.mark.parametrize(
    ("model", "owner", "reason"),
    [
        ("Qwen3-VL-8B", "organization_owner", "LM Studio tells no log-probabilities"),
        ("Qwen3-VL-Reranker-2B", "vllm", "its makers' own form"),
    ],
)
def test_scores_that_a_server_cannot_tell_are_refused(
    server: Any, model: str, owner: str, reason: str
) -> None:
    values = {"model": ["model", 0], "images": ["picture", 0], "text": "a wall", "top": 1}
    ask = {"class_type": "QVL_Score", "inputs": values}
    with serving("never", models=(model,), owner=owner) as running:
        graph = {"model": server_node(running), "picture": picture("red"), "ask": ask}
        failed = server.ends(server.start(graph))["execution_error"]
    assert failed["node_id"] == "ask" and reason in failed["exception_message"]
    assert not running.chats


@pytest.mark.parametrize(
    ("node", "widgets", "pictures", "streams"),
    [
        (
            "QVL_Describe",
            {"style": "short", "prompt": "", "sampling": "greedy", "seed": 0, **LONG},
            "images",
            2,
        ),
        (
            "QVL_Chat",
            {"message": "Go on.", "sampling": "greedy", "seed": 0, **LONG},
            "images.image_0",  # all of them in one question
            1,
        ),
        ("QVL_Score", {"text": "a wall", "top": 1}, "images", 2),
    ],
)
def test_stop_closes_the_streams_and_nothing_is_asked_after_it(
    server: Any, node: str, widgets: dict[str, Any], pictures: str, streams: int
) -> None:
    endless = Answer("word " * 5000, drip=0.02)
    links = {"model": ["model", 0], pictures: ["pictures", 0]}
    ask = {"class_type": node, "inputs": {**widgets, **links}}
    with behind(server, endless) as model, Page(server) as page:
        chosen = server_node(model, concurrency=2)
        graph = {"model": chosen, "pictures": picture("red", count=9), "ask": ask}
        prompt_id = page.start(graph)
        assert until(lambda: model.active == streams, 60)
        server.post("/interrupt", {})
        assert page.wait(ends(prompt_id)).kind == "execution_interrupted"
        assert until(lambda: model.active == 0)
        assert model.hung_up == len(model.chats) == streams


def test_a_folder_is_captioned_and_a_broken_file_costs_only_itself(server: Any) -> None:
    def script(body: dict[str, Any], number: int) -> str:
        return f"A {asked.colours(body)[0]} wall."

    folder = server.base / "input" / "walls"
    folder.mkdir()
    for colour, value in asked.COLOURS.items():
        Image.new("RGB", (64, 64), f"#{value:06x}").save(folder / f"{colour}.png")
    (folder / "broken.png").write_bytes(b"no picture")
    values = {
        "folder": "walls",
        "task": "describe",
        "task.style": "short",
        "task.prompt": "",
        "trainer": "kohya",
        "trigger": "",
        "existing": "skip",
        "seed": 0,
    }
    ask = {"class_type": "QVL_CaptionFolder", "inputs": {"model": ["model", 0], **values}}
    with behind(server, script) as model:
        outputs = server.run({"model": server_node(model), "ask": ask})
    assert "3 captioned, 0 skipped, 1 failed" in json.dumps(outputs["ask"])
    captions = {path.stem: path.read_text().strip() for path in folder.glob("*.txt")}
    assert captions == {colour: f"A {colour} wall." for colour in asked.COLOURS}
