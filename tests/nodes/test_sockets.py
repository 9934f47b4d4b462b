"""Results in the shapes that ComfyUI's own nodes read."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.nodes import host, sockets
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.types import Box, Point, Result

BOX = {"x": 1, "y": 2, "width": 3, "height": 4, "label": "cat"}


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param(Box(1, 2, 4, 6, "cat"), BOX, id="whole pixels"),
        pytest.param(Box(1.9, 2.9, 3.1, 5.1, "cat"), BOX, id="rounded outwards"),
        pytest.param(
            Box(5.2, 5.2, 5.3, 5.3),
            {"x": 5, "y": 5, "width": 1, "height": 1, "label": ""},
            id="thin",
        ),
        pytest.param(Box(1, 2, 4, 6, "cat", 0.5), {**BOX, "score": 0.5}, id="a computed score"),
    ],
)
def test_bounding_box(box: Box, expected: dict[str, Any]) -> None:
    assert sockets.bounding_box(box) == expected


@given(st.integers(1, 300), st.integers(1, 300), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_bounding_box_holds_its_box_and_stays_in_the_picture(
    width: int, height: int, share: list[float]
) -> None:
    x1, x2 = sorted((share[0] * width, share[1] * width))
    y1, y2 = sorted((share[2] * height, share[3] * height))
    if not (x1 < x2 and y1 < y2):
        return
    box = sockets.bounding_box(Box(x1, y1, x2, y2))
    assert 0 <= box["x"] <= x1 and x2 <= box["x"] + box["width"] <= width
    assert 0 <= box["y"] <= y1 and y2 <= box["y"] + box["height"] <= height
    assert box["width"] >= 1 and box["height"] >= 1
    assert all(isinstance(box[name], int) for name in ("x", "y", "width", "height"))


def test_one_list_a_picture_also_where_nothing_was_found() -> None:
    results = [Result("", boxes=(Box(1, 2, 4, 6, "cat"),)), Result(""), Result("")]
    assert sockets.bounding_boxes(results) == [[BOX], [], []]


def test_unreadable_is_not_nothing() -> None:
    found = json.loads(sockets.found_json(Result("I see a cat", error="unreadable")))
    assert found == {"unreadable": "I see a cat"}
    assert sockets.found_json(Result("[]")) == "[]"


def test_points_are_the_points_or_the_middles_of_boxes() -> None:
    boxes = (Box(0, 0, 10, 20, "a"), Box(10, 10, 11, 11, "b"))
    assert json.loads(sockets.points_json(Result("", boxes=boxes), (50, 50))) == [
        {"x": 5, "y": 10},
        {"x": 10, "y": 10},
    ]
    tip = Result("", points=(Point(3.7, 50, "tip"),))
    assert sockets.points_json(tip, (50, 50)) == '[{"x": 3, "y": 49}]'
    assert sockets.points_json(Result(""), (50, 50)) == "[]"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(BOX, [[BOX], [BOX]], id="one dict holds for every picture"),
        pytest.param([BOX], [[BOX], [BOX]], id="so does a flat list"),
        pytest.param([[BOX], []], [[BOX], []], id="a list per picture"),
        pytest.param([[BOX]], [[BOX], [BOX]], id="one list for several pictures"),
        pytest.param([], [[], []], id="nothing"),
        pytest.param(
            [[{"x": 0.4, "y": -3.0, "width": 2.2, "height": 5}], []],
            [[{"x": 0, "y": 0, "width": 3, "height": 2}], []],
            id="fractions and what sticks out",
        ),
        pytest.param(
            [[{"x": 50, "y": 0, "width": 5, "height": 5}, BOX], []],
            [[BOX], []],
            id="wholly outside",
        ),
    ],
)
def test_frames(value: Any, expected: Any) -> None:
    assert sockets.frames(value, 2, (30, 40)) == expected


def test_frames_that_do_not_pair_with_the_pictures() -> None:
    with pytest.raises(BadOption, match="boxes for 3 pictures, but 2 pictures"):
        sockets.frames([[BOX], [], []], 2, (30, 40))


def test_masks_and_annotated_have_the_batch_of_the_pictures(pictures: torch.Tensor) -> None:
    results = [Result("", boxes=(Box(0, 0, 50, 50, "a"),)), Result(""), Result("")]
    masks = sockets.masks(pictures, results)
    assert masks.shape == (3, 100, 200)
    assert masks.sum((1, 2)).tolist() == [2500, 0, 0]
    drawn = sockets.annotated(pictures, results)
    assert drawn.shape == (3, 100, 200, 3)
    assert drawn.dtype == torch.float32
    changed = (drawn - pictures).abs().amax((1, 2, 3))
    assert changed[0] > 0.1
    assert changed[1:].max() <= 0.5 / 255 + 1e-6


@pytest.mark.parametrize("node", ["QVL_Grounding", "QVL_OCR"])
def test_a_stop_is_heard_while_labels_are_drawn(
    node: str,
    run_node: Callable[..., Any],
    scripted: Any,
    pictures: torch.Tensor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    key = "text_content" if node == "QVL_OCR" else "label"
    model, _ = scripted(json.dumps([{"bbox_2d": [100, 100, 500, 500], key: "a"}]))
    options = {"find": "a"} if node == "QVL_Grounding" else {"output": "lines"}
    run_node(node, model=model, images=pictures[:1], **options)
    monkeypatch.setattr(host, "check_interrupt", stop)
    with pytest.raises(Stop):
        run_node(node, model=model, images=pictures[:1], **options)
