"""Coordinate fit: the space that boxes were written in is found, and only if it can be told."""

from __future__ import annotations

import dataclasses
import random

import pytest
from oracle import SPACES
from qwen_vl_suite.qwenvl.doctor.coordinate_fit import MIN_BOXES, RawReply, fit, space_of
from qwen_vl_suite.qwenvl.doctor.questions import doctor_scene
from qwen_vl_suite.qwenvl.families import FAMILIES


def replies(space, scenes=24, noise=0.0, seen=lambda side: round(side * 0.7 / 32) * 32):
    """A right reply for each scene with shapes, each side off by a share of ``noise``."""
    rng = random.Random(0)
    found = []
    for scene in (doctor_scene(number) for number in range(scenes)):
        width, height = scene.picture.size
        sides = SPACES[space]((width, height), (seen(width), seen(height)))
        truth = [(shape.name, shape.box) for shape in scene.shapes]
        if truth:
            boxes = [
                (name, [
                    (v / (width, height)[k % 2] + rng.gauss(0, noise)) * sides[k % 2]
                    for k, v in enumerate(box)
                ])
                for name, box in truth
            ]  # fmt: skip
            found.append(RawReply(truth, boxes, (height, width), (seen(height), seen(width))))
    return found


@pytest.mark.parametrize("expected", ["0-1000", "0-1024", "input_pixels"])
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("noise", [0, 0.01, 0.02])
def test_the_space_that_was_written_in_is_found(space, expected, noise):
    found = fit(replies(space, noise=noise), expected)
    assert found.best == space
    assert found.differs == (space != expected)


@pytest.mark.parametrize("noise", [0.03, 0.06])
def test_inaccuracy_is_no_other_space(noise):
    """Boxes so far off that 0-1000 and 0-1024 are as good as one another."""
    assert not fit(replies("0-1000", noise=noise), "0-1000").differs


def test_few_boxes_tell_nothing():
    few = replies("0-1024", scenes=4)
    boxes = sum(len(reply.truth) for reply in few)
    assert 0 < boxes < MIN_BOXES
    found = fit(few, "0-1000")
    assert (found.best, found.differs, found.boxes, dict(found.iou)) == (None, False, boxes, {})


def test_replies_without_boxes_do_not_count():
    silent = [RawReply(r.truth, [], r.image_size, r.input_size) for r in replies("0-1000")]
    assert fit(silent, "0-1000").boxes == 0


def test_boxes_at_random_fit_no_space():
    rng = random.Random(1)
    anywhere = [
        RawReply(
            r.truth,
            [(name, [rng.uniform(0, 1000) for _ in range(4)]) for name, _ in r.truth],
            r.image_size,
            r.input_size,
        )
        for r in replies("0-1000")
    ]
    found = fit(anywhere, "0-1000")
    assert found.best is None and not found.differs and found.boxes >= MIN_BOXES


def test_swapped_corners_are_the_same_box():
    swapped = [
        RawReply(
            r.truth,
            [(label, [*values[2:], *values[:2]]) for label, values in r.found],
            r.image_size,
            r.input_size,
        )
        for r in replies("0-1024")
    ]
    assert fit(swapped, "0-1000").best == "0-1024"


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_family_has_a_space(family):
    assert space_of(family) == ("0-1000" if family.coordinates == "relative" else "input_pixels")


def test_a_fine_tune_may_have_another_scale():
    assert space_of(dataclasses.replace(FAMILIES["qwen3_5"], box_scale=1024)) == "0-1024"
