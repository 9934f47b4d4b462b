"""Boxes in the shapes that other packs read; a table per shape."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from qwen_vl_suite.nodes import formats

A = {"x": 10, "y": 20, "width": 30, "height": 40, "label": "cat"}
B = {"x": 0, "y": 0, "width": 200, "height": 100, "label": "all", "score": 0.25}
SIZE = (100, 200)
BATCH = [[A, B], []]

TABLE = {
    "sam2": [[[10, 20, 40, 60], [0, 0, 200, 100]], []],
    "sam2_video": [[10, 20, 40, 60], [0, 0, 200, 100]],
    "xywh": [(10, 20, 30, 40), (0, 0, 200, 100)],
    "florence2": [[[10, 20, 40, 60], [0, 0, 200, 100]], []],
    "florence2_phrases": [
        {"bboxes": [[10, 20, 40, 60], [0, 0, 200, 100]], "labels": ["cat", "all"]},
        {"bboxes": [], "labels": []},
    ],
    "florence2_ocr": [
        {"label": "cat", "box": [0.05, 0.2, 0.2, 0.2, 0.2, 0.6, 0.05, 0.6]},
        {"label": "all", "box": [0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0, 1.0]},
    ],
    "ideogram": ["[[200, 50, 600, 200], [0, 0, 1000, 1000]]", "[]"],
}


@pytest.mark.parametrize("name", TABLE)
def test_shape(name: str) -> None:
    shape = next(shape for shape in formats.FORMATS if shape.name == name)
    assert shape.convert(BATCH, SIZE, 1.5) == TABLE[name]


def test_every_shape_is_in_the_table() -> None:
    assert {shape.name for shape in formats.FORMATS} == {*TABLE, "segs"}


@pytest.mark.parametrize("name", [shape.name for shape in formats.FORMATS])
def test_no_boxes_give_no_boxes(name: str) -> None:
    shape = next(shape for shape in formats.FORMATS if shape.name == name)
    (size, segs), empty = ((SIZE, []), [[]])
    expected: dict[str, Any] = {
        "sam2": [[]],
        "sam2_video": [],
        "xywh": [],
        "florence2": [[]],
        "florence2_phrases": [{"bboxes": [], "labels": []}],
        "florence2_ocr": [],
        "segs": [(size, segs)],
        "ideogram": ["[]"],
    }
    assert shape.convert(empty, SIZE, 1.5) == expected[name]


@pytest.mark.parametrize(
    ("around", "crop"),
    [
        pytest.param(1.0, (10, 20, 40, 60), id="the box itself"),
        pytest.param(2.0, (0, 0, 55, 80), id="twice, cut at the picture's edge"),
        pytest.param(10.0, (0, 0, 175, 100), id="far beyond"),
    ],
)
def test_segment(around: float, crop: tuple[int, int, int, int]) -> None:
    segment = formats.seg(A, SIZE, around)
    assert segment.crop_region == crop
    assert segment.bbox == (10, 20, 40, 60)
    assert segment.label == "cat"
    assert segment.cropped_mask.dtype == np.float32
    assert segment.cropped_mask.shape == (crop[3] - crop[1], crop[2] - crop[0])
    whole = np.zeros(SIZE, dtype=np.float32)
    whole[crop[1] : crop[3], crop[0] : crop[2]] = segment.cropped_mask
    assert whole[20:60, 10:40].all() and whole.sum() == 30 * 40


def test_segment_has_what_impact_pack_reads_and_can_replace() -> None:
    segment = formats.seg(B, SIZE, 1.5)
    assert segment._fields == (
        "cropped_image",
        "cropped_mask",
        "confidence",
        "crop_region",
        "bbox",
        "label",
        "control_net_wrapper",
    )
    assert segment.confidence == 0.25
    assert segment._replace(label="x").label == "x"
    assert segment.cropped_image is None and segment.control_net_wrapper is None


def test_node_gives_every_shape_in_order(run_node: Any) -> None:
    outputs = run_node("QVL_BoxFormat", bboxes=[[A], [B]], images=torch.zeros(2, 100, 200, 3))
    names = [shape.name for shape in formats.FORMATS]
    by_name = dict(zip(names, outputs, strict=True))
    assert by_name["sam2"] == [[[10, 20, 40, 60]], [[0, 0, 200, 100]]]
    assert [json.loads(text) for text in by_name["ideogram"]] == [
        [[200, 50, 600, 200]],
        [[0, 0, 1000, 1000]],
    ]
    assert [size for size, _ in by_name["segs"]] == [SIZE, SIZE]
