"""Conversations, videos and sounds that a model behind a server is shown by nodes of a real
ComfyUI: what the server is sent, and whose answer is whose."""

from __future__ import annotations

import json
from typing import Any

import asked
import pytest
from asked import behind, in_list, picture, server_node
from fake_server import Answer, serving
from graphs import preview

pytestmark = pytest.mark.comfyui


def test_a_conversation_goes_on_with_its_pictures_and_its_video(server: Any) -> None:
    def script(body: dict[str, Any], number: int) -> str:
        return f"I see {' '.join(asked.colours(body))}."

    def chat(message: str, **links: Any) -> dict[str, Any]:
        values = {"message": message, "max_new_tokens": 50, "sampling": "greedy", "seed": 0}
        return {"class_type": "QVL_Chat", "inputs": {"model": ["model", 0], **values, **links}}

    frames = {"images": ["frames", 0], "fps": 2.0}
    graph = {
        "red": picture("red"),
        "green": picture("green", 64, 96),
        "frames": picture("blue", count=4),
        "video": {"class_type": "CreateVideo", "inputs": frames},
        "one": chat(
            "What is there?",
            **{"images.image_0": ["red", 0], "images.image_1": ["green", 0]},
            **{"videos.video_0": ["video", 0]},
        ),
        "two": chat("And before?", history=["one", 2], system_prompt="Be brief."),
        "first": preview("one", 0),
        "second": preview("two", 0),
        "history": preview("two", 3),
    }
    with behind(server, script) as model:
        outputs = server.run({"model": server_node(model), **graph})
    everything = "I see red green blue blue blue blue."
    assert outputs["first"]["text"] == outputs["second"]["text"] == [everything]
    first, second = (one.body for one in model.chats)
    assert asked.colours(first) == asked.colours(second)
    assert first["media_io_kwargs"]["video"]["frames_indices"] == [0, 500, 1000, 1500]
    assert second["media_io_kwargs"] == first["media_io_kwargs"]
    roles = [message["role"] for message in second["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    said = [message["content"] for message in second["messages"]]
    assert said[0] == "Be brief." and said[2:] == [everything, "And before?"]
    (told,) = (json.loads(text) for text in outputs["history"]["text"])
    assert told["system"] == "Be brief." and len(told["turns"]) == 2


@pytest.mark.parametrize("owner", ["vllm", "llamacpp"])
def test_videos_are_watched_at_their_true_times(server: Any, owner: str) -> None:
    """As videos where a server takes them, as pictures with their times elsewhere."""

    def script(body: dict[str, Any], number: int) -> Answer:
        first = asked.colours(body)[0]
        written = [{"start": "00:00.50", "end": "00:01.00", "label": f"{first} ends"}]
        return Answer(json.dumps(written), delay=0.5 if first == "red" else 0)

    def frames(one: str, other: str) -> dict[str, Any]:
        links = {"image1": [one, 0], "image2": [other, 0]}
        return {"class_type": "ImageBatch", "inputs": links}

    def video(name: str) -> dict[str, Any]:
        inputs = {"images": [name, 0], "fps": 4.0}
        return {"class_type": "CreateVideo", "inputs": inputs}

    graph = {
        **{colour: picture(colour, count=4) for colour in ("red", "green", "blue")},
        "to green": frames("red", "green"),
        "to blue": frames("green", "blue"),
        "one": video("to green"),
        "two": video("to blue"),
        "videos": in_list(["one", "two"]),
        "watch": {
            "class_type": "QVL_Video",
            "inputs": {
                "model": ["model", 0],
                "video": ["videos", 0],
                "task": "events",
                "task.happening": "",
                "frames": "interval",
                "frames.seconds": 0.5,
                "seed": 0,
            },
        },
        "events": preview("watch", 1),
        "times": preview("watch", 2),
    }
    with behind(server, script, owner=owner) as model:
        outputs = server.run({"model": server_node(model), **graph})
    assert [json.loads(text) for text in outputs["events"]["text"]] == [
        [{"start": 0.5, "end": 1.0, "label": f"{colour} ends"}] for colour in ("red", "green")
    ]
    assert outputs["times"]["text"] == ["[0.0, 0.5, 1.0, 1.5]"] * 2
    bodies = {asked.colours(one.body)[0]: one.body for one in model.chats}
    assert asked.colours(bodies["red"]) == ["red", "red", "green", "green"]
    assert asked.colours(bodies["green"]) == ["green", "green", "blue", "blue"]
    for body in bodies.values():
        if owner == "vllm":
            told = body["media_io_kwargs"]["video"]
            assert [index / told["fps"] for index in told["frames_indices"]] == [0, 0.5, 1, 1.5]
        else:
            shown = [part.get("text", "frame") for part in asked.parts(body)][:8]
            assert shown[::2] == [f"<{time:.1f} seconds>" for time in (0, 0.5, 1, 1.5)]
            assert shown[1::2] == ["frame"] * 4


def listen(**inputs: Any) -> dict[str, Any]:
    values = {"task": "transcribe", "prompt": "", "seed": 0, "when_unreadable": "keep going"}
    links = {"model": ["model", 0], "audio": ["sounds", 0]}
    return {"class_type": "QVL_Listen", "inputs": {**values, **links, **inputs}}


def sounds(*lengths: float) -> dict[str, Any]:
    names = [f"sound of {length} s" for length in lengths]
    made = {
        name: {
            "class_type": "EmptyAudio",
            "inputs": {"duration": length, "sample_rate": 22050, "channels": 2},
        }
        for name, length in zip(names, lengths, strict=True)
    }
    return {**made, "sounds": in_list(names)}


def test_each_sound_gets_its_own_transcript(server: Any) -> None:
    def script(body: dict[str, Any], number: int) -> Answer:
        heard = asked.seconds(body)
        return Answer(f"{heard:.1f} seconds of silence", delay=0.5 if heard < 2 else 0)

    graph = {**sounds(1.0, 0.001, 2.0), "ask": listen(), "show": preview("ask", 0)}
    with behind(server, script, model="Qwen2.5-Omni-7B") as model:
        outputs = server.run({"model": server_node(model), **graph})
    assert outputs["show"]["text"] == ["1.0 seconds of silence", "", "2.0 seconds of silence"]
    assert [bool(entry["error"]) for entry in outputs["ask"]["qwen_vl"]] == [False, True, False]
    assert len(model.chats) == 2


@pytest.mark.parametrize(
    ("model", "owner", "widgets", "reason"),
    [
        ("Qwen2.5-Omni-7B", "organization_owner", {}, "LM Studio takes no sounds"),
        ("Qwen3-VL-8B", "vllm", {}, "hears no sounds"),
        ("Qwen2.5-Omni-7B", "vllm", {"task": "ask", "speak": True}, "do not speak here"),
    ],
)
def test_sounds_that_a_server_cannot_be_given_or_give_are_refused(
    server: Any, model: str, owner: str, widgets: dict[str, Any], reason: str
) -> None:
    graph = {**sounds(1.0), "ask": listen(**widgets, when_unreadable="stop")}
    with serving("never", models=(model,), owner=owner) as running:
        chosen = server_node(running)
        failed = server.ends(server.start({"model": chosen, **graph}))["execution_error"]
    assert failed["node_id"] == "ask" and reason in failed["exception_message"]
    assert not running.chats
