"""Questions about scenes: what counts as found in an answer."""

from __future__ import annotations

import re
from typing import Any

import pytest
from qwen_vl_suite.qwenvl.doctor.questions import (
    Question,
    as_asked,
    doctor_scene,
    pixel_bound,
    pixels,
    questions_about,
    score,
)
from qwen_vl_suite.qwenvl.doctor.scenes import Line, Scene, Shape
from qwen_vl_suite.qwenvl.doctor.text_questions import TextQuestion, text_questions
from qwen_vl_suite.qwenvl.doctor.text_questions import score as score_text
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.types import Box, Point, Result


def question(kind, shapes=(), lines=(), names=()):
    placed = tuple(
        Shape(name.split()[1], name.split()[0], (100 * k, 0, 100 * k + 80, 80))
        for k, name in enumerate(shapes)
    )
    printed = tuple(Line(text, (0, 200, 90, 220), ()) for text in lines)
    return Question(kind, Scene(None, placed, printed, "light"), describe("short"), names)


DESCRIBED = {
    "A red star and a blue square.": ("red star", "blue square"),
    "A red, five-pointed star beside a square in blue.": ("red star", "blue square"),
    "Red Stars; the square is deep blue": ("red star", "blue square"),
    "a **red** star on a blue ground, no square": ("red star",),
    "A redder starfish on a squared blueprint.": (),
    "A blue star and a red square": (),
    "A star, red, a square, blue": ("red star", "blue square"),
    "A rhombus in violet, a magenta plus": ("purple diamond", "pink cross"),
    "One circle, which is green.": ("green circle",),
}  # fmt: skip


@pytest.mark.parametrize("text", DESCRIBED)
def test_shapes_are_named_by_colour_and_kind(text):
    all_names = ("red star", "blue square", "purple diamond", "pink cross", "green circle")
    named = {n for n in all_names if score(question("describe", [n]), Result(text)).hits}
    assert named == set(DESCRIBED[text])


def test_two_alike_are_named_once():
    asked = question("describe", ["red star", "red star"], ["EXIT"])
    assert (score(asked, Result('Two red stars, "EXIT"')).hits, score(asked, Result("")).total) == (
        2,
        2,
    )


READ = {
    "EXIT\nQ7X": 2,
    "EXIT Q7X": 2,
    "E X I T\nQ 7 X": 2,
    "The sign says EXIT.": 1,
    "Exit\nq7x": 0,
    "EXITS\nQ7": 0,
    "EXIT\nEXIT": 1,
    "": 0,
}


@pytest.mark.parametrize("text", READ)
def test_words_are_read_to_the_letter(text):
    found = score(question("read", lines=["EXIT", "Q7X"]), Result(text))
    assert (found.hits, found.total) == (READ[text], 2)


def test_what_cannot_be_read_holds_nothing():
    unreadable = Result("EXIT", error="no form that can be read")
    assert score(question("read", lines=["EXIT"]), unreadable).hits == 0


def test_boxes_count_under_their_label_and_once():
    asked = question("boxes", ["red star", "blue square"], names=("red star", "blue square"))
    star, square = Box(0, 0, 80, 80, "red star"), Box(100, 0, 180, 80, "blue square")
    assert score(asked, Result("", (star, square))).hits == 2
    found = score(asked, Result("", (star, star, Box(100, 0, 180, 80, "red star"))))
    assert (found.hits, found.extra) == (1, 2)
    half = score(asked, Result("", (Box(0, 0, 60, 80, "red star"),)))
    assert half.ious == (0.75, 0.0)
    assert score(asked, Result("", (Box(0, 0, 30, 80, "red star"),))).hits == 0


def test_points_count_inside_their_shape_and_once():
    asked = question("points", ["red star", "blue square"], names=("red star", "blue square"))
    inside, outside = Point(40, 40, "red star"), Point(90, 40, "blue square")
    found = score(asked, Result("", points=(inside, inside, outside)))
    assert (found.hits, found.total, found.extra) == (1, 2, 2)


LABELS = {
    ("Red Stars", ("red star", "blue square")): "red star",
    ("star", ("red star", "blue square")): "star",
    ("object", ("red star",)): "red star",
    ("", ("red star",)): "red star",
}


@pytest.mark.parametrize(("label", "names"), LABELS)
def test_labels_mean_what_was_asked_for(label, names):
    assert as_asked(label, names) == LABELS[label, names]


def test_every_scene_has_questions_and_all_kinds_are_asked():
    for number in range(6):
        scene = doctor_scene(number)
        kinds = [question.kind for question in questions_about(scene)]
        assert ("read" in kinds) == bool(scene.lines)
        assert ("boxes" in kinds) == ("points" in kinds) == bool(scene.shapes)
    assert tuple(pixels(scene).shape) == (3, *scene.picture.size[::-1])


def test_the_model_sees_a_picture_of_another_size():
    scene = doctor_scene(0)
    width, height = scene.picture.size
    assert pixel_bound(scene, None) == pixel_bound(scene, 10**7) == width * height // 2
    assert pixel_bound(scene, 50_000) is None  # the checkpoint's own bound is lower


def test_questions_in_words_have_one_answer_each_and_replies_are_read_leniently() -> None:
    asked = [question for number in range(20) for question in text_questions(number)]
    assert len({question.task.prompt for question in asked}) == len(asked)
    assert text_questions(3) == text_questions(3)
    for question in asked:
        expected = question.expected
        if question.kind == "add":
            assert sum(map(int, re.findall(r"\d+", question.task.prompt))) == int(expected)
        else:
            assert re.findall(rf"\b{expected}\b", question.task.prompt) == [expected]
        if question.kind == "look up":
            assert hits(question, question.task.prompt) == 0, "it only repeats the text"
        for reply in (expected, f"**{expected}**", f"It is {expected}.", f"{expected} is right"):
            assert hits(question, reply) == 1
        for reply in ("", "No.", f"{expected}0", "ABCDEF 0", expected[:-1]):
            assert hits(question, reply) == 0
    addition = next(question for question in asked if question.kind == "add")
    assert hits(addition, f"10 + 7 = {addition.expected}") == 1
    assert score_text(addition, Result(addition.expected, error="cut off")).hits == 0


def hits(question: TextQuestion, reply: str) -> int:
    context: Any = None
    return score_text(question, question.task.parse(reply, context)).hits
