"""3-D grounding: nine numbers a box, and their projection into the picture."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend
from qwen_vl_suite.qwenvl.camera import EDGES, Camera, camera_of, projected
from qwen_vl_suite.qwenvl.errors import BadOption, UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.grounding import search
from qwen_vl_suite.qwenvl.media import draw
from qwen_vl_suite.qwenvl.run import Query, answer, answer_all
from qwen_vl_suite.qwenvl.tasks.boxes_3d import boxes_3d
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import ReplyContext

SIZE = (480, 640)
CONTEXT = ReplyContext(FAMILIES["qwen3_vl"], SIZE, SIZE)
CUBE = [0, 0, 4, 2, 2, 2, 0, 0, 0]


def notebook(box: list[float], lens: Camera) -> list[list[float]]:
    """``convert_3dbbox`` of cookbooks/3d_grounding.ipynb (QwenLM/Qwen3-VL, Apache-2.0), with what
    ``draw_3dbboxes`` does before it."""
    box = [*box[:6], *(value * 180 for value in box[6:])]
    x, y, z, x_size, y_size, z_size, pitch, yaw, roll = box
    hx, hy, hz = x_size / 2, y_size / 2, z_size / 2
    local_corners = [
        [hx, hy, hz], [hx, hy, -hz], [hx, -hy, hz], [hx, -hy, -hz],
        [-hx, hy, hz], [-hx, hy, -hz], [-hx, -hy, hz], [-hx, -hy, -hz],
    ]  # fmt: skip

    def rotate_xyz(point: list[float], _pitch: float, _yaw: float, _roll: float) -> list[float]:
        x0, y0, z0 = point
        x1 = x0
        y1 = y0 * math.cos(_pitch) - z0 * math.sin(_pitch)
        z1 = y0 * math.sin(_pitch) + z0 * math.cos(_pitch)
        x2 = x1 * math.cos(_yaw) + z1 * math.sin(_yaw)
        y2 = y1
        z2 = -x1 * math.sin(_yaw) + z1 * math.cos(_yaw)
        x3 = x2 * math.cos(_roll) - y2 * math.sin(_roll)
        y3 = x2 * math.sin(_roll) + y2 * math.cos(_roll)
        return [x3, y3, z2]

    img_corners = []
    for corner in local_corners:
        turned = rotate_xyz(corner, math.radians(pitch), math.radians(yaw), math.radians(roll))
        cx, cy, cz = turned[0] + x, turned[1] + y, turned[2] + z
        if cz > 0:
            img_corners.append([lens.fx * (cx / cz) + lens.cx, lens.fy * (cy / cz) + lens.cy])
    return img_corners


def test_corners_are_those_of_the_notebook() -> None:
    rng = random.Random(0)
    for _ in range(200):
        middle = [rng.uniform(-2, 2), rng.uniform(-2, 2), rng.uniform(0.5, 8)]
        sizes = [rng.uniform(0.1, 3) for _ in "xyz"]
        box = [*middle, *sizes, *(rng.uniform(-1, 1) for _ in "abc")]
        lens = Camera(rng.uniform(200, 900), rng.uniform(200, 900), 320, 240)
        expected = notebook(box, lens)
        found = projected(box, lens)
        if len(expected) < 8:
            assert found == ()
        elif found:  # a corner beside the camera is projected without end
            for corner, other in zip(found, expected, strict=True):
                assert corner == pytest.approx(other)


def test_edges_are_those_of_the_notebook() -> None:
    listed = "01 23 45 67 02 13 46 57 04 15 26 37"
    assert set(EDGES) == {(int(pair[0]), int(pair[1])) for pair in listed.split()}


def test_the_longer_side_spans_the_field_of_view() -> None:
    for size in ((300, 600), (600, 300)):
        lens = camera_of(size, 90)
        assert (lens.fx, lens.fy, lens.cx, lens.cy) == pytest.approx(
            (300, 300, size[1] / 2, size[0] / 2)
        )


def reply(*boxes: Any) -> str:
    listed = [{"bbox_3d": box, "label": "car", "color": "red"} for box in boxes]
    return f"```json\n{json.dumps(listed)}\n```"


def test_nine_numbers_their_corners_and_the_rectangle_around_them() -> None:
    task = boxes_3d("car", field_of_view=90)
    result = task.parse(reply(CUBE), CONTEXT)
    # The near face is 3 m away: 320 px of focal length * 1 m / 3 m.
    near, far = 320 / 3, 320 / 5
    (told,) = json.loads(result.text)
    assert told["bbox_3d"] == CUBE and told["label"] == "car" and "color" not in told
    assert told["corners_2d"][:2] == [
        [320 + far, 240 + far], [round(320 + near, 1), round(240 + near, 1)],
    ]  # fmt: skip
    assert told["bbox_2d"] == [213, 133, 427, 347]
    assert result.data == [{"color": "red", **told}]
    (box,) = result.boxes
    assert (box.x1, box.y2, box.label) == (pytest.approx(320 - near), 240 + near, "car")
    narrow = boxes_3d("car", field_of_view=30).parse(reply(CUBE), CONTEXT)
    assert narrow.boxes[0].x1 < box.x1


def test_what_does_not_lie_in_the_picture_keeps_its_numbers() -> None:
    behind, beside = [0, 0, -4, *CUBE[3:]], [50, 0, 4, *CUBE[3:]]
    result = boxes_3d("car").parse(reply(behind, CUBE, beside), CONTEXT)
    assert [cuboid.numbers[2] for cuboid in result.cuboids] == [-4, 4, 4]
    assert len(result.boxes) == 1
    told = json.loads(result.text)
    assert told[0]["corners_2d"] is None and told[2]["bbox_2d"] is None and told[2]["corners_2d"]
    assert "2 boxes cannot be drawn" in result.notes[0]
    assert len(boxes_3d("car", max_count=2).parse(reply(behind, CUBE), CONTEXT).cuboids) == 2


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(reply(CUBE[:7]), id="seven numbers"),
        pytest.param(reply([0, 0, 4, 0, 2, 2, 0, 0, 0]), id="no width"),
        pytest.param(reply(["a", *CUBE[1:]]), id="a word"),
        pytest.param(reply([1e30, *CUBE[1:]]), id="beyond everything"),
        pytest.param('[{"bbox_2d": [1, 2, 30, 40], "label": "car"}]', id="in the picture"),
        pytest.param("There are two cars.", id="prose"),
        pytest.param('```json\n[{"bbox_3d": [0, 0, 4, 2', id="cut"),
    ],
)
def test_what_is_no_box_in_space_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableReply):
        boxes_3d("car").parse(text, CONTEXT)


def test_one_broken_box_costs_only_itself() -> None:
    result = boxes_3d("car").parse(reply(CUBE, CUBE[:7], [1, 0, 4, -1, 2, 2, 0, 0, 0]), CONTEXT)
    assert len(result.cuboids) == 1 and "Left out" in result.notes[0]


def test_nothing_found_and_plain_boxes_as_before() -> None:
    for text in ("[]", "None found."):
        assert boxes_3d("car").parse(text, CONTEXT).cuboids == ()
    with pytest.raises(UnreadableReply, match="3-D boxes where boxes"):
        ground("car").parse(reply(CUBE), CONTEXT)


def test_prompts_are_the_official_ones() -> None:
    assert boxes_3d("cars").prompt.startswith(
        "Find all cars in this image. For each of them, provide its 3D bounding box. The output "
        "format required is JSON: `[{"
    )
    assert boxes_3d("the black chair").prompt.startswith("Locate the black chair in this image")
    assert "car, bike in this image. For each of them," in boxes_3d("car, bike").prompt


@pytest.mark.parametrize(
    "options", [{"field_of_view": 5}, {"max_count": -1}, {"min_score": 2}, {"find": " "}]
)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(BadOption):
        boxes_3d(**{"find": "car", **options})


def test_scores_and_several_queries() -> None:
    picture = torch.zeros(3, *SIZE, dtype=torch.uint8)
    backend = ScriptedBackend([Reply(reply(CUBE), logprobs=-0.5)])
    (found,) = answer(backend, boxes_3d("car", scores=True), [picture])
    assert found.cuboids[0].score == pytest.approx(math.exp(-0.5))
    behind = [0, 0, -4, *CUBE[3:]]
    backend, how = ScriptedBackend([reply(CUBE, behind), "None found."]), search("a\nb", "boxes_3d")
    (found,) = answer_all(backend, [Query(how.task, picture, method=how.method)])
    assert how.counts(found) == {"a": 2, "b": 0} and len(found.boxes) == 1
    assert [item["query"] for item in found.data] == ["a", "a"]
    for options in ({"tile": 200}, {"look_again": True}):
        with pytest.raises(BadOption, match=r"whole picture|kind is boxes_3d"):
            search("a", "boxes_3d", **options)


def test_the_edges_are_drawn() -> None:
    picture = torch.zeros(3, *SIZE, dtype=torch.uint8)
    result = boxes_3d("car", field_of_view=90).parse(reply(CUBE), CONTEXT)
    drawn = draw.annotate(picture, result.boxes, cuboids=result.cuboids)
    far, near = round(320 - 320 / 5), round(320 - 320 / 3)
    assert drawn[:, 240, far].any() and drawn[:, 240, near].any(), "both faces"
    assert not drawn[:, 240, (far + near) // 2].any(), "the faces are not filled"
