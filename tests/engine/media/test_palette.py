"""Palettes: colours by what the pixels are, on pictures whose colours are known."""

from __future__ import annotations

import random

import pytest
import torch
from qwen_vl_suite.qwenvl.media.palette import palette
from qwen_vl_suite.qwenvl.types import Box

WHITE, RED, BLUE, GREEN = (255, 255, 255), (210, 30, 40), (20, 30, 120), (30, 160, 60)


def drawn(height: int, width: int, ground: tuple[int, int, int], *areas: tuple) -> torch.Tensor:
    picture = torch.tensor(ground, dtype=torch.uint8)[:, None, None].repeat(1, height, width)
    for (x1, y1, x2, y2), colour in areas:
        picture[:, y1:y2, x1:x2] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return picture


SIGN = drawn(300, 400, WHITE, ((50, 50, 150, 250), RED), ((250, 50, 300, 100), BLUE))


def test_a_pictures_colours_are_exact_and_the_most_frequent_comes_first() -> None:
    assert palette(SIGN, 8) == ["#FFFFFF", "#D21E28", "#141E78"]
    assert palette(SIGN, 1) == ["#FFFFFF"]


def test_what_is_around_a_box_is_not_its_colour() -> None:
    loose = Box(40, 40, 165, 265)
    assert palette(SIGN, 5, loose) == ["#D21E28"]
    inside = Box(60, 60, 100, 100)  # all of it is like what is around
    assert palette(SIGN, 5, inside) == ["#D21E28"]
    letters = drawn(100, 300, WHITE, *(((x, 30, x + 4, 70), BLUE) for x in range(20, 280, 20)))
    assert palette(letters, 5, Box(10, 20, 290, 80)) == ["#141E78"]


def test_noise_and_shades_do_not_make_a_colour_many() -> None:
    noise = torch.randint(-8, 9, SIGN.shape, generator=torch.Generator().manual_seed(0))
    noisy = (SIGN.int() + noise).clamp(0, 255).to(torch.uint8)
    found = palette(noisy, 8)
    assert len(found) == 3
    for colour, exact in zip(found, (WHITE, RED, BLUE), strict=True):
        values = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        assert max(abs(a - b) for a, b in zip(values, exact, strict=True)) <= 6


def test_a_large_picture_is_measured_by_some_of_its_pixels() -> None:
    large = drawn(2000, 3000, WHITE, ((0, 0, 1500, 2000), GREEN), ((1600, 100, 1612, 112), RED))
    assert sorted(palette(large, 8)) == ["#1EA03C", "#FFFFFF"]
    assert palette(large, 5, Box(1600, 100, 1612, 112)) == ["#D21E28"]


@pytest.mark.parametrize("seed", range(3))
def test_any_box_within_the_picture_has_a_colour(seed: int) -> None:
    some = random.Random(seed)
    height, width = some.choice([(1, 1), (1, 900), (700, 500)])
    picture = torch.randint(0, 256, (3, height, width), dtype=torch.uint8)
    for _ in range(20):
        x1, y1 = some.uniform(0, width - 0.5), some.uniform(0, height - 0.5)
        box = Box(x1, y1, some.uniform(x1 + 0.1, width), some.uniform(y1 + 0.1, height))
        assert 1 <= len(palette(picture, 5, box)) <= 5
