"""Scores, box scores and conversations over a server, and models told by their names."""

from __future__ import annotations

import math
from contextlib import closing
from typing import Any

import pytest
import torch
from fake_server import Answer, FakeServer, serving
from qwen_vl_suite.qwenvl import run, score
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend
from qwen_vl_suite.qwenvl.chat import Ask, Attachment, Conversation, ask_all
from qwen_vl_suite.qwenvl.errors import ServerError, Unavailable, UnsuitableModel
from qwen_vl_suite.qwenvl.families import family_named
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import Image, Request, ServerSpec

PICTURE = torch.zeros(3, 64, 64, dtype=torch.uint8)


def opened(server: FakeServer, model: str = "Qwen3-VL-8B", kind: str = "vllm") -> Any:
    return closing(OpenAIServerBackend(ServerSpec((server.url,), model, kind=kind)))


BOX = ['[{"bbox_2d": [', "0", ", ", "0", ", ", "500", ", ", "500", '], "label": "', "cat", '"}]']


def told(pieces: list[str], chance: float) -> list[dict[str, Any]]:
    return [{"token": piece, "logprob": math.log(chance)} for piece in pieces]


def test_boxes_have_scores_by_the_server_s_log_probabilities() -> None:
    answer = Answer("".join(BOX), pieces=BOX, logprobs=told(BOX, 0.5))
    with serving(answer) as server, opened(server) as backend:
        (found,) = run.answer(backend, ground("cat", scores=True), [PICTURE])
    (box,) = found.boxes
    assert box.score == pytest.approx(0.5)
    assert server.chats[0].body["logprobs"] is True


def test_scores_are_refused_where_there_are_no_log_probabilities() -> None:
    without = Answer("".join(BOX), pieces=BOX)
    for kind, error, words in (
        ("vllm", ServerError, "tells no log-probabilities of this answer"),
        ("lmstudio", Unavailable, "LM Studio tells no log-probabilities"),
    ):
        with serving(without) as server, opened(server, kind=kind) as backend:
            with pytest.raises(error, match=words):
                run.answer(backend, ground("cat", scores=True), [PICTURE])
            assert len(server.chats) == (kind == "vllm")


def test_pictures_are_scored_by_the_first_token() -> None:
    def script(body: dict, number: int) -> Answer:
        chances = {"Yes": 0.6, "No": 0.2, "Maybe": 0.2} if number == 0 else {"It": 1.0}
        top = [{"token": token, "logprob": math.log(p)} for token, p in chances.items()]
        first = {"token": "Yes", "logprob": math.log(0.6), "top_logprobs": top}
        return Answer("Yes", pieces=["Yes"], logprobs=[first], finish="length")

    with serving(script) as server, opened(server, "Qwen3.5-9B") as backend:
        found = [score.score_all(backend, [score.Pair(PICTURE, "a cat")])[0] for _ in range(2)]
    assert found[0] == pytest.approx(0.75)
    assert isinstance(found[1], ServerError) and "begins with none" in str(found[1])
    body = server.chats[0].body
    asked = (body["max_tokens"], body["temperature"], body["top_logprobs"])
    assert asked == (1, 1, 20)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}


def test_models_that_compare_are_not_asked_to_write() -> None:
    with serving("x") as server, opened(server, "Qwen3-VL-Reranker-2B") as backend:
        with pytest.raises(UnsuitableModel, match="reranker"):
            backend.generate([Request.ask([], "?")])
        with pytest.raises(Unavailable, match="its makers' own form"):
            score.score_all(backend, [score.Pair(PICTURE, "a cat")])
    assert not server.asked


def test_a_conversation_goes_on_as_text_and_keeps_thoughts_only_if_asked() -> None:
    def script(body: dict, number: int) -> Answer:
        return Answer(f"answer {number}", thinking="hm")

    with serving(script) as server, opened(server, "Qwen3.6-27B") as backend:
        for keeps in (False, True):
            talk = Conversation("Be brief.")
            for text in ("what?", "and now?"):
                shown = (Attachment(Image(PICTURE)),) if text == "what?" else ()
                (reply,) = ask_all(backend, [Ask(talk, text, shown, preserve_thinking=keeps)])
                assert not reply.response.error
                talk = reply.conversation
    second, fourth = (server.chats[at].body["messages"] for at in (1, 3))
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user"]
    assert [part["type"] for part in second[1]["content"]] == ["image_url", "text"]
    assert second[2]["content"] == "answer 0"
    assert fourth[2]["content"] == "<think>\nhm\n</think>\n\nanswer 2"
    assert server.chats[3].body["chat_template_kwargs"] == {"preserve_thinking": True}


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen2.5-VL-7B-Instruct", "qwen2_5_vl"),
        ("qwen2.5vl:7b", "qwen2_5_vl"),
        ("Qwen2_5-VL-3B-Instruct-Q4_K_M.gguf", "qwen2_5_vl"),
        ("allenai/olmOCR-2-7B-1025-FP8", "qwen2_5_vl"),
        ("bartowski/Qwen2-VL-2B", "qwen2_vl"),
        ("opendatalab/MinerU2.5-2509-1.2B", "qwen2_vl"),
        ("qwen3-vl:8b", "qwen3_vl"),
        ("huihui_ai/qwen3-vl-abliterated:8b-instruct", "qwen3_vl"),
        ("Qwen3-VL-30B-A3B-Instruct", "qwen3_vl_moe"),
        ("Qwen3.5-9B", "qwen3_5"),
        ("qwen3.6:35b-a3b", "qwen3_5_moe"),
        ("Qwen3.8-27B", "qwen3_5"),
        ("Qwen2.5-Omni-7B", "qwen2_5_omni"),
        ("Qwen3-Omni-30B-A3B-Instruct", "qwen3_omni_moe"),
        ("Qwen/Qwen3-8B-GGUF", "qwen3"),
        ("qwen3:30b-a3b", "qwen3_moe"),
        ("qwen2.5:7b", "qwen2"),
        ("QwQ-32B", "qwen2"),
        ("qwen-vl-max", None),
        ("qwen3-next:80b", None),
        ("llava-onevision-qwen2-7b", None),
        ("DeepSeek-R1-Distill-Qwen-7B", None),
        ("gpt-5", None),
    ],
)
def test_families_by_name(name: str, family: str | None) -> None:
    found = family_named(name)
    assert (found and found.model_type) == family
