"""Pick Boxes: what is kept, and that a switched-off box is never another box."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from qwen_vl_suite.nodes import host, picking
from qwen_vl_suite.nodes.host import overlay
from qwen_vl_suite.nodes.picking import Rule, identity, padded, selected
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.types import Box, Point, Result

Run = Callable[..., tuple[Any, ...]]
HEIGHT, WIDTH = 100, 200  # of the pictures


def box(x: int, y: int, width: int, height: int, label: str = "", **more: Any) -> dict[str, Any]:
    said = {"type": "obj", "text": "", "desc": label, "palette": []}
    place = {"x": x, "y": y, "width": width, "height": height}
    return {**place, "label": label, **({"metadata": said} if label else {}), **more}


CAT = box(20, 10, 80, 40, "cat", score=0.5)
DOG = box(10, 50, 20, 20, "dog")
RED_CAR = box(150, 0, 50, 100, "red car", score=0.9)
FOUND = [CAT, DOG, RED_CAR]


def off(*boxes: dict[str, Any], picture: int = 0) -> str:
    """As the page writes it."""
    names = ("x", "y", "width", "height", "label")
    return json.dumps(
        [{"picture": picture, **{name: item[name] for name in names}} for item in boxes]
    )


@st.composite
def frames(draw: Any) -> list[dict[str, Any]]:
    """Whole boxes inside the picture; few places and labels, so that equal ones come up."""
    found = []
    for _ in range(draw(st.integers(0, 8))):
        x, y = draw(st.integers(0, WIDTH - 1)), draw(st.integers(0, HEIGHT - 1))
        width, height = draw(st.integers(1, WIDTH - x)), draw(st.integers(1, HEIGHT - y))
        label = draw(st.sampled_from(["cat", "Dog", "red car", "", "[x] *?"]))
        score = draw(st.sampled_from([{}, {"score": None}, {"score": 0.5}, {"score": 0.9}]))
        found.append(box(x, y, width, height, label, **score))
    return found


rules = st.builds(
    Rule,
    labels=st.sampled_from(["", "cat", "CAT, dog", "*", "red *", "[x]*", " , "]),
    order=st.sampled_from(list(picking.ORDERS)),
    max_count=st.integers(0, 5),
    min_size=st.integers(0, 60),
    padding=st.integers(0, 300),
    unit=st.sampled_from([picking.PIXELS, picking.PERCENT]),
)


@given(frames(), rules, st.data())
def test_filtering_never_invents_a_box_and_keeps_ties_in_order(
    found: list[dict[str, Any]], rule: Rule, data: Any
) -> None:
    places = selected(found, rule)
    assert len(set(places)) == len(places) and set(places) <= set(range(len(found)))
    assert len(places) <= (rule.max_count or len(found))
    key = picking.ORDERS[rule.order]
    ranks = [(key(found[place]), place) for place in places]
    assert ranks == sorted(ranks)


@given(frames(), frames(), rules)
def test_a_switched_off_box_matches_only_itself(
    found: list[dict[str, Any]], others: list[dict[str, Any]], rule: Rule
) -> None:
    unlimited = Rule(rule.labels, rule.order, 0, rule.min_size)
    gone = {identity(item) for item in others}
    kept = selected(found, unlimited, gone)
    assert kept == [
        place for place in selected(found, unlimited) if identity(found[place]) not in gone
    ]


@given(frames(), rules)
def test_padding_holds_the_box_and_stays_in_the_picture(
    found: list[dict[str, Any]], rule: Rule
) -> None:
    for item in found:
        wide = padded(item, rule, (HEIGHT, WIDTH))
        assert 0 <= wide["x"] <= item["x"] and 0 <= wide["y"] <= item["y"]
        right, bottom = wide["x"] + wide["width"], wide["y"] + wide["height"]
        assert item["x"] + item["width"] <= right <= WIDTH
        assert item["y"] + item["height"] <= bottom <= HEIGHT
        assert all(type(wide[name]) is int for name in ("x", "y", "width", "height"))
        assert {**wide, **item} == item


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        pytest.param({}, FOUND, id="all"),
        pytest.param({"labels": "Cat"}, [CAT], id="label, any case"),
        pytest.param({"labels": "car"}, [], id="part of a label is not the label"),
        pytest.param({"labels": "*car, dog"}, [DOG, RED_CAR], id="star, several"),
        pytest.param({"min_size": 21}, [CAT, RED_CAR], id="shorter side"),
        pytest.param({"order": "left to right"}, [DOG, CAT, RED_CAR], id="left to right"),
        pytest.param({"order": "top to bottom"}, [RED_CAR, CAT, DOG], id="top to bottom"),
        pytest.param({"order": "largest first"}, [RED_CAR, CAT, DOG], id="largest first"),
        pytest.param({"order": "best score first"}, [RED_CAR, CAT, DOG], id="best score first"),
        pytest.param({"order": "largest first", "max_count": 1}, [RED_CAR], id="the largest"),
        pytest.param({"off": off(DOG)}, [CAT, RED_CAR], id="switched off"),
        pytest.param({"off": off(DOG, picture=1)}, FOUND, id="switched off in another picture"),
        pytest.param({"off": off({**DOG, "x": 11})}, FOUND, id="another place"),
        pytest.param({"off": off({**DOG, "label": "cat"})}, FOUND, id="another label"),
    ],
)
def test_what_is_kept(run_node: Run, rule: dict[str, Any], expected: list[Any]) -> None:
    (bboxes,), _, _, labels, count, *_ = run_node("QVL_PickBoxes", bboxes=[FOUND], **rule)
    assert bboxes == [expected]
    assert labels == [", ".join(item["label"] for item in expected)]
    assert count == [len(expected)]


def test_a_picture_without_a_batch_is_one(run_node: Run, pictures: torch.Tensor) -> None:
    bboxes, single, mask, *_ = run_node("QVL_PickBoxes", bboxes=[DOG], images=pictures[0])
    assert bboxes == [[[DOG]]] and len(single) == 1
    assert mask[0].shape == (1, HEIGHT, WIDTH)


def test_one_result_a_picture(run_node: Run, pictures: torch.Tensor) -> None:
    (bboxes,), single, (mask,), labels, count, *_ = run_node(
        "QVL_PickBoxes",
        bboxes=[FOUND, [], [DOG]],
        images=pictures,
        order="largest first",
        index=-1,
        when_empty="whole picture",
    )
    place = {"x": 10, "y": 50, "width": 20, "height": 20}
    assert bboxes == [[RED_CAR, CAT, DOG], [], [DOG]]
    assert single == [place, {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}, place]
    assert mask.shape == (3, HEIGHT, WIDTH)
    assert mask.sum((1, 2)).tolist() == [5000 + 3200 + 400, 0, 400]
    assert labels == ["red car, cat, dog", "", "dog"]
    assert count == [3, 0, 1]


def test_one_crop_a_kept_box_of_all_pictures_in_order(
    run_node: Run, pictures: torch.Tensor
) -> None:
    (bboxes,), *_, crops, names = run_node(
        "QVL_PickBoxes",
        bboxes=[FOUND, [], [DOG]],
        images=pictures,
        order="largest first",
        padding=5,
    )
    assert names == ["red car", "cat", "dog", "dog"]
    kept = [
        (picture, box) for picture, boxes in zip(pictures, bboxes, strict=True) for box in boxes
    ]
    assert len(crops) == len(kept) == 4
    for found, (picture, box) in zip(crops, kept, strict=True):
        right, bottom = box["x"] + box["width"], box["y"] + box["height"]
        assert torch.equal(found[0], picture[box["y"] : bottom, box["x"] : right])
    assert {tuple(found.shape[1:3]) for found in crops} >= {(30, 30), (50, 90)}


@pytest.mark.parametrize(
    ("cut", "size", "inside"),
    [
        pytest.param({"crop_padding": 10}, (60, 100), (0, 10), id="padding of the crop alone"),
        pytest.param({"crop_width": 40}, (25, 40), None, id="one side"),
        pytest.param({"crop_height": 100}, (100, 160), None, id="the other"),
        pytest.param({"crop_width": 80, "crop_height": 80}, (80, 80), (0, 20), id="more of it"),
        pytest.param(
            {"crop_width": 80, "crop_height": 80, "crop_fit": "bars"}, (80, 80), None, id="bars"
        ),
    ],
)
def test_crops_of_one_size_or_with_padding_of_their_own(
    run_node: Run, cut: dict[str, Any], size: tuple[int, int], inside: tuple[int, int] | None
) -> None:
    image = torch.rand(1, 100, 200, 3)
    box = {"x": 20, "y": 0, "width": 80, "height": 50}
    ((kept,),), *_, (found,), _ = run_node("QVL_PickBoxes", bboxes=[[box]], images=image, **cut)
    assert kept[0]["width"] == 80, "the boxes stay as they are"
    assert tuple(found.shape) == (1, *size, 3)
    if inside:  # nothing was scaled
        top, left = inside
        assert torch.allclose(found[0], image[0, top : top + size[0], left : left + size[1]])
    elif "crop_fit" in cut:
        assert not found[0, :14].any() and not found[0, -14:].any() and found[0, 40].any()


def test_a_crop_of_one_size_stays_in_a_picture_that_is_too_small(run_node: Run) -> None:
    image = torch.ones(1, 20, 200, 3)
    box = {"x": 190, "y": 5, "width": 10, "height": 10}
    *_, (found,), _ = run_node(
        "QVL_PickBoxes", bboxes=[[box]], images=image, crop_padding=20, crop_width=50,
        crop_height=50,
    )  # fmt: skip
    assert tuple(found.shape) == (1, 50, 50, 3)
    assert 0.3 < found.mean() < 0.75, "what is beyond the picture is black"


@pytest.mark.parametrize(("width", "height"), [(1, 1), (10, 10), (7, 30), (33, 2)])
@pytest.mark.parametrize(("wide", "high"), [(1024, 768), (768, 1024), (512, 512), (100, 640)])
def test_a_small_crop_has_no_black_edge_and_keeps_its_shape(
    run_node: Run, width: int, height: int, wide: int, high: int
) -> None:
    """Whole pixels of a small box seldom have the wanted shape."""
    image = torch.ones(1, 300, 400, 3)
    image[:, :, 200:, 0] = 0  # a straight edge at the box's left side
    box = {"x": 200, "y": 100, "width": width, "height": height}
    *_, (found,), _ = run_node(
        "QVL_PickBoxes", bboxes=[[box]], images=image, crop_width=wide, crop_height=high
    )
    assert tuple(found.shape) == (1, high, wide, 3)
    assert found[..., 1].min() > 0.99, "the picture goes to every edge"
    scale = max(min(wide / width, high / height), 1)
    red = (found[0, high // 2, :, 0] > 0.5).sum().item()
    expected = (wide - width * scale) / 2
    assert abs(red - expected) <= scale / 2 + 2, "the box is in the middle, as wide as it is high"


def test_nothing_is_cut_off_in_a_picture_that_is_a_pixel_too_narrow(run_node: Run) -> None:
    box = {"x": 0, "y": 0, "width": 1, "height": 40}
    *_, (found,), _ = run_node(
        "QVL_PickBoxes", bboxes=[[box]], images=torch.ones(1, 40, 1, 3), crop_width=20,
        crop_height=500,
    )  # fmt: skip
    assert found[0, 0, :, 0].tolist() == [0.0] * 4 + [1.0] * 12 + [0.0] * 4


def test_a_picture_without_a_box_has_no_crop_or_is_one(
    run_node: Run, monkeypatch: pytest.MonkeyPatch, pictures: torch.Tensor
) -> None:
    monkeypatch.setattr(host, "execution_blocker", lambda message: message)
    given = {"images": pictures[:2]}
    *_, crops, names = run_node("QVL_PickBoxes", bboxes=[[], [DOG]], **given)
    assert [tuple(found.shape) for found in crops] == [(1, 20, 20, 3)] and names == ["dog"]
    whole = {**given, "when_empty": "whole picture"}
    *_, crops, names = run_node("QVL_PickBoxes", bboxes=[[], [DOG]], **whole)
    assert torch.equal(crops[0], pictures[:1]) and names == ["", "dog"]
    *_, crops, names = run_node("QVL_PickBoxes", bboxes=[[], []], **given)
    assert "No box was kept" in crops and "No box was kept" in names


@pytest.mark.parametrize(
    ("unit", "padding", "expected"),
    [
        ("px", 10, {"x": 10, "y": 0, "width": 100, "height": 60}),
        ("% of the box", 50, {"x": 0, "y": 0, "width": 140, "height": 70}),
    ],
)
def test_padding(
    run_node: Run, pictures: torch.Tensor, unit: str, padding: int, expected: dict[str, int]
) -> None:
    ((kept,),), (single,), (mask,), *_ = run_node(
        "QVL_PickBoxes",
        bboxes=[[CAT]],
        images=pictures[:1],
        padding=padding,
        padding_unit=unit,
    )
    assert single == expected
    assert kept == [{**CAT, **expected}]
    assert mask.sum() == expected["width"] * expected["height"]


def test_boxes_of_other_nodes(run_node: Run) -> None:
    own = {"x": 1.5, "y": 2, "width": 3, "height": 4, "metadata": {"type": "obj"}}
    whole = {**own, "x": 1, "width": 4}
    for bboxes in (own, [own], [[own]]):
        assert run_node("QVL_PickBoxes", bboxes=bboxes)[0] == [[[whole]]]
    assert run_node("QVL_PickBoxes", bboxes=[])[0] == [[[]]]


def test_boxes_of_core_are_chosen_by_what_their_metadata_says(run_node: Run) -> None:
    place = {"x": 1, "y": 2, "width": 3, "height": 4}
    said = {"type": "text", "text": "EXIT", "desc": "a sign", "palette": ["#ff0000"]}
    sign = {**place, "metadata": said}
    cat = {**place, "metadata": {**said, "type": "obj", "text": "", "desc": "cat"}}
    (bboxes,), _, _, labels, *_ = run_node("QVL_PickBoxes", bboxes=[sign, cat])
    assert labels == ["EXIT, cat"]
    assert [box["metadata"] for box in bboxes[0]] == [said, cat["metadata"]]
    assert run_node("QVL_PickBoxes", bboxes=[sign, cat], labels="cat")[3] == ["cat"]


def test_several_lists_of_boxes_count_as_one(run_node: Run) -> None:
    """What was switched off in the second of two pictures that come as a list."""
    wide, small = torch.zeros(1, 100, 200, 3), torch.zeros(1, 80, 110, 3)
    bboxes, single, mask, labels, count, crops, names = run_node(
        "QVL_PickBoxes",
        lists={"bboxes": [[[CAT]], [[DOG, CAT]]], "images": [wide, small], "labels": ["*"]},
        off=off(CAT, picture=1),
    )
    assert bboxes == [[[CAT]], [[DOG]]]
    assert [tuple(found.shape) for found in mask] == [(1, 100, 200), (1, 80, 110)]
    assert (labels, names, count) == (["cat", "dog"], ["cat", "dog"], [1, 1])
    assert [tuple(found.shape) for found in crops] == [(1, 40, 80, 3), (1, 20, 20, 3)]
    assert [box["height"] for box in single] == [40, 20]


@pytest.mark.parametrize("text", ["", "None", "null", "[]"])
def test_an_empty_choice_switches_nothing_off(run_node: Run, text: str) -> None:
    assert run_node("QVL_PickBoxes", bboxes=[FOUND], off=text)[4] == [3]


@pytest.mark.parametrize(
    "text",
    [
        *("[", "7", "0.5", "true", '"[]"', "{}x", "\ud800"),
        *('[{"x": 1}]', '["a"]', '[{"picture": [], "x": 1}]', "[null]", "[[]]"),
        pytest.param("[" * 100_000, id="100,000 brackets"),
        pytest.param("[" * 100_000 + "]" * 100_000, id="100,000 brackets, closed"),
        pytest.param('{"a":' * 100_000 + "1" + "}" * 100_000, id="100,000 braces"),
    ],
)
def test_text_in_off_that_is_no_choice_is_refused(run_node: Run, text: str) -> None:
    with pytest.raises(BadOption, match="Empty it and click"):
        run_node("QVL_PickBoxes", bboxes=[FOUND], off=text)


def test_what_is_not_there_stops_only_the_nodes_that_take_it(
    run_node: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "execution_blocker", lambda message: message)
    (bboxes,), single, mask, _, _, crops, _ = run_node("QVL_PickBoxes", bboxes=[[CAT], []], index=1)
    assert bboxes == [[CAT], []]
    assert single[0].startswith("Picture 1 has no box with index 1: 1 were kept.")
    assert single[1].startswith("Picture 2 has no box with index 1: 0 were kept.")
    assert "images" in mask and "images" in crops
    (single,) = run_node("QVL_PickBoxes", bboxes=[[]], when_empty="whole picture")[1]
    assert "Connect images" in single


# What the page draws.


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """ComfyUI's temporary folder."""
    monkeypatch.setattr(overlay, "optional_import", lambda *_: lambda: str(tmp_path))
    return tmp_path


def test_the_page_gets_boxes_points_and_a_copy_of_each_picture(temporary: Path) -> None:
    image = torch.rand(2, 1500, 600, 3, generator=torch.Generator().manual_seed(0))
    found = Result("", (Box(1.5, 2, 30, 40.2, "cat", 0.5), Box(0, 0, 9, 9, "dog")))
    first, second = host.results_ui([found, Result("", points=(Point(3, 4.5, "tip"),))], image)[
        "qwen_vl"
    ]
    assert first["size"] == [1500, 600]
    cat, dog = first["boxes"]
    place = {name: cat[name] for name in ("x1", "y1", "x2", "y2", "label", "score")}
    assert place == {"x1": 1, "y1": 2, "x2": 30, "y2": 41, "label": "cat", "score": 0.5}
    assert "score" not in dog and cat["colour"] != dog["colour"]
    (point,) = second["points"]
    assert (point["x"], point["y"], point["label"]) == (3, 4.5, "tip")
    for entry in (first, second):
        assert entry["picture"]["type"] == "temp"
        file = temporary / entry["picture"]["subfolder"] / entry["picture"]["filename"]
        assert Image.open(file).size == (410, 1024)
    assert first["picture"] != second["picture"]


def test_equal_pictures_share_a_copy_and_long_batches_stop_copying(temporary: Path) -> None:
    image = torch.zeros(40, 8, 8, 3)
    entries = host.results_ui([Result("", (Box(0, 0, 4, 4),))] * 40, image)["qwen_vl"]
    assert len(list(temporary.rglob("*.jpg"))) == 1
    assert [entry["picture"] is None for entry in entries] == [False] * 32 + [True] * 8


def test_a_list_of_pictures_counts_as_one_batch(temporary: Path) -> None:
    pictures = [torch.zeros(8, 8 + number % 3, 3) for number in range(40)]
    entries = host.results_ui([Result("", (Box(0, 0, 4, 4),))] * 40, pictures)["qwen_vl"]
    assert [entry["picture"] is None for entry in entries] == [False] * 32 + [True] * 8
    assert [entry["size"] for entry in entries[:3]] == [[8, 8], [8, 9], [8, 10]]


def test_a_picture_in_which_nothing_was_found_is_shown_too(temporary: Path) -> None:
    (entry,) = host.results_ui([Result("[]")], torch.zeros(1, 8, 8, 3))["qwen_vl"]
    assert entry["boxes"] == [] and entry["size"] == [8, 8]
    assert (temporary / "qwen_vl" / entry["picture"]["filename"]).is_file()


def test_pictures_of_different_sizes(temporary: Path) -> None:
    pictures = [torch.zeros(8, 6, 3), torch.ones(4, 12, 3)]
    found = [Result("", (Box(0, 0, 4, 4),)), Result("")]
    entries = host.results_ui(found, pictures)["qwen_vl"]
    assert [entry["size"] for entry in entries] == [[8, 6], [4, 12]]
    assert len({entry["picture"]["filename"] for entry in entries}) == 2


def test_no_copy_where_no_page_looks(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, found = torch.zeros(1, 8, 8, 3), Result("", (Box(0, 0, 4, 4),))
    monkeypatch.setattr(overlay, "optional_import", lambda *_: None)
    (entry,) = host.results_ui([found], image)["qwen_vl"]
    assert entry["boxes"] and entry["picture"] is None
    assert not list(temporary.rglob("*"))


def test_a_full_disk_costs_only_the_copy(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    (entry,) = host.results_ui([Result("", (Box(0, 0, 4, 4),))], torch.zeros(1, 8, 8, 3))["qwen_vl"]
    assert entry["picture"] is None
    assert "No space left" in caplog.text


def test_pick_boxes_shows_all_boxes_and_which_the_rules_leave_out(
    nodes: Any, untouched: Any
) -> None:
    cls = nodes["QVL_PickBoxes"]
    values = untouched(cls.define_schema().inputs)
    output = cls.execute(**{**values, "bboxes": [[FOUND]], "labels": "*a*", "off": off(CAT)})
    (entry,) = output.ui["qwen_vl"]
    assert [(item["label"], item.get("left_out", False)) for item in entry["boxes"]] == [
        ("cat", False),  # switched off, which the page shows by itself
        ("dog", True),
        ("red car", False),
    ]
    assert entry["size"] == [100, 200]
