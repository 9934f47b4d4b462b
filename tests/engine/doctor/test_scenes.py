"""Scenes: drawn from their seed, with labels that are exact."""

from __future__ import annotations

import numpy as np
import pytest
from qwen_vl_suite.qwenvl.doctor import scenes
from qwen_vl_suite.qwenvl.doctor.scenes import lines
from qwen_vl_suite.qwenvl.errors import Unavailable


def test_a_scene_is_determined_by_its_seed():
    first, again, other = scenes.draw("a"), scenes.draw("a"), scenes.draw("b")
    assert first.picture.tobytes() == again.picture.tobytes()
    assert (first.shapes, first.lines) == (again.shapes, again.lines)
    assert first.picture.tobytes() != other.picture.tobytes()


def test_all_kinds_and_sizes_are_drawn():
    drawn = [scenes.draw(f"kinds {k}") for k in range(60)]
    assert {(bool(s.shapes), bool(s.lines)) for s in drawn} == {
        (True, False),
        (False, True),
        (True, True),
    }
    for scene in drawn:
        assert min(scene.picture.size) >= 200 and max(scene.picture.size) <= 900
        assert len(scene.shapes) <= 4 and len(scene.lines) <= 3
        assert [s.centre[0] for s in scene.shapes] == sorted(s.centre[0] for s in scene.shapes)
        assert [line.box[1] for line in scene.lines] == sorted(line.box[1] for line in scene.lines)


def test_boxes_contain_all_ink_and_nothing_outside():
    for seed in range(25):
        scene = scenes.draw(f"boxes {seed}")
        pixels = np.asarray(scene.picture).astype(int)
        inked = (pixels != pixels[0, 0]).any(-1)  # corners are ground: nothing touches them
        outside = inked.copy()
        for box in [s.box for s in scene.shapes] + [line.box for line in scene.lines]:
            x1, y1, x2, y2 = map(int, box)
            inside = inked[y1:y2, x1:x2]
            assert inside[:2].any() and inside[-2:].any(), "the box fits at top and bottom"
            assert inside[:, :2].any() and inside[:, -2:].any(), "the box fits at both sides"
            outside[y1:y2, x1:x2] = False
        assert not outside.any(), "no ink outside the boxes"
        for shape in scene.shapes:
            x, y = map(int, shape.centre)
            expected = np.array(scenes.COLOURS[shape.colour])
            assert abs(pixels[y, x] - expected).max() <= 12


# As the bundled model was trained on. One line: the place of its letters depends on the font in
# Pillow, and with it all that is drawn after it.
TRAINED = {
    18: ((290, 424), "dark", "FIJGF", [
        ("red circle", (30, 312, 92, 375)), ("yellow star", (42, 88, 133, 180)),
        ("pink cross", (110, 248, 203, 342)), ("red square", (187, 5, 261, 79)),
    ]),
    23: ((332, 312), "light", "617807", [
        ("orange cross", (12, 15, 71, 73)), ("pink cross", (47, 160, 125, 238)),
        ("pink circle", (177, 116, 276, 214)), ("yellow diamond", (267, 42, 325, 100)),
    ]),
}  # fmt: skip


@pytest.mark.parametrize("seed", TRAINED)
def test_a_seed_draws_what_it_always_drew(seed):
    size, ground, text, shapes = TRAINED[seed]
    scene = scenes.draw(f"as trained {seed}", "shapes")
    assert (scene.picture.size, scene.ground) == (size, ground)
    assert [(shape.name, shape.box) for shape in scene.shapes] == shapes
    assert [line.text for line in scenes.draw(f"as trained {seed}", "text").lines] == [text]


def test_a_card_shows_its_fields_and_no_others():
    cards = [scenes.draw_card(seed) for seed in range(30)]
    again = scenes.draw_card(0)
    assert again.picture.tobytes() == cards[0].picture.tobytes()
    assert again.values == cards[0].values
    assert {len(card.fields) for card in cards} == {2, 3, 4}
    assert {len(card.missing) for card in cards} == {0, 1}
    for card in cards:
        assert list(card.values) == [field.key for field in card.fields] + list(card.missing)
        assert [card.values[key] for key in card.missing] == [None] * len(card.missing)
        pixels = np.asarray(card.picture).astype(int)
        edge = round(0.06 * pixels.shape[1]), round(0.055 * pixels.shape[0])
        inside = pixels[edge[1] : -edge[1], edge[0] : -edge[0]]
        inked = (inside != inside[0, 0]).any(-1)
        for field in card.fields:
            assert (field.label.text, field.line.text) == (f"{field.key}:", field.value)
            for line in (field.label, field.line):
                x1, y1, x2, y2 = (int(v) - edge[i % 2] for i, v in enumerate(line.box))
                assert inked[y1:y2, x1 : x1 + 3].any() and inked[y1:y2, x2 - 3 : x2].any()
                inked[y1:y2, x1:x2] = False
        assert not inked.any(), "no ink outside the fields"


def test_look_alikes_share_the_kind_or_the_colour_of_what_is_asked_for():
    groups = [scenes.draw_look_alikes(seed) for seed in range(40)]
    assert {len(group.shapes) for group in groups} == {0, 1}
    for group in groups:
        colour, kind = group.name.split()
        others = [shape for shape in group.scene.shapes if shape not in group.shapes]
        assert others and all((s.kind == kind) != (s.colour == colour) for s in others)


def test_counted_shapes_are_of_one_name_beside_others():
    groups = [scenes.draw_count(seed) for seed in range(60)]
    assert {len(group.shapes) for group in groups} >= {0, 1, 2, 3, 4}
    assert {len(group.name.split()) for group in groups} == {1, 2}
    assert any(len(group.scene.shapes) > len(group.shapes) > 1 for group in groups)


def test_an_old_pillow_is_named(monkeypatch):
    from PIL import ImageFont

    def load_default():  # Pillow before 10.1 takes no size
        raise AssertionError

    lines._font.cache_clear()
    monkeypatch.setattr(ImageFont, "load_default", load_default)
    with pytest.raises(Unavailable, match="pip install -U pillow"):
        scenes.draw("old", "text")
    lines._font.cache_clear()
