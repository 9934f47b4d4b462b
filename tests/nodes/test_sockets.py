"""Results in the shapes that ComfyUI's own nodes read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.nodes import box_values, host, picking, sockets
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.media import images
from qwen_vl_suite.qwenvl.types import Box, Point, Result

SAID = {"type": "obj", "text": "", "desc": "", "palette": []}
PLACE = {"x": 1, "y": 2, "width": 3, "height": 4}
BOX = {**PLACE, "label": "cat", "metadata": {**SAID, "desc": "cat"}}


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        pytest.param(Box(1, 2, 4, 6, "cat"), BOX, id="whole pixels"),
        pytest.param(Box(1.9, 2.9, 3.1, 5.1, "cat"), BOX, id="rounded outwards"),
        pytest.param(
            Box(5.2, 5.2, 5.3, 5.3),
            {"x": 5, "y": 5, "width": 1, "height": 1, "label": "", "metadata": SAID},
            id="thin",
        ),
        pytest.param(Box(1, 2, 4, 6, "cat", 0.5), {**BOX, "score": 0.5}, id="a computed score"),
    ],
)
def test_bounding_box(box: Box, expected: dict[str, Any]) -> None:
    assert box_values.bounding_box(box) == expected


@given(st.integers(1, 300), st.integers(1, 300), st.lists(st.floats(0, 1), min_size=4, max_size=4))
def test_a_bounding_box_holds_its_box_and_stays_in_the_picture(
    width: int, height: int, share: list[float]
) -> None:
    x1, x2 = sorted((share[0] * width, share[1] * width))
    y1, y2 = sorted((share[2] * height, share[3] * height))
    if not (x1 < x2 and y1 < y2):
        return
    box = box_values.bounding_box(Box(x1, y1, x2, y2))
    assert 0 <= box["x"] <= x1 and x2 <= box["x"] + box["width"] <= width
    assert 0 <= box["y"] <= y1 and y2 <= box["y"] + box["height"] <= height
    assert box["width"] >= 1 and box["height"] >= 1
    assert all(isinstance(box[name], int) for name in ("x", "y", "width", "height"))


def test_one_list_a_picture_also_where_nothing_was_found() -> None:
    results = [Result("", boxes=(Box(1, 2, 4, 6, "cat"),)), Result(""), Result("")]
    assert box_values.bounding_boxes(results) == [[BOX], [], []]


def test_boxes_of_words_are_texts_for_cores_nodes() -> None:
    boxes = (Box(0, 0, 9, 9, "EXIT"), Box(0, 10, 9, 19, "table"))
    read = Result("", boxes=boxes, data=[{"text": "EXIT"}, {"text": ""}])
    ((first, second),) = box_values.bounding_boxes([read], read=True)
    assert first["metadata"] == {**SAID, "type": "text", "text": "EXIT"}
    assert second["metadata"] == {**SAID, "desc": "table"}
    assert [box["label"] for box in (first, second)] == ["EXIT", "table"]


def test_unreadable_is_not_nothing() -> None:
    found = json.loads(sockets.found_json(Result("I see a cat", error="unreadable")))
    assert found == {"unreadable": "I see a cat"}
    assert sockets.found_json(Result("[]")) == "[]"


def test_points_are_the_points_or_the_middles_of_boxes() -> None:
    boxes = (Box(0, 0, 10, 20, "a"), Box(10, 10, 11, 11, "b"))
    assert json.loads(box_values.points_json(Result("", boxes=boxes), (50, 50))) == [
        {"x": 5, "y": 10},
        {"x": 10, "y": 10},
    ]
    tip = Result("", points=(Point(3.7, 50, "tip"),))
    assert box_values.points_json(tip, (50, 50)) == '[{"x": 3, "y": 49}]'
    assert box_values.points_json(Result(""), (50, 50)) == "[]"


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
        pytest.param((BOX,), [[BOX], [BOX]], id="a tuple"),
        pytest.param([None, [BOX]], [[], [BOX]], id="nothing in one picture"),
        pytest.param(None, [[], []], id="no value"),
        pytest.param([(1, 2, 3, 4)], [[PLACE], [PLACE]], id="x, y, width, height"),
        pytest.param([[[1, 2, 3, 4]], []], [[PLACE], []], id="the same as lists, per picture"),
        pytest.param(np.array([[1, 2, 3, 4]]), [[PLACE], [PLACE]], id="an array"),
        pytest.param({**PLACE, "x": "1", "y": 2.0}, [[PLACE], [PLACE]], id="a number as text"),
        pytest.param(
            {"x": 4, "y": 6, "width": -3, "height": -4}, [[PLACE], [PLACE]], id="drawn backwards"
        ),
        pytest.param({**PLACE, "label": "cat"}, [[BOX], [BOX]], id="only a label"),
        pytest.param(
            {**PLACE, "metadata": {**SAID, "desc": "cat"}}, [[BOX], [BOX]], id="only metadata"
        ),
        pytest.param(
            {**BOX, "label": None, "score": math.nan}, [[BOX], [BOX]], id="a score of NaN"
        ),
        pytest.param({**BOX, "score": "high"}, [[BOX], [BOX]], id="a score in words"),
        pytest.param({**BOX, "metadata": None}, [[BOX], [BOX]], id="metadata that is none"),
        pytest.param(
            {**PLACE, "label": 7},
            [[{**PLACE, "label": "7", "metadata": {**SAID, "desc": "7"}}]] * 2,
            id="a number as label",
        ),
    ],
)
def test_frames(value: Any, expected: Any) -> None:
    assert box_values.frames(value, 2, (30, 40)) == expected


def test_frames_that_do_not_pair_with_the_pictures() -> None:
    with pytest.raises(BadOption, match="boxes for 3 pictures, but 2 pictures"):
        box_values.frames([[BOX], [], []], 2, (30, 40))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        *(
            pytest.param([{**PLACE, name: bad}], f"Its {name} must be a number", id=f"{name} {bad}")
            for name in PLACE
            for bad in (math.nan, math.inf, None, "wide", 10**400, [1], 1e300)
        ),
        pytest.param([[PLACE, {"x": 1}]], "Its y must be a number", id="keys that are missing"),
        pytest.param("[]", "A box is a dict", id="text"),
        pytest.param(7, "A box is a dict", id="a number"),
        pytest.param([[BOX], "cat"], "A box is a dict", id="a word for a list"),
        pytest.param([["cat"]], "A box is a dict", id="a word for a box"),
        pytest.param([[BOX, None]], "A box is a dict", id="no value for a box"),
        pytest.param([[[[BOX]]]], "A box is a dict", id="too deep"),
        pytest.param([(1, 2, 3)], "A box is a dict", id="three numbers"),
        pytest.param([("a", 2, 3, 4)], "A box is a dict", id="four, not all numbers"),
    ],
)
def test_what_is_no_box_is_refused_by_name(value: Any, message: str) -> None:
    with pytest.raises(BadOption, match=message):
        box_values.frames(value, 1, (30, 40))


odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=4),
    st.sampled_from([10**400, "1e3", "nan", b"1"]),
)
names = st.sampled_from([*PLACE, "label", "score", "metadata", "text", "desc", "type"])
some_box = st.builds(lambda more: {**PLACE, **more}, st.dictionaries(names, odd, max_size=3))
anything = st.recursive(
    st.one_of(odd, some_box, st.tuples(odd, odd, odd, odd)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(names, inner, max_size=6),
        st.lists(inner, max_size=3).map(tuple),
    ),
    max_leaves=12,
)


@given(anything, st.sampled_from([(30, 40), picking.ENDLESS]))
def test_whatever_comes_as_boxes_is_read_or_refused(value: Any, size: tuple[int, int]) -> None:
    try:
        count = len(box_values.batch_of(value))
        found = box_values.frames(value, count, size)
    except BadOption:
        return
    for box in (box for frame in found for box in frame):
        left, top, wide, high = (box[name] for name in PLACE)
        assert all(type(side) is int for side in (left, top, wide, high))
        assert 0 <= left < left + wide <= size[1] and 0 <= top < top + high <= size[0]
    rules = [picking.Rule(order=order, padding=3) for order in picking.ORDERS]
    for rule in rules:
        for item in picking.pick(found, rule, "", size):
            json.dumps(item.boxes, allow_nan=False, default=str)
            assert all(isinstance(picking.engine_box(box).label, str) for box in item.boxes)


def test_what_a_mask_hides_is_white_for_the_model(pictures: torch.Tensor) -> None:
    mask = torch.zeros(1, 50, 100)
    mask[:, :25] = 1
    seen = images.pictures(sockets.without_hidden(pictures, mask))
    plain = images.pictures(pictures)
    for shown, before in zip(seen, plain, strict=True):
        assert (shown[:, :49] == 255).all()
        assert torch.equal(shown[:, 51:], before[:, 51:])


@pytest.mark.parametrize(
    "mask",
    [
        pytest.param(None, id="not connected"),
        pytest.param(torch.zeros(1, 64, 64), id="of a picture without alpha"),
    ],
)
def test_a_mask_that_hides_nothing_changes_nothing(pictures: torch.Tensor, mask: Any) -> None:
    assert sockets.without_hidden(pictures, mask) is pictures


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.uint8])
def test_a_mask_goes_with_every_kind_of_picture(channels: int, dtype: torch.dtype) -> None:
    image = torch.full((3, 8, 8, channels), 255 if dtype == torch.uint8 else 1).to(dtype)
    image[..., 0] = 0
    masks = torch.stack([torch.zeros(8, 8), torch.ones(8, 8)])
    first, second, third = images.pictures(sockets.without_hidden(image, masks))
    assert (first[0] == 0).all() and torch.equal(first, third), "fewer masks are repeated"
    assert (second == 255).all()


def test_a_mask_of_nan_is_refused(pictures: torch.Tensor) -> None:
    with pytest.raises(BadOption, match="mask holds NaN"):
        sockets.without_hidden(pictures, torch.full((1, 8, 8), math.nan))


def test_masks_and_annotated_have_the_batch_of_the_pictures(pictures: torch.Tensor) -> None:
    results = [Result("", boxes=(Box(0, 0, 50, 50, "a"),)), Result(""), Result("")]
    masks = box_values.masks(pictures, results)
    assert masks.shape == (3, 100, 200)
    assert masks.sum((1, 2)).tolist() == [2500, 0, 0]
    drawn = box_values.annotated(pictures, results)
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


HALVES = {
    "label": {"label": "cat \ud83d"},
    "metadata": {"metadata": {"type": "obj", "desc": "cat \ud83d"}},
}


@pytest.mark.parametrize("named", HALVES.values(), ids=HALVES)
def test_labels_from_other_nodes_can_be_saved(named):
    box = {"x": 1, "y": 2, "width": 3, "height": 4, **named}
    assert box_values.label_of(box) == "cat \ufffd"
    ((found,),) = box_values.frames([[box]], 1, (10, 10))
    assert found["label"] == "cat \ufffd"
    assert sockets.words("half \ud83d") == "half \ufffd"
