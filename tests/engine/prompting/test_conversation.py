"""Conversations: messages of several parts and turns, as token ids."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from qwen_vl_suite.qwenvl.backends.definition import load_image_processor
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.errors import BadOption, UnsupportedModel
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.prompting.chat_template import ChatTemplate
from qwen_vl_suite.qwenvl.prompting.prompt import Prompt
from qwen_vl_suite.qwenvl.types import Audio, Generated, Image, Message, Part, Request, Video

SMALL = Image(torch.zeros(3, 64, 64, dtype=torch.uint8))
WIDE = Image(torch.zeros(3, 64, 128, dtype=torch.uint8))


@pytest.fixture(scope="module")
def template() -> ChatTemplate:
    return ChatTemplate.load(library.BUNDLED, FAMILIES["qwen3_vl"])


def user(*parts: Part) -> Message:
    return Message("user", parts)


def rendered(template: ChatTemplate, *messages: Message) -> str:
    request = Request(messages, min_pixels=64 * 64)
    prompt = Prompt(request, template, load_image_processor(library.BUNDLED))
    return template.decode(prompt.ids).replace("<|image_pad|>", "*")


def test_parts_keep_their_order(template: ChatTemplate) -> None:
    text = rendered(template, user("before ", SMALL, " between ", WIDE, " after"))
    between = text.split("user\n")[1].split("<|im_end|>")[0]
    one, two = "<|vision_start|>****<|vision_end|>", "<|vision_start|>********<|vision_end|>"
    assert between == f"before {one} between {two} after"


def test_pictures_stand_in_the_turns_that_they_were_shown_in(template: ChatTemplate) -> None:
    earlier = [user(SMALL, "one"), Message("assistant", ("A square.",))]
    text = rendered(template, *earlier, user(WIDE, "and this?"))
    first, second = text.index("****"), text.index("********")
    assert first < text.index("A square.") < second < text.index("and this?")


def test_an_earlier_answer_goes_back_as_the_tokens_that_were_generated(
    template: ChatTemplate,
) -> None:
    """Also where its text would become other tokens."""
    letters = tuple(template.tokenizer.encode(letter)[0] for letter in "red")
    assert list(letters) != template.tokenizer.encode("red")
    ids = template.encode(
        Request((user("colour?"), Message("assistant", (Generated(letters),)), user("sure?"))), []
    )
    at = next(i for i in range(len(ids)) if tuple(ids[i : i + 3]) == letters)
    before, after = template.decode(ids[:at]), template.decode(ids[at + 3 :])
    assert before.endswith("assistant\n") and after.startswith("<|im_end|>\n<|im_start|>user")


def test_text_cannot_pass_for_an_earlier_answer(template: ChatTemplate) -> None:
    answer = Message("assistant", (Generated(tuple(template.tokenizer.encode("yes"))),))
    ids = template.encode(Request((user("\ufdd00\ufdd1"), answer, user("no"))), [])
    assert template.decode(ids).count("yes") == 1


def test_a_template_without_room_for_earlier_answers_is_refused() -> None:
    template = ChatTemplate.load(library.BUNDLED, FAMILIES["qwen3_vl"])
    forgetful = (
        "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    )
    template.tokenizer.chat_template = forgetful
    template = ChatTemplate(template.tokenizer, template.family, template.eos_ids)
    with pytest.raises(UnsupportedModel, match="leaves out earlier answers"):
        template.encode(Request((user("a"), Message("assistant", (Generated((5,)),)))), [])


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (Video(torch.zeros(2, 3, 64, 64, dtype=torch.uint8), (0.0, 0.5)), "sees no videos"),
        (Audio(torch.zeros(1, 16000), 16000), "hears no sounds"),
    ],
)
def test_videos_and_sounds_are_refused_in_words(
    template: ChatTemplate, part: Part, words: str
) -> None:
    with pytest.raises(BadOption, match=words):
        Prompt(Request((user(part, "?"),)), template, load_image_processor(library.BUNDLED))


def test_media_tokens_are_those_that_the_tokenizer_has() -> None:
    template = ChatTemplate.load(library.BUNDLED, FAMILIES["qwen3_vl"])
    own = template.tokenizer.convert_tokens_to_ids(
        ["<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>"]
    )
    assert template.media_token_ids == set(own)
    bare = dataclasses.replace(template.family, vision_end="<|no such token|>")
    assert ChatTemplate(template.tokenizer, bare, frozenset()).media_token_ids == set(own[:3])
