"""Near-duplicates: which pictures get the reply to another one."""

from __future__ import annotations

import numpy as np
import pytest
from caption_folders import run
from PIL import Image, ImageDraw
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.folders.duplicates import Near


@pytest.fixture
def photo():
    """With forms of many colours."""
    colours = np.random.RandomState(0).rand(6, 6, 3) * 255
    made = Image.fromarray(colours.astype(np.uint8)).resize((320, 240), Image.Resampling.BICUBIC)
    ImageDraw.Draw(made).ellipse((40, 40, 160, 120), fill="white")
    return made


def test_copies_are_asked_about_once_and_what_differs_in_colour_is_none(tmp_path, photo):
    photo.save(tmp_path / "a.png")
    photo.resize((160, 120)).save(tmp_path / "b.png")
    photo.save(tmp_path / "c.jpg", quality=20)
    red, green, blue = photo.split()
    Image.merge("RGB", (blue, green, red)).save(tmp_path / "d.png")
    for name, colour in {"e": "red", "f": "blue"}.items():
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    backend = ScriptedBackend(["One.", "Two.", "Three.", "Four."])
    summary, told = run(backend, tmp_path, near_duplicates=4)
    assert told.captions == {
        "a.png": "One.", "b.png": "One.", "c.jpg": "One.", "d.png": "Two.", "e.png": "Three.",
        "f.png": "Four.",
    }  # fmt: skip
    assert (summary.captioned, summary.same, len(backend.requests)) == (6, 2, 4)


@pytest.mark.parametrize("distance", [0, 2, 5, 16])
def test_all_within_the_distance_are_found(distance):
    random = np.random.RandomState(distance)
    near: Near[int] = Near(distance)
    kept = [int(random.randint(0, 1 << 62)) for _ in range(50)]
    for bits in kept:
        near.put(bits, bits)
    for bits in kept:
        flips = sum(1 << int(at) for at in random.choice(64, distance, replace=False))
        assert near.find(bits ^ flips) == bits
        assert near.find(bits ^ flips, lambda value: False) is None
