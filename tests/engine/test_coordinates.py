"""Coordinate mapping: boxes in each family's coordinates map back to the original pixels."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl import coordinates
from qwen_vl_suite.qwenvl.families import DEFAULT, FAMILIES
from qwen_vl_suite.qwenvl.types import Box, Family, Point, ReplyContext, Size

EVERY_FAMILY = [*FAMILIES.values(), DEFAULT]
RELATIVE, ABSOLUTE = FAMILIES["qwen3_vl"], FAMILIES["qwen2_5_vl"]


def scale(context: ReplyContext) -> tuple[int, int]:
    """The picture's width and height in the family's coordinate space."""
    if context.family.coordinates == "relative":
        return 1000, 1000
    return context.input_size[1], context.input_size[0]


def written(x: float, y: float, context: ReplyContext) -> tuple[int, int]:
    """Pixels of the original in the family's coordinate space, as whole numbers."""
    (height, width), (across, down) = context.image_size, scale(context)
    return round(x / width * across), round(y / height * down)


def unit(context: ReplyContext) -> tuple[float, float]:
    """One unit of the family's coordinate space in pixels of the original."""
    (height, width), (across, down) = context.image_size, scale(context)
    return width / across, height / down


@st.composite
def contexts(draw: st.DrawFn) -> ReplyContext:
    """A picture size and an input size: each side in whole patches, smaller or larger."""
    family = draw(st.sampled_from(EVERY_FAMILY))
    sides = st.integers(1, 8000)
    height, width = draw(st.tuples(sides, sides) | st.sampled_from([(200, 8000), (1, 1)]))
    scale = draw(st.floats(0.1, 3))
    patch = family.patch_factor
    resized = (max(1, round(side * scale / patch)) * patch for side in (height, width))
    return ReplyContext(family, (height, width), (next(resized), next(resized)))


@st.composite
def spans(draw: st.DrawFn, length: float) -> tuple[float, float]:
    low, high = sorted(draw(st.floats(0, length)) for _ in range(2))
    return low, high


@given(st.data(), contexts())
def test_a_box_round_trips_within_one_unit(data: st.DataObject, context: ReplyContext) -> None:
    height, width = context.image_size
    (x1, x2), (y1, y2) = data.draw(spans(width)), data.draw(spans(height))
    values = (*written(x1, y1, context), *written(x2, y2, context))
    box = coordinates.to_box(values, context, "cat")
    if values[0] == values[2] or values[1] == values[3]:
        assert box is None
        return
    assert box is not None and (box.label, box.score) == ("cat", None)
    across, down = unit(context)
    assert (box.x1, box.x2) == pytest.approx((x1, x2), abs=across)
    assert (box.y1, box.y2) == pytest.approx((y1, y2), abs=down)


@given(st.data(), contexts())
def test_a_point_round_trips_within_one_unit(data: st.DataObject, context: ReplyContext) -> None:
    height, width = context.image_size
    x, y = data.draw(st.floats(0, width)), data.draw(st.floats(0, height))
    point = coordinates.to_point(written(x, y, context), context, "nose")
    assert point is not None and point.label == "nose"
    across, down = unit(context)
    assert point.x == pytest.approx(x, abs=across)
    assert point.y == pytest.approx(y, abs=down)


@given(st.data(), contexts())
def test_the_whole_picture_maps_to_itself(data: st.DataObject, context: ReplyContext) -> None:
    height, width = context.image_size
    assert coordinates.to_box((0, 0, *scale(context)), context) == Box(0, 0, width, height)


numbers = st.one_of(st.integers(), st.floats(), st.integers(-50, 1100), st.just(10**400))


@given(contexts(), st.tuples(numbers, numbers, numbers, numbers))
def test_any_box_lies_inside_its_picture(
    context: ReplyContext, values: tuple[float, float, float, float]
) -> None:
    height, width = context.image_size
    box = coordinates.to_box(values, context)
    if box is not None:
        assert 0 <= box.x1 < box.x2 <= width
        assert 0 <= box.y1 < box.y2 <= height
        x1, y1, x2, y2 = coordinates.integer_box(box)
        assert 0 <= x1 <= box.x1 < box.x2 <= x2 <= width and x1 < x2
        assert 0 <= y1 <= box.y1 < box.y2 <= y2 <= height and y1 < y2
        middle = coordinates.centre(box)
        assert box.x1 <= middle.x <= box.x2 and box.y1 <= middle.y <= box.y2
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        assert box is None


@given(contexts(), st.tuples(numbers, numbers))
def test_any_point_lies_inside_its_picture(
    context: ReplyContext, values: tuple[float, float]
) -> None:
    height, width = context.image_size
    point = coordinates.to_point(values, context)
    if point is not None:
        assert 0 <= point.x <= width and 0 <= point.y <= height
        x, y = coordinates.integer_point(point, context.image_size)
        assert 0 <= x < width and 0 <= y < height


def context_of(
    family: Family, image: Size = (100, 200), input_size: Size = (1000, 1000)
) -> ReplyContext:
    return ReplyContext(family, image, input_size)


@pytest.mark.parametrize(
    ("context", "values", "expected"),
    [
        pytest.param(
            context_of(RELATIVE), (250, 100, 750, 900), (50, 10, 150, 90), id="per thousand"
        ),
        pytest.param(
            context_of(ABSOLUTE, (1532, 1014), (1540, 1008)),
            (504, 770, 1008, 1540),
            (507, 766, 1014, 1532),
            id="pixels of what the model saw, each axis by itself",
        ),
        pytest.param(context_of(RELATIVE), (750, 900, 250, 100), (50, 10, 150, 90), id="reversed"),
        pytest.param(context_of(RELATIVE), (250, 900, 750, 100), (50, 10, 150, 90), id="one axis"),
        pytest.param(
            context_of(RELATIVE), (900, 900, 1003, 1020), (180, 90, 200, 100), id="over 1000"
        ),
        pytest.param(context_of(RELATIVE), (-5, -1, 500, 500), (0, 0, 100, 50), id="negative"),
        pytest.param(context_of(RELATIVE), (290, 290, 580, 580), (58, 29, 116, 58), id="exact"),
        pytest.param(
            context_of(RELATIVE), (0.25, 0.1, 0.75, 0.9), (50, 10, 150, 90), id="fractions"
        ),
        pytest.param(context_of(ABSOLUTE), (0.0, 0.0, 1.0, 1.0), (0, 0, 200, 100), id="all of it"),
        pytest.param(
            context_of(RELATIVE), (0, 0, 1, 1), (0, 0, 0.2, 0.1), id="whole ones are units"
        ),
        pytest.param(context_of(RELATIVE), (0.5, 0, 2, 2), (0.1, 0, 0.4, 0.2), id="no fractions"),
        pytest.param(context_of(RELATIVE), (100, 100, 100, 300), None, id="no width"),
        pytest.param(context_of(RELATIVE), (100, 300, 500, 300), None, id="no height"),
        pytest.param(context_of(RELATIVE), (0, 0, 0, 0), None, id="nothing"),
        pytest.param(context_of(RELATIVE), (1100, 1100, 1300, 1300), None, id="outside"),
        pytest.param(context_of(RELATIVE), (math.nan, 0, 500, 500), None, id="NaN"),
        pytest.param(context_of(RELATIVE), (0, 0, math.inf, 500), None, id="infinite"),
    ],
)
def test_to_box(context: ReplyContext, values: tuple, expected: tuple | None) -> None:
    box = coordinates.to_box(values, context)
    assert (box and (box.x1, box.y1, box.x2, box.y2)) == expected


@pytest.mark.parametrize(
    ("context", "values", "share"),
    [
        pytest.param(context_of(RELATIVE), (0, 0, 1000, 1000), 0, id="all of it"),
        pytest.param(context_of(RELATIVE), (0, 0, 1500, 1000), 0.5, id="to the right"),
        pytest.param(context_of(RELATIVE), (0, -20, 5, 1000), 0.02, id="above"),
        pytest.param(
            context_of(ABSOLUTE, (100, 200), (400, 800)), (0, 0, 800, 500), 0.25, id="pixels"
        ),
        pytest.param(context_of(RELATIVE), (0.1, 0.2, 1.01, 0.9), 0.01, id="fractions"),
        pytest.param(context_of(RELATIVE), (0, 0, 10**400, 5), math.inf, id="endless digits"),
        pytest.param(context_of(RELATIVE), (math.nan, 0), math.inf, id="NaN"),
    ],
)
def test_overshoot(context: ReplyContext, values: tuple, share: float) -> None:
    assert coordinates.overshoot(values, context) == pytest.approx(share)


def test_a_point_far_outside_is_none_and_a_near_one_is_clamped() -> None:
    assert coordinates.to_point((1020, 5), context_of(RELATIVE)) == Point(200, 0.5)
    assert coordinates.to_point((1021, 5), context_of(RELATIVE)) is None


def test_a_box_of_fractions_may_exceed_the_edge_a_little() -> None:
    box = coordinates.to_box((0.5, 0.5, 1.01, 1.0), context_of(RELATIVE))
    assert box == Box(100, 50, 200, 100)


@given(st.data(), contexts(), st.lists(st.tuples(numbers, numbers, numbers, numbers), max_size=5))
def test_every_box_that_is_dropped_or_clamped_is_reported(
    data: st.DataObject, context: ReplyContext, rows: list[tuple]
) -> None:
    mapper = coordinates.PixelMapper(context)
    boxes = [mapper.box(row, "it") for row in rows]
    lost = boxes.count(None)
    assert bool(lost) == bool(mapper.unmapped())
    far = [coordinates.overshoot(row, context) > coordinates.EDGE_TOLERANCE for row in rows]
    assert bool(mapper.notes()) == bool(lost or any(far))


def test_mapping_depends_on_the_picture_alone() -> None:
    wide, tall = context_of(RELATIVE, (200, 8000)), context_of(RELATIVE, (8000, 200))
    assert coordinates.to_box((500, 500, 1000, 1000), wide) == Box(4000, 100, 8000, 200)
    assert coordinates.to_box((500, 500, 1000, 1000), tall) == Box(100, 4000, 200, 8000)


def test_points() -> None:
    assert coordinates.to_point((500, 1000), context_of(RELATIVE), "a") == Point(100, 100, "a")
    assert coordinates.to_point((math.nan, 5), context_of(RELATIVE)) is None
    assert coordinates.integer_point(Point(200, 99.9), (100, 200)) == (199, 99)
    assert coordinates.centre(Box(0, 10, 5, 20, "b")) == Point(2.5, 15, "b")
