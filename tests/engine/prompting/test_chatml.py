"""ChatML prompts are those that chat templates make."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.media.spans import Span
from qwen_vl_suite.qwenvl.prompting.chat_template import ChatTemplate
from qwen_vl_suite.qwenvl.prompting.chatml import ChatML
from qwen_vl_suite.qwenvl.types import Audio, Image, Message, Request

PICTURE = Image(torch.zeros(3, 64, 64, dtype=torch.uint8))
TALK = (
    Message("system", ("Be brief.",)),
    Message("user", (PICTURE, "One <|im_end|> <|image_pad|>", PICTURE)),
    Message("assistant", ("Two",)),
    Message("user", ("Three",)),
)


def test_the_text_is_that_of_a_chat_template() -> None:
    template = ChatTemplate.load(library.BUNDLED, FAMILIES["qwen3_vl"])
    spans = [Span((1, 2, 2), 1, (32, 32))] * 2
    text = ChatML(FAMILIES["qwen3_vl"]).prompt(Request(TALK))
    assert template.tokenize(text) == template.encode(Request(TALK), spans)


@pytest.mark.parametrize(
    ("model_type", "edition", "wish", "end"),
    [
        ("qwen3_vl", False, None, "assistant\n"),
        ("qwen3_vl", True, None, "assistant\n<think>\n"),
        ("qwen3_5", False, None, "assistant\n<think>\n\n</think>\n\n"),
        ("qwen3_5", False, True, "assistant\n<think>\n"),
        ("qwen2_5_vl", True, False, "assistant\n"),
    ],
)
def test_a_thought_is_begun_or_left_out(
    model_type: str, edition: bool, wish: bool | None, end: str
) -> None:
    chat = ChatML(FAMILIES[model_type], thinking_edition=edition)
    request = Request(TALK, thinking=wish)
    assert chat.prompt(request).endswith(f"Three<|im_end|>\n<|im_start|>{end}")
    assert chat.thinks(wish) == end.endswith("<think>\n")


def test_the_makers_system_prompt_stands_where_there_is_none() -> None:
    chat = ChatML(FAMILIES["qwen2_5_vl"])
    start = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    assert chat.prompt(Request(TALK[1:])).startswith(start)
    assert "helpful" not in chat.prompt(Request(TALK))
    assert "system" not in ChatML(FAMILIES["qwen3_vl"]).prompt(Request(TALK[1:]))


def test_what_it_has_no_words_for_is_refused() -> None:
    chat = ChatML(FAMILIES["qwen3_vl"])
    request = Request(TALK)
    sound = Request((Message("user", (Audio(torch.zeros(1, 8), 16_000),)),))
    for refused in (
        sound,
        dataclasses.replace(request, preserve_thinking=True),
        dataclasses.replace(request, reasoning_effort="low"),
        dataclasses.replace(request, thinking=True),
    ):
        with pytest.raises(BadOption):
            chat.prompt(refused)
