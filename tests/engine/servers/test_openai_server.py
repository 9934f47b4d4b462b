"""A model behind a server: from queries to results, over HTTP on loopback."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
from contextlib import closing
from typing import Any

import pytest
import torch
from fake_server import Answer, FakeServer, serving, until
from PIL import Image
from qwen_vl_suite.qwenvl import model_cache, run
from qwen_vl_suite.qwenvl.backends.base import Remote
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend
from qwen_vl_suite.qwenvl.errors import ServerError
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.run import Query
from qwen_vl_suite.qwenvl.servers import streaming
from qwen_vl_suite.qwenvl.tasks.act import act
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import Constraint, Request, Response, ServerSpec, Video


def picture(height: int = 100, width: int = 200, value: int = 0) -> torch.Tensor:
    return torch.full((3, height, width), value, dtype=torch.uint8)


def pictures_in(body: dict) -> list[Image.Image]:
    parts = [part for message in body["messages"] for part in message["content"]]
    urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
    assert all(url.startswith("data:image/png;base64,") for url in urls)
    return [Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) for url in urls]


def test_describe_and_grounding_over_a_server() -> None:
    def script(body: dict, number: int) -> str:
        asked = body["messages"][-1]["content"][-1]["text"]
        box = '```json\n[{"bbox_2d": [0, 0, 500, 500], "label": "cat"}]\n```'
        return box if "cat" in asked else "A grey picture."

    with serving(script) as server:
        spec = ServerSpec((server.url,), "Qwen3-VL-8B-Instruct")
        with model_cache.ModelCache(model_cache._load).lease(spec) as backend:
            queries = [Query(describe("short"), picture()), Query(ground("cat"), picture(value=9))]
            described, found = run.answer_all(backend, queries)
    assert described.text == "A grey picture."
    (box,) = found.boxes
    assert (box.x1, box.y1, box.x2, box.y2, box.label) == (0, 0, 100, 50, "cat")
    shown = [pictures_in(asked.body) for asked in server.chats]
    # Resized on this side, to multiples of 32 and no less than the family's least pixels.
    assert [[one.size for one in each] for each in shown] == [[(384, 192)]] * 2
    assert {each[0].getpixel((9, 9)) for each in shown} == {(0, 0, 0), (9, 9, 9)}
    assert {asked.body["model"] for asked in server.chats} == {"Qwen3-VL-8B-Instruct"}


def test_boxes_in_pixels_are_of_the_picture_that_was_sent() -> None:
    said = '[{"bbox_2d": [0, 28, 56, 56], "label": "cat"}]'
    with serving(said) as server, opened(server, model="qwen2.5vl:7b") as backend:
        (found,) = run.answer(backend, ground("cat"), [picture(280, 560)])
    (sent,) = pictures_in(server.chats[0].body)
    (box,) = found.boxes
    assert sent.size == (560, 280)
    assert (box.x1, box.y1, box.x2, box.y2) == (0, 28, 56, 56)


@pytest.mark.parametrize("kind", ["vllm", "llama.cpp", "ollama", "lmstudio", "other"])
@pytest.mark.parametrize("size", [(1440, 2560), (600, 800)])
def test_the_screen_s_resolution_that_is_told_is_that_of_the_picture_sent(kind, size) -> None:
    """By a model that believes it, and clicks the middle of the screen."""
    told: list[tuple[int, int]] = []

    def script(body: dict, number: int) -> str:
        if body["max_tokens"] == 1:  # about the size in which pictures are seen
            return "?"
        (found,) = re.findall(r"resolution is (\d+)x(\d+)", json.dumps(body["messages"][0]))
        told.append((int(found[0]), int(found[1])))
        place = [side // 2 for side in told[-1]]
        call = {"name": "computer_use", "arguments": {"action": "left_click", "coordinate": place}}
        return f"Action: click\n<tool_call>\n{json.dumps(call)}\n</tool_call>"

    with serving(script) as server, opened(server, model="qwen2.5vl:7b", kind=kind) as backend:
        (found,) = run.answer(backend, act("click the middle"), [picture(*size)])
    (sent,) = pictures_in(server.chats[0].body | {"messages": server.chats[0].body["messages"][1:]})
    assert told[0] == sent.size
    (point,) = found.points
    assert (round(point.x), round(point.y)) == (size[1] // 2, size[0] // 2)


def opened(*servers: FakeServer, model: str = "Qwen3-VL-8B", **spec) -> Any:
    """The backend of these, closed at the end of the block."""
    urls = tuple(server.url for server in servers)
    return closing(OpenAIServerBackend(ServerSpec(urls, model, **spec)))


class Recorder(Observer):
    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.finished: list[int] = []

    def token(self, index: int, text: str) -> None:
        self.texts[index] = self.texts.get(index, "") + text

    def restart(self, index: int) -> None:
        self.texts[index] = ""

    def done(self, index: int, response: object) -> None:
        self.finished.append(index)


@pytest.mark.parametrize("fault", ["drop", "half", "garbage", "wrong json"])
def test_an_answer_that_breaks_off_is_asked_for_again(fault) -> None:
    def script(body: dict, number: int) -> Answer:
        return Answer("one two three four", fault=fault if number == 0 else "")

    with serving(script) as server:
        watching = Recorder()
        with opened(server) as backend:
            (found,) = run.answer(backend, describe("short"), [picture()], observer=watching)
        assert found.text == "one two three four"
        assert watching.texts == {0: "one two three four"}
        assert watching.finished == [0]
        assert len(server.chats) == 2


class Stop(BaseException):
    pass


def test_an_interrupt_closes_the_streams_and_reaches_the_caller() -> None:
    class Interrupting(Observer):
        seen = 0

        def token(self, index: int, text: str) -> None:
            self.seen += 1

        def check(self) -> None:
            if self.seen > 4:
                raise Stop

    with serving(Answer("word " * 500, drip=0.02)) as server:
        with opened(server) as backend, pytest.raises(Stop):
            run.answer(backend, describe("short"), [picture()] * 3, observer=Interrupting())
        assert until(lambda: server.active == 0)
        assert server.hung_up == 3


@pytest.mark.parametrize("status", [400, 500])
def test_a_form_that_was_refused_twice_is_asked_for_no_more(status: int) -> None:
    def script(body: dict, number: int) -> Answer:
        return Answer("{}", status=status if "response_format" in body else 200)

    form = Constraint("json_schema", '{"type": "object"}')
    asked = [dataclasses.replace(Request.ask([], f"{n}"), constraint=form) for n in range(5)]
    with serving(script) as server, opened(server, kind="vllm", concurrency=1) as backend:
        # One request after the other.
        found = [response for one in asked for response in backend.generate([one])]
        assert len(server.chats) == 2 + 2 + 1 + 1 + 1
    assert all("not held to its form" in response.notes[0] for response in found)


def test_a_form_that_was_held_once_is_asked_for_again_after_a_fault() -> None:
    def script(body: dict, number: int) -> Answer:
        return Answer("{}", status=500 if number == 1 else 200)

    form = Constraint("json_schema", '{"type": "object"}')
    asked = dataclasses.replace(Request.ask([], "it"), constraint=form)
    with serving(script) as server, opened(server, kind="vllm") as backend:
        found = [backend.generate([asked])[0] for _ in range(2)]
        assert all("response_format" in chat.body for chat in server.chats)
    assert [response.notes for response in found] == [(), ()]


def test_an_answer_that_nobody_foresaw_costs_its_own_request(monkeypatch) -> None:
    def read(reply: Any, *_: object) -> Any:
        if reply.text == "odd":
            raise OverflowError("int too large")
        return Response(reply.text)

    monkeypatch.setattr(streaming.Reply, "response", read)

    def script(body: dict, number: int) -> str:
        return "odd" if "second" in str(body["messages"]) else "fine"

    with serving(script) as server, opened(server, kind="vllm") as backend:
        found = backend.generate([Request.ask([], text) for text in ("first", "second")])
    assert found[0].text == "fine"
    assert isinstance(found[1].error, ServerError) and "cannot be read" in str(found[1].error)


def test_once_it_is_prepared_nothing_more_has_to_be_asked_about_the_server() -> None:
    with serving("A cat.", owner="vllm") as server, opened(server, model="") as backend:
        assert isinstance(backend, Remote)
        with pytest.raises(Stop):
            backend.prepare(Stopping())
        backend.prepare(Observer())
        count = len(server.asked)
        assert (backend.kind.name, backend.family.model_type) == ("vllm", "qwen3_vl")
        backend.thinks()
        backend.generate([Request.ask([], "it")])
        assert len(server.asked) == count + 1


class Stopping(Observer):
    def check(self) -> None:
        raise Stop


def test_after_it_was_lost_another_server_may_be_there() -> None:
    first = serving(Answer(status=404), models=["Qwen2.5-VL-3B"], owner="vllm")
    with first as server, opened(server, model="") as backend:
        backend.prepare(Observer())
        server.models, server.owner = ["Qwen3-VL-8B"], "llamacpp"
        backend.prepare(Observer())
        assert (backend.name, backend.kind.name) == ("Qwen2.5-VL-3B", "vllm")
        (lost,) = backend.generate([Request.ask([], "it")])
        assert lost.error is not None
        backend.prepare(Observer())
        assert (backend.name, backend.kind.name) == ("Qwen3-VL-8B", "llama.cpp")
        assert backend.family.model_type == "qwen3_vl"


@pytest.mark.parametrize("is_trusted", [True, False])
def test_a_server_that_takes_no_times_is_shown_single_frames(is_trusted: bool) -> None:
    """vLLM takes the times of videos only with a switch: that one refusal costs no answer."""
    refusal = b'{"error": {"message": "Per-request media_io_kwargs are disabled by default."}}'

    def script(body: dict, number: int) -> str | Answer:
        if "media_io_kwargs" in body and not is_trusted:
            return Answer(status=400, body=refusal)
        return "A ball rolls."

    frames = torch.zeros(4, 3, 64, 64, dtype=torch.uint8)
    asked = [
        Request.ask([Video(frames, (0.0, 0.5, 1.0, start + 1.5))], "What happens?")
        for start in range(3)
    ]
    with serving(script) as server, opened(server, kind="vllm", concurrency=1) as backend:
        responses = [backend.generate([request])[0] for request in asked]
        bodies = [chat.body for chat in server.chats]
    assert [response.text for response in responses] == ["A ball rolls."] * 3
    if is_trusted:
        assert len(bodies) == 3 and all("media_io_kwargs" in body for body in bodies)
        assert not any(response.notes for response in responses)
        return
    assert ["media_io_kwargs" in body for body in bodies] == [True, False, False, False]
    parts = bodies[-1]["messages"][0]["content"]
    assert [part["text"] for part in parts if part["type"] == "text"] == [
        *("<0.0 seconds>", "<0.5 seconds>", "<1.0 seconds>", "<3.5 seconds>"),
        "What happens?",
    ]
    assert len(pictures_in(bodies[-1])) == 4
    for response in responses:
        assert "--trust-request-mm-kwargs" in " ".join(response.notes)


def test_another_server_may_send_thoughts_in_its_text_again() -> None:
    answers = [
        Answer("yes", thinking="hmm"),
        Answer(status=404),
        Answer("hmm, cut", finish="length"),
    ]
    with (
        serving(lambda body, number: answers[number]) as server,
        opened(server, model="Qwen3-VL-8B-Thinking") as backend,
    ):
        found = []
        for _ in answers:
            backend.prepare(Observer())
            found += backend.generate([Request.ask([], "it")])
    assert [(response.thinking, response.text) for response in found] == [
        ("hmm", "yes"), ("", ""), ("hmm, cut", ""),
    ]  # fmt: skip
