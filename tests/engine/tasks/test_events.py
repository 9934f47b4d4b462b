"""The events task: what happens in a video and when, held to the video's length."""

from __future__ import annotations

import json

import pytest
from qwen_vl_suite.qwenvl import constraints
from qwen_vl_suite.qwenvl.errors import BadOption, UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.styles import read_styles
from qwen_vl_suite.qwenvl.tasks import describe, describe_video
from qwen_vl_suite.qwenvl.tasks.events import SCHEMA, events
from qwen_vl_suite.qwenvl.types import Event, ReplyContext

CONTEXT = ReplyContext(FAMILIES["qwen3_vl"], (360, 640), (352, 640))


def test_events_are_those_within_the_video():
    reply = json.dumps(
        {
            "00:01.00 - 00:02.50": "a dog runs",
            "00:09.00 - 00:12.00": "it leaves",
            "00:05.00 - 00:04.00": "backwards",
            "00:30.00 - 00:31.00": "after the end",
        }
    )
    result = events(length=10.0).parse(reply, CONTEXT)
    assert result.events == (Event(1, 2.5, "a dog runs"), Event(9, 10, "it leaves"))
    assert result.data == json.loads(result.text)
    assert result.data[1] == {"start": 9.0, "end": 10.0, "label": "it leaves"}
    told = " ".join(result.notes)
    assert "30-31 s" in told and "5-4 s" in told and "1 of the events reached outside" in told


def test_a_result_is_valid_by_the_schema_that_is_promised():
    jsonschema = pytest.importorskip("jsonschema")
    result = events("a dog").parse("It happens in 64.0 - 72.0 seconds, and at 80 s.", CONTEXT)
    jsonschema.validate(result.data, SCHEMA)
    assert result.data == [{"start": 64.0, "end": 72.0, "label": "a dog"}]


def test_what_was_looked_for_is_asked_and_names_events_without_a_label():
    task = events('a "red"\nball')
    assert "\"a 'red' ball\"" in task.prompt
    assert task.parse("[[1, 2]]", CONTEXT).events == (Event(1, 2, "a 'red' ball"),)
    assert task.parse("There is no red ball in the video.", CONTEXT).events == ()


def test_a_moment_is_told_as_such():
    result = events().parse("[00:03] a bell rings", CONTEXT)
    assert result.events == (Event(3, 3, "a bell rings"),)
    assert "no length" in result.notes[0]


def test_a_reply_without_times_is_unreadable():
    with pytest.raises(UnreadableReply, match="no times"):
        events().parse("A dog runs over the grass.", CONTEXT)


def test_how_replies_are_held():
    assert events(strict="off").constraint is None
    assert events().constraint == constraints.from_events("auto")
    held = events(strict="on")
    assert '"start_time"' in held.prompt and held.constraint != events().constraint
    with pytest.raises(BadOption, match="strict"):
        events(strict="maybe")
    with pytest.raises(BadOption, match="0 s"):
        events(length=0)


def test_styles_speak_of_a_video():
    plain = [style for style in describe.known_styles() if style in describe_video.VIDEO_STYLES]
    assert len(plain) >= 10
    for style in plain:
        prompt = describe_video.describe_video(style).prompt
        assert "video" in prompt and "image" not in prompt
    assert describe_video.describe_video("tags").parse("A, b", CONTEXT).text == "A, b"
    assert describe_video.describe_video("tags", "How many?").prompt == "How many?"
    with pytest.raises(BadOption, match="rewrites a picture as code"):
        describe_video.describe_video("svg")
    with pytest.raises(BadOption, match="no style"):
        describe_video.describe_video("no such")


def test_users_styles_are_asked_in_their_own_words(tmp_path):
    (tmp_path / "mine.yaml").write_text("haiku: A haiku of it.\nshort: In one word.\n")
    own = read_styles([tmp_path])
    assert describe_video.known_video_styles(own)[-1] == "haiku"
    for style, asked in (("haiku", "A haiku of it."), ("short", "In one word.")):
        assert describe_video.describe_video(style, own=own).prompt == asked
    assert "this video" in describe_video.describe_video("detailed", own=own).prompt
