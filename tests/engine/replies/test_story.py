"""Stories in QwenStoryteller's tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.replies.story import read_story
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.types import ReplyContext

CONTEXT = ReplyContext(FAMILIES["qwen2_5_vl"], (100, 100), (112, 112))
STORY = """<think>## Image 1
| Character ID | Name |
</think>
<gdi image1>
<gdo char1>Sarah</gdo> <gda char1>held</gda>
<gdo obj3>the ancient book</gdo> before <gdl lm1>the cliffs</gdl>.
</gdi>

<gdi image2>
Then <gdo char1 char2>they</gdo> <gda char1 char2>walked</gda> along <gdl bg2>the shore</gdl>.
</gdi>"""


def test_a_story_is_told_without_its_tags():
    result = describe(prompt="Tell a story.").parse(STORY, CONTEXT)
    assert result.text == (
        "Sarah held the ancient book before the cliffs.\n\nThen they walked along the shore."
    )
    first, second = result.data["story"]
    assert first["image"] == 1 and second["image"] == 2
    assert first["mentions"] == [
        {"kind": "entity", "names": ["char1"], "text": "Sarah"},
        {"kind": "action", "names": ["char1"], "text": "held"},
        {"kind": "entity", "names": ["obj3"], "text": "the ancient book"},
        {"kind": "place", "names": ["lm1"], "text": "the cliffs"},
    ]
    assert second["mentions"][0] == {
        "kind": "entity",
        "names": ["char1", "char2"],
        "text": "they",
    }


@pytest.mark.parametrize(
    ("text", "told", "mentions"),
    [
        ("<gdi image1>A <gdo char1>dog</gdo> ran", "A dog ran", ["dog"]),
        ("Before. <gdi image3>A <gdo char1>dog", "Before.\n\nA dog", []),
        ("<GDI image1><gdo char1><gda char1>It</gda></gdo></GDI>", "It", ["It", "It"]),
        ("<gdi image1><gdo char1>It</gda> <gdo obj1>hat</gdo>", "It hat", ["hat"]),
        ("<gdi image1>a < b and <b>bold</b></gdi>", "a < b and <b>bold</b>", []),
    ],
)
def test_tags_that_are_cut_or_crossed(text: str, told: str, mentions: list[str]):
    found = read_story(text)
    assert found is not None and found[0] == told
    assert [mention["text"] for mention in found[1][0]["mentions"]] == mentions


@pytest.mark.parametrize("text", ["", "No tags.", "<gdo char1>It</gdo>", "<gdi imageX>"])
def test_other_texts_are_none(text: str):
    assert read_story(text) is None


@given(st.lists(st.sampled_from(["<gdi image1>", "</gdi>", "<gdo a b>", "</gdo>", "<gda ", "x "])))
def test_no_text_is_lost_or_invented(parts: list[str]):
    if found := read_story("".join(parts)):
        assert found[0].count("x") == "".join(parts).count("x")
        assert all(mention["text"] in found[0] for one in found[1] for mention in one["mentions"])
