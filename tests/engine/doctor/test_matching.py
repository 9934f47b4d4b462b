"""Matching of boxes: each found one is at one true one, of its own label."""

from __future__ import annotations

import pytest
from qwen_vl_suite.qwenvl.doctor.matching import matched, overlap

UNIT = (0, 0, 10, 10)


@pytest.mark.parametrize(
    ("other", "iou"),
    [
        (UNIT, 1),
        ((5, 0, 15, 10), 1 / 3),
        ((0, 0, 5, 5), 0.25),
        ((10, 0, 20, 10), 0),
        ((20, 20, 30, 30), 0),
        ((3, 3, 3, 3), 0),
    ],
)
def test_overlap_is_intersection_over_union(other, iou):
    assert overlap(UNIT, other) == overlap(other, UNIT) == pytest.approx(iou)


def test_a_found_box_counts_once_and_for_the_nearest():
    near, far = (0, 0, 10, 9), (0, 0, 10, 5)
    assert matched([("a", UNIT), ("a", UNIT)], [("a", near)]) == [0, 0.9]
    assert sorted(matched([("a", UNIT), ("a", far)], [("a", near), ("a", far)])) == [0.9, 1]


def test_a_box_of_another_label_is_no_match():
    assert matched([("a", UNIT)], [("b", UNIT)]) == [0]
    assert matched([], [("b", UNIT)]) == []
