"""Tracking: one thing followed across the frames of a video, and the segments of dense captions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import videos
from footages import watched
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.media.frame_times import FrameChoice
from qwen_vl_suite.qwenvl.media.video_files import Clip
from qwen_vl_suite.qwenvl.tasks.describe_video import describe_video
from qwen_vl_suite.qwenvl.types import Box, Event, Image, Request
from qwen_vl_suite.qwenvl.watching import Captions, FileFootage, FrameFootage, Track
from qwen_vl_suite.qwenvl.watching.dense import equal_segments, scene_segments, timestamp
from qwen_vl_suite.qwenvl.watching.linking import MOST_BOXES, linked, overlap


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds, 12 frames each, that show their numbers; 64 by 96 pixels."""
    path: Path = videos.write(tmp_path_factory.mktemp("clips") / "clip.mp4", frames=48, rate=12)
    return path


def located(boxes: dict[int, list[list[int]]]) -> Callable[[Request], str]:
    """Replies about frames that show their numbers, in the 0-1000 of Qwen3-VL."""

    def reply(request: Request) -> str:
        (part,) = request.media
        assert isinstance(part, Image)
        found = boxes.get(videos.number_of(part.pixels), [])
        return json.dumps([{"bbox_2d": box, "label": "dog"} for box in found])

    return reply


def test_one_thing_is_followed_and_gaps_are_filled(clip: Path) -> None:
    replies = located(
        {
            0: [[100, 100, 300, 300]],
            # 12 has none
            24: [[700, 700, 900, 900], [300, 100, 500, 300]],  # the second moves less
            36: [[400, 100, 600, 300], [700, 700, 900, 900]],
        }
    )
    footage = FileFootage(Clip(clip))
    (result,), backend = watched(
        replies, Track("the dog"), [footage], choice=FrameChoice("every", 1.0)
    )
    assert backend.batches == [4]
    assert [entry["source"] for entry in result.data] == ["seen", "interpolated", "seen", "seen"]
    assert [entry["time"] for entry in result.data] == [0, 1, 2, 3]
    first, second, third, fourth = (boxes[0] for boxes in result.frame_boxes)
    assert (first.x1, first.y2) == pytest.approx((9.6, 19.2))  # of 96 by 64 pixels
    half_way = (second.x1, second.y1, second.x2, second.y2)
    assert half_way == pytest.approx((19.2, 6.4, 38.4, 19.2)) and second.label == "dog"
    assert (third.x1, fourth.x1) == pytest.approx((28.8, 38.4))
    assert result.events == (Event(0, 3, "the dog"),)
    told = " ".join(result.notes)
    assert "1 of 4 boxes are interpolated" in told and "In 2 of 4 frames several" in told


def test_gaps_can_be_left(clip: Path) -> None:
    replies = located({12: [[0, 0, 500, 500]], 36: [[0, 0, 500, 500]]})
    (result,), _ = watched(
        replies,
        Track("dog", gaps="leave"),
        [FileFootage(Clip(clip))],
        choice=FrameChoice("every", 1.0),
    )
    assert [len(boxes) for boxes in result.frame_boxes] == [0, 1, 0, 1]
    assert result.data[0]["bbox_2d"] is None and result.data[0]["source"] == "missing"
    assert result.events == (Event(1, 2, "dog"), Event(3, 3, "dog"))
    with pytest.raises(BadOption, match="gaps"):
        Track("dog", gaps="guess")


def test_a_frame_that_fails_costs_only_itself(clip: Path) -> None:
    box = '[{"bbox_2d": [0, 0, 500, 500], "label": "dog"}]'
    (result,), _ = watched(
        [box, BadOption("no"), box, "Well ..."],
        Track("dog"),
        [FileFootage(Clip(clip))],
        choice=FrameChoice("every", 1.0),
    )
    sources = [entry["source"] for entry in result.data]
    assert sources == ["seen", "interpolated", "seen", "unreadable"]
    assert "2 of 4 frames have no reply" in " ".join(result.notes)


def test_linking_prefers_the_path_that_moves_least() -> None:
    still, far = Box(0, 0, 10, 10), Box(80, 80, 90, 90)
    moving = [Box(x, 0, x + 10, 10) for x in (2, 4, 6)]
    frames = [[far, still], [moving[0]], [], [far, moving[1]], [moving[2], far]]
    assert linked(frames) == [1, 0, None, 1, 0]
    assert linked([[], []]) == [None, None]
    assert linked([[still, far]]) == [0]
    point = Box(5, 5, 5, 5)
    assert overlap(point, point) == 0.0 and linked([[point], [far, point]]) == [0, 1]


def test_linking_is_bounded_and_can_be_stopped() -> None:
    here, far = Box(0, 0, 5, 5), [Box(50, 50, 60, 60)]
    calls: list[None] = []
    last = [*far * (MOST_BOXES - 1), here, *far * 200]
    assert linked([[here], last], lambda: calls.append(None)) == [0, MOST_BOXES - 1]
    assert linked([[here], [*far, *last]]) == [0, 0], "one further on is not looked at"
    assert len(calls) == 1


def test_frames_need_a_rate() -> None:
    with pytest.raises(BadOption, match="fps"):
        FrameFootage(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 0)


def test_segments() -> None:
    assert equal_segments(25, 10) == [(0, 10), (10, 20), (20, 25)]
    assert equal_segments(24, 10) == [(0, 10), (10, 24)]
    assert equal_segments(3, 10) == [(0, 3)]
    assert scene_segments(100, [0.4, 20, 99.8]) == [(0, 20), (20, 60), (60, 100)]
    with pytest.raises(BadOption, match="segments"):
        equal_segments(86_400, 0.1)
    with pytest.raises(BadOption, match="0 \\(a segment a scene\\)"):
        Captions(describe_video(), -1)
    assert [timestamp(3.21), timestamp(3725)] == ["00:03.2", "1:02:05.0"]
