"""Thinking over servers: which models do, and what becomes of their thoughts."""

from __future__ import annotations

from contextlib import closing

import pytest
import torch
from fake_server import Answer, serving
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.families import FAMILIES, family_named
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.servers.kinds import kind
from qwen_vl_suite.qwenvl.servers.thinking import style, thinks
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import Request, Response, Sampling, ServerSpec

PICTURE = torch.zeros(3, 64, 64, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Qwen/Qwen3-VL-8B-Thinking", "always"),
        ("Qwen3-VL-8B", "never"),
        ("qwen3-vl:8b-instruct", "never"),
        ("Qwen2.5-VL-7B", "never"),
        ("QVQ-72B-Preview", "always"),
        ("qwen3.5:9b", "on"),
        ("Qwen3.5-2B", "off"),
        ("Qwen3-8B-GGUF", "on"),
        ("Qwen3-4B-Instruct-2507", "never"),
    ],
)
def test_names_tell_whether_a_model_thinks(name: str, expected: str) -> None:
    family = family_named(name)
    assert family and style(name, family, lambda: kind("vllm")) == expected


@pytest.mark.parametrize(
    "name", ["qwen3-vl", "qwen3-vl:latest", "qwen3-vl:8b", "qwen3-vl:235b-cloud"]
)
def test_ollama_s_qwen3_vl_is_the_thinking_edition_unless_its_tag_says_otherwise(name: str) -> None:
    family = FAMILIES["qwen3_vl"]
    assert style(name, family, lambda: kind("ollama")) == "always"
    assert style(name, family, lambda: kind("vllm")) == "never"
    assert style("qwen3-vl:8b-instruct-q8_0", family, lambda: kind("ollama")) == "never"
    assert style("me/qwen3-vl-of-mine", family, lambda: kind("ollama")) == "never"


def test_a_thought_that_ollama_does_not_leave_out_has_room_beside_the_answer() -> None:
    def script(body: dict, number: int) -> Answer:
        is_enough = body["max_tokens"] > 1000
        finish = "stop" if is_enough else "length"
        return Answer("a cat" * is_enough, thinking="hm " * 5, finish=finish)

    request = Request.ask([PICTURE], "?", sampling=Sampling(max_new_tokens=100))
    with (
        serving(script, models=["qwen3-vl:latest"], owner="library") as server,
        closing(OpenAIServerBackend(ServerSpec((server.url,)))) as backend,
    ):
        (response,) = backend.generate([request])
        with pytest.raises(BadOption, match="choose an Instruct model"):
            backend.thinks(False)
    assert response.text == "a cat"


def test_wishes_that_a_model_or_a_server_cannot_follow_are_refused() -> None:
    vllm, lmstudio = kind("vllm"), kind("lmstudio")
    with pytest.raises(BadOption, match=r"^mine always thinks"):
        thinks("mine", "always", vllm, False)
    with pytest.raises(BadOption, match=r"^mine does not think"):
        thinks("mine", "never", vllm, True)
    with pytest.raises(BadOption, match="LM Studio cannot be told"):
        thinks("mine", "on", lmstudio, False)
    assert [thinks("mine", "on", vllm, wish) for wish in (None, True, False)] == [True, True, False]
    assert not thinks("mine", "on", vllm, None, "none")
    assert style("mine", FAMILIES["qwen3_vl"], lambda: vllm) == "unknown"


class Text(Observer):
    text = ""

    def token(self, index: int, text: str) -> None:
        self.text += text


def ask(server, model: str, thinking: bool | None = None, **sampling) -> tuple[Response, str]:
    request = Request.ask([PICTURE], "?", thinking=thinking, sampling=Sampling(**sampling))
    watching = Text()
    with closing(OpenAIServerBackend(ServerSpec((server.url,), model, kind="vllm"))) as backend:
        (response,) = backend.generate([request], watching)
    return response, watching.text


@pytest.mark.parametrize("field", ["reasoning", "reasoning_content"])
def test_thoughts_that_are_told_apart(field: str) -> None:
    with serving(Answer("a cat", thinking="let me see", thinking_field=field)) as server:
        response, shown = ask(server, "Qwen3.5-9B")
        unasked, shown_unasked = ask(server, "Qwen3-VL-8B-Instruct")
    assert (response.text, response.thinking) == ("a cat", "let me see")
    assert shown == "let me see</think>\n\na cat"
    assert unasked.text == "a cat" and shown_unasked == f"<think>{shown}"


@pytest.mark.parametrize(
    ("said", "finish", "thinking", "text"),
    [
        ("so it is</think>\n\na cat", "stop", "so it is", "a cat"),
        ("<think>so it is</think>\n\na cat", "stop", "so it is", "a cat"),
        ("a cat", "stop", "", "a cat"),
        ("so it is not", "length", "so it is not", ""),
    ],
)
def test_thoughts_within_the_text(said: str, finish: str, thinking: str, text: str) -> None:
    with serving(Answer(said, finish=finish)) as server:
        response, _ = ask(server, "Qwen3.5-9B")
    assert (response.thinking, response.text) == (thinking, text)
    assert response.finish_reason == finish
    if finish == "length":
        assert "still thinking" in response.notes[-1]


def test_what_became_of_a_wish_is_told() -> None:
    with serving(lambda body, number: Answer("a cat", thinking="hm" * (number % 2))) as server:
        without, _ = ask(server, "Qwen3.5-9B", thinking=True)
        despite, _ = ask(server, "Qwen3.5-9B", thinking=False)
    assert "did not" in without.notes[0] and "asked not to think" in despite.notes[0]
    kwargs = [asked.body["chat_template_kwargs"] for asked in server.chats]
    assert kwargs == [{"enable_thinking": True}, {"enable_thinking": False}]


def test_thought_and_answer_share_one_limit_and_that_is_said() -> None:
    with serving(Answer("a cat", thinking="hm")) as server:
        response, _ = ask(server, "Qwen3.5-9B", max_new_tokens=10, max_thinking_tokens=20)
        ask(server, "Qwen3-VL-8B-Instruct", max_new_tokens=10)
    assert [asked.body["max_tokens"] for asked in server.chats] == [30, 10]
    assert "30 tokens were allowed" in response.notes[0]


def test_reading_tasks_turn_thinking_off_where_it_can_be() -> None:
    with serving("one") as server:
        for model in ("Qwen3.5-9B", "Qwen3-VL-8B-Thinking"):
            spec = ServerSpec((server.url,), model, kind="vllm")
            with closing(OpenAIServerBackend(spec)) as backend:
                run.answer(backend, ground("cat"), [PICTURE], keep_unreadable=True)
    sent = [asked.body.get("chat_template_kwargs") for asked in server.chats]
    assert sent == [{"enable_thinking": False}, None]
