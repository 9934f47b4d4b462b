"""Event reader: every form in which models say what happens in a video and when."""

from __future__ import annotations

import json

import pytest
from qwen_vl_suite.qwenvl.errors import UnreadableReply
from qwen_vl_suite.qwenvl.replies import clock
from qwen_vl_suite.qwenvl.replies.events import read_events

CUT, FRY = "A person cuts meat.", "They fry it."
BOTH = [(0.0, 21.8, CUT), (83.9, 95.6, FRY)]
OBJECTS = json.dumps(
    [
        {"start_time": "00:00.00", "end_time": "00:21.80", "description": CUT},
        {"start_time": "01:23.90", "end_time": "01:35.60", "description": FRY},
    ],
    indent=4,
)
KEYED = f'{{\n    "00:00.00 - 00:21.80": "{CUT}",\n    "01:23.90 - 01:35.60": "{FRY}"\n}}'

FORMS = {
    "a list of objects, as of Qwen2.5-VL": (f"```json\n{OBJECTS}\n```", BOTH),
    "an object keyed by ranges, as of Qwen3-VL": (KEYED, BOTH),
    "keyed by ranges, with objects": (
        '{"0:00 - 0:05": {"description": "A dog runs", "n": 3}}',
        [(0, 5, "A dog runs")],
    ),
    "keyed by labels": (
        '{"A dog runs": "0:00 - 0:05", "it barks": [[7, 8], [9, 10]]}',
        [(0, 5, "A dog runs"), (7, 8, "it barks"), (9, 10, "it barks")],
    ),
    "keyed by labels, with objects": (
        '{"A dog runs": {"start": 0, "end": 5}}',
        [(0, 5, "A dog runs")],
    ),
    "numbers of seconds": (
        '[{"start": 0, "end": 21.8, "label": "A person cuts meat."}, '
        '{"start": 83.9, "end": 95.6, "label": "They fry it."}]',
        BOTH,
    ),
    "seconds with a unit": (
        '[{"start": "0.0s", "end": "21.8 seconds", "event": "A person cuts meat."}]',
        BOTH[:1],
    ),
    "hours": (
        '[{"start": "01:02:03.5", "end": "1:02:04", "label": "x"}]',
        [(3723.5, 3724, "x")],
    ),
    "subtitles' commas": (
        '[{"start": "00:00:01,500", "end": "00:00:02,000", "label": "x"}]',
        [(1.5, 2, "x")],
    ),
    "timestamps as the model sees them": (
        '[{"start": "<0.5 seconds>", "end": "<2.0 seconds>", "label": "x"}]',
        [(0.5, 2, "x")],
    ),
    "a range as a member": (
        '[{"timestamp": "00:01 - 00:02", "caption": "x"}, {"time_range": [3, 4], "label": "y"}]',
        [(1, 2, "x"), (3, 4, "y")],
    ),
    "two lists, under a name": (
        '{"video": "v", "events": [{"segment": ["0:01", "0:02"], "sentence": "x"}]}',
        [(1, 2, "x")],
    ),
    "a duration": ('[{"start": 3, "duration": 1.5, "label": "x"}]', [(3, 4.5, "x")]),
    "a moment": ('[{"time": "00:12", "event": "x"}]', [(12, None, "x")]),
    "bare lists": ('[[0, 5.2, "x"], ["y", "0:06", "0:07"]]', [(0, 5.2, "x"), (6, 7, "y")]),
    "a bare pair": ("[[64.0, 72.0]]", [(64, 72, "cat")]),
    "doubled braces": (
        '{{"start": 1, "end": 2, "label": "x"}}',
        [(1, 2, "x")],
    ),
    "a list that was cut": (
        OBJECTS[: OBJECTS.index("01:35")],
        BOTH[:1],
    ),
    "keyed by ranges and cut": (KEYED[: KEYED.index(".60")], BOTH[:1]),
    "said twice": (f"{KEYED}\n{KEYED}", BOTH),
    "lines": (
        f"0.0 - 21.8 seconds: {CUT}\n83.9 - 95.6 seconds: {FRY}",
        BOTH,
    ),
    "lines of numbers alone": ("0.0 - 5.2: x\n5.2 - 8: y", [(0, 5.2, "x"), (5.2, 8, "y")]),
    "a numbered list": (
        "The events:\n\n1. **00:01 – 00:05**: The dog runs\n2. **00:07 – 00:09**: It barks",
        [(1, 5, "The dog runs"), (7, 9, "It barks")],
    ),
    "bullets": (
        "- From 3 to 5 seconds, a man jumps\n- From 7s to 9s, he falls",
        [(3, 5, "a man jumps"), (7, 9, "he falls")],
    ),
    "brackets": ("[0.0, 5.2] x\n[00:06 --> 00:07] y", [(0, 5.2, "x"), (6, 7, "y")]),
    "timestamps in lines": (
        "<0.5 seconds> - <2.0 seconds>: x\n<3.5 seconds>-<4.0 seconds> y",
        [(0.5, 2, "x"), (3.5, 4, "y")],
    ),
    "single timestamps": ("<0.5 seconds> x\n<2.0 seconds> y", [(0.5, None, "x"), (2, None, "y")]),
    "chapters": ("0:00 Intro\n1:05 Main part", [(0, None, "Intro"), (65, None, "Main part")]),
    "subtitles": (
        "1\n00:00:01,000 --> 00:00:02,500\nA cat sits\n\n2\n00:00:03,000 --> 00:00:04,000\nIt runs",
        [(1, 2.5, "cat"), (3, 4, "cat")],
    ),
    "named": (
        "Start: 0.5s\nEnd: 2.0s\nstart_time=3, end_time=4",
        [(0.5, 2, "cat"), (3, 4, "cat")],
    ),
    "attributes": (
        '<event start="1.0" end="2.5">A cat</event>',
        [(1, 2.5, "cat")],
    ),
    "a table": (
        "| Start | End | Event |\n|---|---|---|\n| 00:01 | 00:05 | x |\n| 0:06 | 0:07 | y |",
        [(1, 5, "x"), (6, 7, "y")],
    ),
    "a sentence": ("The given query happens in 64.0 - 72.0 seconds.", [(64, 72, "cat")]),
    "a sentence with clock times": (
        'The event "other vehicle" occurs at 00:01.00 - 00:06.00 in the video.',
        [(1, 6, "cat")],
    ),
    "units in words": (
        "It happens between 1 minute and 5 seconds and 1 min 7 s.",
        [(65, 67, "cat")],
    ),
    "Chinese": ("第3秒到第5秒：狗在跑", [(3, 5, "狗在跑")]),
    "a thought first": (f"<think>0:50 - 0:55?</think>{KEYED}", BOTH),
    "none in words": ("The event does not occur in the video.", []),
    "none as JSON": ('```json\n{"events": []}\n```', []),
    "an empty list": ("[]", []),
}


@pytest.mark.parametrize("name", FORMS)
def test_reads(name):
    reply, expected = FORMS[name]
    found = read_events(reply, "cat", cut="cut" in name)
    assert [(item.start, item.end, item.label) for item in found] == expected


@pytest.mark.parametrize(
    "reply",
    [
        "There are 2-3 people: a man and two children.",
        "In 1990 - 1995 the tower was built.",
        "A dog runs over the grass, then barks.",
        "",
        '[{"start_time": "00:1',
    ],
)
def test_what_is_no_time_is_not_taken_for_one(reply):
    with pytest.raises(UnreadableReply):
        read_events(reply)


def test_a_number_beyond_any_float_is_no_time():
    assert clock.seconds(int("9" * 400)) is None
    assert [item.start for item in read_events(f'[{{"start": {"9" * 400}}}, [1, 2]]')] == [1]


@pytest.mark.parametrize("text", ["0:01" + " " * 100_000 + "x", "start: 1" + "*" * 100_000])
def test_long_runs_are_read_in_linear_time(text):
    """In quadratic time this would not end."""
    assert clock.ranges(text) == []
    (item,) = read_events("0:01 - 0:02 a" + " ," * 50_000 + "b")
    assert (item.start, item.end) == (1, 2)


def test_a_line_after_its_time():
    reply = "00:00:01,000 --> 00:00:02,500\nA cat sits"
    assert read_events(reply)[0].label == "A cat sits"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (12, 12), (12.5, 12.5), ("12.5", 12.5), ("12.5s", 12.5), ("12 sec", 12), ("1:30", 90),
        ("01:30.25", 90.25), ("1:00:00", 3600), ("1h 2m 3s", 3723), ("2 minutes", 120),
        ("<0.5 seconds>", 0.5), ("12秒", 12), ("1分20秒", 80), ("-3", -3), (True, None),
        ("1.5x", None), ("frame 12", None), ("", None), (None, None), (float("nan"), None),
    ],
)  # fmt: skip
def test_seconds(written, expected):
    assert clock.seconds(written) == expected
