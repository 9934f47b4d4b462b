"""Tiles: they cover the picture with the overlap asked for, and boxes map back to it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl import tiles
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.types import Box, Point


@given(st.integers(1, 2000), st.floats(0, 0.9), st.floats(0, 12), st.floats(0, 12))
def test_tiles_cover_the_picture_and_overlap(tile, share, rows, columns):
    overlap, height, width = (
        int(tile * share),
        max(1, int(tile * rows)),
        max(1, int(tile * columns)),
    )
    found = tiles.tiles((height, width), tile, overlap)
    across = sorted({(x1, x2) for x1, _, x2, _ in found})
    down = sorted({(y1, y2) for _, y1, _, y2 in found})
    assert found == [(x1, y1, x2, y2) for y1, y2 in down for x1, x2 in across]
    for length, spans in ((width, across), (height, down)):
        assert spans[0][0] == 0 and spans[-1][1] == length
        assert all(end - start == min(tile, length) for start, end in spans)
        for (start, end), (following, _) in itertools.pairwise(spans):
            assert start < following <= end - overlap
        # One tile fewer would leave a gap, or overlap by less.
        assert len(spans) == 1 or overlap + (len(spans) - 1) * (tile - overlap) < length


def test_a_picture_that_fits_is_one_tile():
    assert tiles.tiles((300, 1000), 1000, 100) == [(0, 0, 1000, 300)]


def test_a_long_picture_is_cut_along_its_length_only():
    assert tiles.tiles((2000, 800), 1000, 200) == [
        (0, 0, 800, 1000), (0, 500, 800, 1500), (0, 1000, 800, 2000)
    ]  # fmt: skip


def test_what_was_found_in_a_tile_is_mapped_to_the_picture():
    tile = (100, 250, 600, 750)
    box = tiles.to_picture(Box(1.5, 2, 30, 40, "cat", 0.5), tile)
    assert box == Box(101.5, 252, 130, 290, "cat", 0.5)
    assert tiles.to_picture(Point(3, 4, "dog"), tile) == Point(103, 254, "dog")


def test_only_a_side_inside_the_picture_cuts():
    size, left, right = (500, 900), (0, 0, 500, 500), (400, 0, 900, 500)
    assert tiles.is_cut(Box(450, 10, 500, 20), left, size)
    assert tiles.is_cut(Box(400, 10, 450, 20), right, size)
    assert not tiles.is_cut(Box(0, 0, 90, 500), left, size)
    assert not tiles.is_cut(Box(850, 0, 900, 500), right, size)


@pytest.mark.parametrize(
    ("size", "tile", "overlap"),
    [((10, 10), 5, 5), ((10, 10), 5, -1), ((10, 10), 0, 0), ((0, 10), 5, 1)],
)
def test_impossible_tiles_are_refused(size, tile, overlap):
    with pytest.raises(BadOption, match=r"px|pixels"):
        tiles.tiles(size, tile, overlap)
