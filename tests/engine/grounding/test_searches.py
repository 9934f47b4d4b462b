"""Searches: what is shown to the model of one picture, and what comes of its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.grounding import Search, queries, search
from qwen_vl_suite.qwenvl.grounding.regions import Region, of_boxes, of_mask
from qwen_vl_suite.qwenvl.run import Query, answer_all
from qwen_vl_suite.qwenvl.types import Box, Point, Request, Response, Result

Corners = tuple[float, float, float, float]
HEIGHT, WIDTH = 400, 600
# A picture whose pixels tell where they are: what the model is shown can be recognised.
X, Y = torch.meshgrid(torch.arange(WIDTH), torch.arange(HEIGHT), indexing="xy")
PICTURE = torch.stack([X // 4, Y // 4, X % 4 * 4 + Y % 4]).to(torch.uint8)


def place_of(request: Request) -> tuple[int, int, int, int]:
    """Which part of PICTURE a request shows."""
    (shown,) = request.images
    height, width = shown.shape[-2:]
    fours, rest = shown[:2, 0, 0].tolist(), int(shown[2, 0, 0])
    x, y = fours[0] * 4 + rest // 4, fours[1] * 4 + rest % 4
    return x, y, x + width, y + height


def seeing(*things: Corners, kind: str = "bbox_2d") -> Callable[[Request], str]:
    """A model that finds what it is shown of things at these places, cut at the edges."""

    def reply(request: Request) -> str:
        x1, y1, x2, y2 = place_of(request)
        found = []
        for left, top, right, bottom in things:
            sides = max(left, x1), max(top, y1), min(right, x2), min(bottom, y2)
            if sides[0] < sides[2] and sides[1] < sides[3]:
                scale = (1000 / (x2 - x1), 1000 / (y2 - y1))
                values = [(s - (x1, y1)[i % 2]) * scale[i % 2] for i, s in enumerate(sides)]
                if kind == "point_2d":
                    values = [(values[0] + values[2]) / 2, (values[1] + values[3]) / 2]
                found.append({kind: [round(v) for v in values], "label": "cat"})
        return json.dumps(found)

    return reply


def ask(
    backend: ScriptedBackend, how: Search, regions: Sequence[Region] | None = None, **settings: Any
) -> Result:
    how = how.within(regions)
    (found,) = answer_all(backend, [Query(how.task, PICTURE, method=how.method, **settings)])
    return found


def near(box: Box, corners: Corners, by: float = 1.5) -> bool:
    own = (box.x1, box.y1, box.x2, box.y2)
    return all(abs(a - b) <= by for a, b in zip(own, corners, strict=True))


def test_queries_are_lines() -> None:
    find = " red car,  dog \r\n\n,;\nthe person\ton the left\nred car, dog"
    assert queries(find) == ("red car, dog", "the person on the left")
    assert queries(" \n ") == ()


def test_one_line_takes_one_request_as_ever() -> None:
    how = search("cat, dog", max_count=3)
    assert how.method is None
    backend = ScriptedBackend(seeing((0, 0, 40, 40)))
    assert len(ask(backend, how).boxes) == 1 and backend.batches == [1]


def test_regions_are_shown_cut_out_and_enlarged_and_nothing_counts_outside() -> None:
    thing, outside = (220, 120, 260, 160), (191, 100, 207, 116)
    backend = ScriptedBackend(seeing(thing, outside))
    found = ask(backend, search("cat"), [Region((200, 100, 300, 200))])
    (request,) = backend.requests
    assert place_of(request) == (190, 90, 310, 210), "with a margin of a tenth"
    assert request.min_pixels == 1024 * 32 * 32
    (box,) = found.boxes
    assert near(box, thing)
    (told,) = json.loads(found.text)
    assert near(Box(*told["bbox_2d"]), thing, 2) and found.data[0]["bbox_2d"] == told["bbox_2d"]


def test_a_region_never_lifts_a_bound_on_what_the_model_sees() -> None:
    backend = ScriptedBackend(seeing())
    for settings, least in (({"max_pixels": 50_000}, 50_000), ({"min_pixels": 2**21}, 2**21)):
        ask(backend, search("cat"), [Region((200, 100, 300, 200))], **settings)
        assert backend.requests[-1].min_pixels == least
    backend.max_pixels = 70_000
    ask(backend, search("cat"), [Region((200, 100, 300, 200))])
    assert backend.requests[-1].min_pixels == 70_000


def test_each_region_is_asked_about_and_what_two_share_counts_once() -> None:
    thing = (240, 120, 280, 160)
    backend = ScriptedBackend(seeing(thing))
    areas = [(200, 100, 300, 200), (232, 100, 400, 200), (440, 300, 500, 360)]
    found = ask(backend, search("cat\ndog"), [Region(area) for area in areas])
    assert backend.batches == [6]
    assert [item["query"] for item in found.data] == ["cat", "dog"]
    assert all(near(box, thing) for box in found.boxes)


@pytest.mark.parametrize("regions", [[], [Region((700, 100, 800, 200))]])
def test_no_region_is_no_question_and_nothing_found(regions: list[Region]) -> None:
    backend, how = ScriptedBackend(seeing((0, 0, 40, 40))), search("cat\ndog")
    found = ask(backend, how, regions)
    assert (found.text, found.boxes, backend.batches) == ("[]", (), [])
    assert "no region" in found.notes[0] and how.counts(found) == {"cat": 0, "dog": 0}


def test_masks_and_boxes_as_regions() -> None:
    mask = torch.zeros(HEIGHT, WIDTH)
    assert of_mask(mask) == []
    mask[100:200, 300:400] = 1
    mask[100:150, 300:350] = 0.4
    (region,) = of_mask(mask)
    assert region.area == (300, 100, 400, 200)
    assert region.holds(Point(360, 120)) and not region.holds(Point(320, 120))
    assert region.holds(Box(340, 140, 400, 200)) and not region.holds(Box(300, 100, 360, 140))
    (region,) = of_boxes([Box(0.5, 0.5, 9.2, 9)])
    assert region.area == (0, 0, 10, 9)
    assert region.holds(Box(0, 0, 18, 9)) and not region.holds(Box(0, 0, 22, 9))


def test_tiles_show_small_things_and_each_thing_counts_once() -> None:
    things: list[Corners] = [
        (20, 20, 36, 36),  # in the corner of one tile
        (180, 172, 204, 190),  # over the edges of several, whole in one
        (300, 40, 320, 60),
        (80, 220, 560, 380),  # larger than a tile: whole in the picture alone
    ]
    backend = ScriptedBackend(seeing(*things))
    found = ask(backend, search("cat", tile=200))
    places = [place_of(request) for request in backend.requests]
    assert places[0] == (0, 0, WIDTH, HEIGHT) and len(places) == 13
    assert {(x2 - x1, y2 - y1) for x1, y1, x2, y2 in places[1:]} == {(200, 200)}
    assert backend.requests[0].min_pixels is None
    assert {request.min_pixels for request in backend.requests[1:]} == {1024 * 32 * 32}
    assert len(found.boxes) == len(things)
    for thing in things:
        assert sum(near(box, thing) for box in found.boxes) == 1, thing


def test_neighbours_of_one_label_and_twins_of_another_stay_apart() -> None:
    beside = [(40, 40, 80, 80), (76, 40, 116, 80)]
    backend = ScriptedBackend(seeing(*beside))
    assert len(ask(backend, search("cat", tile=200)).boxes) == 2
    both = ask(backend, search("cat\ndog", tile=200))
    assert search("cat\ndog").counts(both) == {"cat": 2, "dog": 2}


def test_a_part_whose_whole_no_tile_sees_is_kept() -> None:
    def reply(request: Request) -> str:
        at_the_edge = '[{"bbox_2d": [800, 100, 999, 300], "label": "cat"}]'
        return at_the_edge if place_of(request) == (0, 0, 200, 200) else "[]"

    (box,) = ask(ScriptedBackend(reply), search("cat", tile=200)).boxes
    assert near(box, (160, 20, 200, 60))


@pytest.mark.parametrize(("kind", "key"), [("boxes", "bbox_2d"), ("points", "point_2d")])
def test_a_tile_without_an_answer_decides_nothing(kind: str, key: str) -> None:
    thing = (168, 70, 180, 82)  # whole in the first two tiles, deeper in the second
    see = seeing(thing, kind=key)

    def reply(request: Request) -> str:
        return "What a day." if place_of(request) == (133, 0, 333, 200) else see(request)

    how = search("cat", kind, tile=200)
    found = ask(ScriptedBackend(reply), how, keep_unreadable=True)
    assert len(found.data) == 1 and "1 of " in found.notes[-1]


@pytest.mark.parametrize(("kind", "key"), [("boxes", "bbox_2d"), ("points", "point_2d")])
def test_a_tile_whose_reply_was_cut_decides_nothing(kind: str, key: str) -> None:
    # The first is whole in two tiles, deeper in that whose reply is cut; the second in that alone.
    see = seeing((168, 70, 180, 82), (225, 70, 237, 82), kind=key)

    def cut(text: str, request: Request) -> Any:
        if place_of(request) != (133, 0, 333, 200):
            return see(request)
        return Response(text or see(request), finish_reason="length")

    how = search("cat", kind, tile=200)
    found = ask(ScriptedBackend(partial(cut, "[]")), how)
    assert len(found.data) == (2 if kind == "boxes" else 1), "points have no view of the whole"
    found = ask(ScriptedBackend(partial(cut, "")), how)
    assert len(found.data) == 2, "what a cut list has is found, each thing once"


def test_a_threshold_is_of_what_all_views_have_found() -> None:
    thing, see = (168, 8, 180, 20), seeing((168, 8, 180, 20))

    def reply(request: Request) -> Reply:
        is_whole = place_of(request) == (0, 0, WIDTH, HEIGHT)
        return Reply(see(request), logprobs=-0.1 if is_whole else -1.5)

    (box,) = ask(ScriptedBackend(reply), search("cat", tile=200, min_score=0.5)).boxes
    assert near(box, thing) and box.score == pytest.approx(0.905, abs=0.001)
    (box,) = ask(ScriptedBackend(reply), search("cat", tile=200, scores=True)).boxes
    assert box.score == pytest.approx(0.223, abs=0.001), "the closest view decides"
    assert not ask(ScriptedBackend(reply), search("cat", tile=200, min_score=0.95)).boxes
    unscored = ask(ScriptedBackend(see), search("cat", tile=200, min_score=0.5))
    assert len(unscored.boxes) == 1 and "1 of 1 have no score" in unscored.notes[-1]


def test_points_of_tiles_count_once_and_need_no_whole_picture() -> None:
    things = [(20, 20, 36, 36), (160, 160, 176, 176), (590, 390, 600, 400)]
    backend = ScriptedBackend(seeing(*things, kind="point_2d"))
    found = ask(backend, search("cat", "points", tile=200))
    assert len(backend.requests) == 12
    middles = sorted((point.x, point.y) for point in found.points)
    for (x, y), middle in zip(middles, [(28, 28), (168, 168), (595, 395)], strict=True):
        assert (x, y) == pytest.approx(middle, abs=1)


def test_a_picture_no_larger_than_a_tile_is_asked_about_once() -> None:
    backend = ScriptedBackend(seeing((20, 20, 36, 36)))
    assert len(ask(backend, search("cat", tile=600)).boxes) == 1
    assert backend.batches == [1]


def test_max_count_is_of_what_is_left_after_merging() -> None:
    backend = ScriptedBackend(seeing((20, 20, 36, 36), (160, 150, 180, 170), (300, 40, 320, 60)))
    assert len(ask(backend, search("cat", max_count=2, tile=200)).boxes) == 2
    inside = [Region((290, 30, 330, 70))]
    (box,) = ask(backend, search("cat", max_count=1), inside).boxes
    assert near(box, (300, 40, 320, 60))


def scored(*replies: tuple[str, float]) -> ScriptedBackend:
    return ScriptedBackend([Reply(text, logprobs=logprob) for text, logprob in replies])


FIRST = '[{"bbox_2d": [500, 500, 600, 600], "label": "cat"}]'
AGAIN = '[{"bbox_2d": [300, 300, 720, 720], "label": "the cat"}, {"bbox_2d": [0, 0, 90, 90]}]'


def test_a_second_look_takes_the_box_that_the_model_is_surer_of() -> None:
    backend = scored((FIRST, -0.5), (AGAIN, -0.1))
    found = ask(backend, search("cats, dogs", look_again=True))
    assert backend.batches == [1, 1]
    again = backend.requests[1]
    assert '"cat"' in again.prompt, "what is looked for is the label"
    # 60 by 40 pixels with half of the longer side around.
    assert tuple(again.images[0].shape[-2:]) == (100, 120)
    (box,) = found.boxes
    assert near(box, (270 + 36, 170 + 30, 270 + 86.4, 170 + 72), 0.1)
    assert box.label == "cat" and box.score == pytest.approx(0.905, abs=0.001)
    (told,) = found.data
    assert told["bbox_2d"] == [306, 200, 357, 242] and told["score"] == round(box.score, 4)


@pytest.mark.parametrize(
    "second",
    [
        pytest.param((AGAIN, -0.9), id="less sure"),
        pytest.param(('[{"bbox_2d": [0, 0, 200, 200]}]', -0.1), id="another thing"),
        pytest.param(("None found.", -0.1), id="gone"),
        pytest.param(("What a lovely day it is.", -0.1), id="unreadable"),
    ],
)
def test_a_second_look_that_is_no_better_changes_nothing(second: tuple[str, float]) -> None:
    (box,) = ask(scored((FIRST, -0.5), second), search("cat", look_again=True)).boxes
    assert near(box, (300, 200, 360, 240)) and box.score == pytest.approx(0.607, abs=0.001)


def test_a_second_look_never_finds_one_thing_twice_nor_anything_outside() -> None:
    """Both boxes would move to the place of the second, surely."""
    two = '[{"bbox_2d": [500, 500, 600, 600], "label": "cat"}, '
    two += '{"bbox_2d": [560, 500, 660, 600], "label": "cat"}]'
    # 60 by 40 pixels with 30 around: in these crops, the second box's place.
    replies = [(two, -0.5), ('[{"bbox_2d": [500, 300, 1000, 700]}]', -0.1), ("None.", -0.1)]
    found = ask(scored(*replies), search("cat", look_again=True))
    assert near(found.boxes[0], (300, 200, 360, 240)), "it stays where it was"
    assert near(found.boxes[1], (336, 200, 396, 240))
    other = two.replace('"cat"}]', '"dog"}]')
    found = ask(scored((other, -0.5), *replies[1:]), search("cat, dog", look_again=True))
    assert near(found.boxes[0], (330, 200, 390, 240)), "of another label it is another thing"

    region = [Region((300, 200, 360, 240))]
    shown = '[{"bbox_2d": [100, 100, 900, 900], "label": "cat"}]'
    away = '[{"bbox_2d": [0, 0, 480, 480]}]'
    (box,) = ask(scored((shown, -0.5), (away, -0.1)), search("cat", look_again=True), region).boxes
    assert box.score == pytest.approx(0.607, abs=0.001), "the better one is outside the region"


def test_a_label_of_separators_alone_is_looked_for_by_its_query() -> None:
    odd = FIRST.replace('"cat"', '"，\\n,"')
    backend = scored((odd, -0.5), (AGAIN, -0.1))
    (box,) = ask(backend, search("cat", look_again=True)).boxes
    assert '"cat"' in backend.requests[1].prompt and box.score == pytest.approx(0.905, abs=0.001)


def test_without_probabilities_a_second_look_says_that_it_is_of_no_use() -> None:
    found = ask(ScriptedBackend([FIRST, AGAIN]), search("cat", look_again=True))
    assert near(found.boxes[0], (300, 200, 360, 240)) and "probabilities" in found.notes[-1]


def test_nothing_to_look_at_again() -> None:
    backend = ScriptedBackend("None found.")
    assert ask(backend, search("cat", look_again=True)).boxes == () and backend.batches == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 10}, "10 px are too small"),
        ({"tile": -1}, "-1 px"),
        ({"look_again": True, "kind": "points"}, "kind is points"),
        ({"tile": 200, "kind": "action"}, "whole screen"),
    ],
)
def test_what_cannot_be_done_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadOption, match=message):
        search("cat", **options)


def test_actions_have_no_regions_and_no_picture_has_a_thousand_tiles() -> None:
    with pytest.raises(BadOption, match="whole screen"):
        search("open it", "action").within([])
    big = torch.zeros(3, 2000, 2000, dtype=torch.uint8)
    how = search("cat", tile=64)
    with pytest.raises(BadOption, match=r"2000x2000.*larger tiles than 64"):
        answer_all(ScriptedBackend("x"), [Query(how.task, big, method=how.method)])
