"""Pixel bounds: a longest side becomes a bound on the area."""

from __future__ import annotations

import pytest
from qwen_vl_suite.qwenvl.media.pixel_bounds import with_longest_side

TOKEN, OWN = 32 * 32, 1_000_000
CASES = {
    "no longest side": ((5000, 9000), (1000, 1000), 0, (5000, 9000)),
    "smaller anyway": ((5000, 9000), (400, 500), 500, (5000, 9000)),
    "half the side, a quarter of the area": ((None, None), (1000, 800), 500, (None, 200_000)),
    "a tighter bound stays": ((None, 9000), (1000, 800), 500, (None, 9000)),
    "the checkpoint's own bound is not raised": ((None, None), (9000, 9000), 2000, (None, OWN)),
    "never less than a token": ((None, None), (1000, 1), 100, (None, TOKEN)),
    "the least is at most the most": ((500_000, None), (1000, 800), 500, (200_000, 200_000)),
}


@pytest.mark.parametrize(("bounds", "size", "side", "expected"), CASES.values(), ids=CASES)
def test_bounds_with_a_longest_side(bounds, size, side, expected):
    assert with_longest_side(bounds, size, side, TOKEN, OWN) == expected


def test_an_unknown_bound_of_its_own_does_not_matter():
    assert with_longest_side((None, None), (9000, 9000), 2000, TOKEN, None) == (None, 4_000_000)
    assert with_longest_side((None, 9000), (9000, 9000), 2000, TOKEN, None) == (None, 9000)
