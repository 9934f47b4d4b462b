"""Text from outside may hold lone surrogates, and nothing made of it may fail because of them."""

from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.errors import BadImage, UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.media import draw
from qwen_vl_suite.qwenvl.prompting.chat_template import ChatTemplate
from qwen_vl_suite.qwenvl.tasks import describe, ground, ocr
from qwen_vl_suite.qwenvl.types import Box, Message, Point, ReplyContext, Request
from qwen_vl_suite.qwenvl.unicode import well_formed

HALF = "cat \ud83d"
WHOLE = "cat \ufffd"

TEXTS = {
    "ASCII": ("cat", "cat"),
    "other scripts": ("猫 é 😀", "猫 é 😀"),
    "cut amid an emoji": ("cat \ud83d", "cat \ufffd"),
    "the other half": ("\ude00 cat", "\ufffd cat"),
    "halves in the wrong order": ("\ude00\ud83d", "\ufffd\ufffd"),
    "two halves of one": ("\ud83d\ude00", "😀"),
    "a byte that is no UTF-8": ("caf\udce9.png", "caf\ufffd.png"),
    "a mark of byte order stays": ("\ufeff\udce9", "\ufeff\ufffd"),
}


@pytest.mark.parametrize(("text", "expected"), TEXTS.values(), ids=TEXTS)
def test_well_formed(text, expected):
    assert well_formed(text) == expected


ANY = st.text(st.characters(codec=None, categories=None), max_size=20)


@given(ANY)
def test_any_text_becomes_encodable_and_valid_text_is_unchanged(text):
    made = well_formed(text)
    made.encode()
    assert well_formed(made) == made
    if not any("\ud800" <= letter <= "\udfff" for letter in text):
        assert made == text


@pytest.fixture(scope="module")
def template():
    return ChatTemplate.load(library.BUNDLED, FAMILIES["qwen3_vl"])


ASKED = {
    "an own prompt": lambda text: Request.ask(prompt=describe.describe(prompt=text).prompt),
    "a system prompt": lambda text: Request.ask(prompt="What?", system=text),
    "an earlier turn": lambda text: Request((Message("user", (text,)),) * 2),
    "what to find": lambda text: Request.ask(prompt=ground.ground(text).prompt),
    "a language": lambda text: Request.ask(prompt=ocr.ocr(language=text).prompt),
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED)
def test_a_prompt_may_hold_a_lone_surrogate(template, asked):
    assert template.encode(asked(HALF), []) == template.encode(asked(WHOLE), [])


def test_a_name_with_a_lone_surrogate_becomes_a_valid_label():
    context = ReplyContext(FAMILIES["qwen3_vl"], (100, 200), (100, 200))
    result = ground.ground(HALF).parse("[[100, 200, 300, 400]]", context)
    assert [box.label for box in result.boxes] == [WHOLE]
    assert [entry["label"] for entry in result.data] == [WHOLE]
    json.loads(result.text.encode())


def test_labels_of_any_text_can_be_drawn():
    picture = torch.zeros(3, 60, 80, dtype=torch.uint8)
    boxes, points = [Box(5, 20, 40, 50, HALF)], [Point(60, 30, HALF)]
    assert [item.label for item in (*boxes, *points)] == [WHOLE, WHOLE]
    assert draw.annotate(picture, boxes, points).any()
    assert boxes == [Box(5, 20, 40, 50, WHOLE)]


@pytest.mark.parametrize("error", [BadImage(HALF), UnreadableReply(HALF, "raw")], ids=repr)
def test_errors_can_be_printed(error):
    assert str(error) == WHOLE
