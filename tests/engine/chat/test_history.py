"""Conversations as JSON, with pictures by reference."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl.chat import (
    Attachment,
    Conversation,
    Media,
    Reference,
    Turn,
    digest,
    dumps,
    loads,
    references,
)
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.types import Audio, Image, Video

RED = Image(torch.zeros(3, 4, 6, dtype=torch.uint8))
HUM = Audio(torch.zeros(1, 8), 8)
CLIP = Video(torch.zeros(2, 3, 4, 6, dtype=torch.uint8), (0.0, 0.5))
PLACE = Reference("qwen_vl_chat/red.png", "output")
TURN = Turn("What?", (Attachment(RED, PLACE),), "A 猫.", (5, 7), "hm", (9,))


def opened(kind: str, reference: Reference) -> Media:
    assert reference == PLACE
    return {"image": RED, "audio": HUM, "video": CLIP}[kind]


def test_a_conversation_comes_back_as_it_was() -> None:
    text = dumps(Conversation("Be brief.", (TURN, Turn("Sure?", answer="Yes."))))
    found = loads(text, opened)
    assert found.system == "Be brief." and "猫" in text
    again, second = found.turns
    assert again.attachments[0].part is RED and again.attachments[0].reference == PLACE
    assert dataclasses.replace(again, attachments=()).__dict__ == {
        **dataclasses.replace(TURN, attachments=()).__dict__
    }
    assert (second.text, second.answer, second.ids) == ("Sure?", "Yes.", ())
    assert dumps(found) == text


def test_a_history_can_be_written_by_hand() -> None:
    values = {
        "turns": [
            {
                "text": "What?",
                "answer": "A cat.",
                "media": [{"type": "image", "folder": "output", "path": PLACE.path}],
            }
        ]
    }
    (turn,) = loads(json.dumps(values), opened).turns
    assert turn.attachments[0].part is RED and turn.answer == "A cat." and turn.ids == ()


def test_pictures_are_told_apart_by_all_their_pixels() -> None:
    other = RED.pixels.clone()
    other[2, 3, 5] = 1
    assert digest(RED) != digest(Image(other))
    assert digest(RED) != digest(Image(RED.pixels.reshape(3, 6, 4)))
    later = dataclasses.replace(CLIP, times=(0.0, 0.6))
    assert len({digest(CLIP), digest(later), digest(HUM), digest(Audio(HUM.samples, 9))}) == 4


def changed(**more: Any) -> str:
    values = json.loads(dumps(Conversation("", (TURN,))))
    values["turns"][0] |= more
    return json.dumps(values)


IMAGE = json.loads(changed())["turns"][0]["media"][0]
BAD = {
    "no JSON": ("{", "not valid JSON"),
    "too deep": ("[" * 100_000, "not valid JSON"),
    "a list": ("[]", "no conversation"),
    "a later version": ('{"qwen_vl_chat": 2, "turns": []}', "version 2"),
    "a turn that is none": ('{"turns": [3]}', "Turn 1 of the history is no object"),
    "words of another program": (
        '{"turns": [{"role": "user", "content": "Hi"}]}',
        "Turn 1 of the history is no object",
    ),
    "a text that is none": (changed(answer=3), "answer of turn 1 of the history is int"),
    "ids that are none": (changed(ids=["a"]), "ids of turn 1 of the history are no list"),
    "truth as an id": (changed(ids=[True]), "no list of whole numbers"),
    "media that are none": (changed(media={"type": "image"}), "are no list"),
    "another picture": (changed(media=[{**IMAGE, "digest": "0"}]), "is another one now"),
    "a picture that was not kept": (changed(media=[{"type": "image"}]), "Turn save_pictures on"),
    "a sound that was not kept": (changed(media=[{"type": "audio"}]), "A sound of turn 1"),
    "another sound": (changed(media=[{**IMAGE, "type": "audio"}]), "The sound .* is another one"),
    "an endless version": (json.dumps({"qwen_vl_chat": ["a" * 9999], "turns": []}), "version"),
    "a type that is none": (changed(media=[{"type": []}]), r"hold \[\]; the type"),
    "a medium that is none": (changed(media=[[]]), r"hold \[\]; the type"),
    "an endless path": (changed(media=[{**IMAGE, "path": "a" * 9999}]), "longer than 4096"),
    "a rate that is none": (changed(media=[{**IMAGE, "fps": [9] * 999}]), r"fps \[9, .* sound"),
    "a smell": (changed(media=[{"type": "smell"}]), "'smell'; the type of each is one of image"),
    "a path that is none": (changed(media=[{**IMAGE, "path": 3}]), "path of turn 1"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD)
def test_what_is_no_history_is_an_error_in_words(text: str, words: str) -> None:
    with pytest.raises(BadOption, match=words) as caught:
        loads(text, opened)
    assert len(str(caught.value)) < 400


def test_halves_of_characters_are_written_and_a_path_with_them_is_found_again() -> None:
    place = Reference("qwen_vl_chat/\udcff.png", "output")
    turn = dataclasses.replace(TURN, text="\ud83d!", attachments=(Attachment(RED, place),))
    text = dumps(Conversation("猫", (turn,)))
    assert "猫" in text and text.encode()
    (found,) = loads(text, lambda kind, reference: RED).turns
    assert found.text == "\ufffd!" and found.attachments[0].reference == place
    assert references(text) == [place] and references("[" * 9) == references("{}") == []
    assert references(changed(media=[[], 3, {"path": 4}])) == references('{"turns": [3]}') == []


def test_videos_and_sounds_come_back_too() -> None:
    shown = (Attachment(HUM, PLACE), Attachment(CLIP, PLACE))
    (turn,) = loads(dumps(Conversation("", (Turn("What?", shown, "A dog."),))), opened).turns
    assert [one.part for one in turn.attachments] == [HUM, CLIP]
    heard = dataclasses.replace(CLIP, audio=HUM)
    place = dataclasses.replace(PLACE, fps=0.5, sound=True)
    shown = (Attachment(heard, place), Attachment(CLIP, PLACE))
    text, read = dumps(Conversation("", (Turn("What?", shown, "A dog."),))), []
    loads(text, lambda kind, found: [heard, CLIP][read.append(found) or len(read) - 1])
    assert read == [place, PLACE] and '"fps": 2' not in text
    with pytest.raises(BadOption, match="is another one now"):  # without the sound it had
        loads(text, lambda kind, found: CLIP)
    text = dumps(Conversation("", (Turn("What do you hear?", (Attachment(HUM),), "A dog."),)))
    with pytest.raises(BadOption, match="A sound of turn 1 of the history was not kept"):
        loads(text, opened)
