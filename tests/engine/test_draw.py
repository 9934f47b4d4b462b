from __future__ import annotations

import pytest
import torch
from qwen_vl_suite.qwenvl import draw
from qwen_vl_suite.qwenvl.types import Box, Point


def grey(height: int, width: int) -> torch.Tensor:
    return torch.full((3, height, width), 128, dtype=torch.uint8)


def changed(picture: torch.Tensor) -> torch.Tensor:
    return (picture != 128).any(0)


def test_a_box_is_outlined_in_its_colour_where_it_lies() -> None:
    drawn = draw.annotate(grey(100, 200), [Box(20, 30, 120, 80)])
    expected = torch.tensor(draw.colour(""), dtype=torch.uint8)
    for y, x in ((30, 20), (30, 119), (79, 20), (79, 119), (55, 20), (30, 70)):
        assert torch.equal(drawn[:, y, x], expected), (y, x)
    touched = changed(drawn).nonzero()
    assert touched.amin(0).tolist() == [30, 20]
    assert touched.amax(0).tolist() == [79, 119]
    assert not changed(drawn)[40:70, 30:110].any()


def test_the_picture_given_is_left_alone() -> None:
    picture = grey(50, 50)
    drawn = draw.annotate(picture, [Box(5, 5, 30, 30, "cat")], [Point(40, 40)])
    assert not changed(picture).any()
    assert drawn.shape == picture.shape
    assert drawn.dtype == torch.uint8


def test_every_label_is_drawn_and_none_hides_another() -> None:
    boxes = [Box(50, 100, 150, 200, label) for label in ("cat", "dog", "bird")]
    drawn = draw.annotate(grey(400, 400), boxes)
    for label in ("cat", "dog", "bird"):
        ground = torch.tensor(draw.colour(label), dtype=torch.uint8).view(3, 1, 1)
        assert (drawn == ground).all(0).sum() > 100, label


@pytest.mark.parametrize(
    "label", ["x" * 500, "红色的圆", "line one\nline two", "🙂", "é", " ", "\x00\x07", "العربية"]
)
def test_any_label_is_drawn_without_fail(label: str) -> None:
    edge = [Box(0, 0, 10, 10, label), Box(190, 90, 200, 100, label)]
    drawn = draw.annotate(grey(100, 200), edge, [Point(199, 99, label), Point(0, 0, label)])
    assert changed(drawn).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (2, 2), (3000, 20)])
def test_any_size_is_drawn_without_fail(size: tuple[int, int]) -> None:
    height, width = size
    drawn = draw.annotate(grey(*size), [Box(0, 0, width, height, "all")], [Point(0, 0, "p")])
    assert drawn.shape == (3, height, width)
    assert changed(drawn).any()


def test_lines_grow_with_the_picture() -> None:
    def thickness(side: int) -> int:
        drawn = draw.annotate(grey(side, side), [Box(0, 0, side, side)])
        return int(changed(drawn)[side // 2, : side // 2].sum())

    assert thickness(2000) > thickness(200) >= 1


def test_a_point_is_marked_around_its_place() -> None:
    drawn = draw.annotate(grey(100, 100), [], [Point(60.5, 20.2, "tip")])
    assert tuple(drawn[:, 20, 60].tolist()) == draw.colour("tip")


def test_colours_are_stable_and_ignore_case() -> None:
    assert draw.colour("Cat") == draw.colour("cat ")
    assert len({draw.colour(word) for word in ("cat", "dog", "bird", "car", "tree")}) > 1


def test_mask_covers_every_touched_pixel_and_no_other() -> None:
    covered = draw.mask((6, 8), [Box(1.2, 2.0, 3.5, 4.0), Box(7, 0, 8, 1)])
    expected = torch.zeros(6, 8)
    expected[2:4, 1:4] = 1
    expected[0, 7] = 1
    assert torch.equal(covered, expected)


def test_mask_of_nothing_is_empty() -> None:
    assert not draw.mask((4, 5), []).any()


@pytest.mark.parametrize("place", [(0, 0), (199, 0), (0, 99), (199, 99), (100, 50)])
def test_a_label_does_not_hide_its_point(place: tuple[int, int]) -> None:
    x, y = place
    drawn = draw.annotate(grey(100, 200), [], [Point(x, y, "here")])
    ring = drawn[:, max(0, y - 3) : y + 4, max(0, x - 3) : x + 4]
    assert (ring == 255).all(0).any(), "the white ring around the point is not seen"
