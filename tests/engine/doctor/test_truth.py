"""Truth: a backend that knows the scenes is found right, one that errs is found wrong."""

from __future__ import annotations

import pytest
from oracle import oracle
from qwen_vl_suite.qwenvl.doctor import truth
from qwen_vl_suite.qwenvl.doctor.questions import KINDS
from qwen_vl_suite.qwenvl.doctor.time_limit import TimeIsUp, TimeLimit
from qwen_vl_suite.qwenvl.errors import OutOfMemory
from qwen_vl_suite.qwenvl.observer import Observer

NOTHING = {"describe": "A wall.", "read": "No text found.", "boxes": "[]", "points": "[]"}


def ask(backend, scenes=12, observer=None):
    said = []
    return truth.ask(backend, scenes, observer or Observer(), said.append), said


def test_right_answers_are_all_found():
    found, said = ask(oracle(12))
    assert said == ["6 of 12 scenes", "12 of 12 scenes"]
    assert {kind: task.recall for kind, task in found.tasks.items()} == dict.fromkeys(KINDS, 1)
    boxes = found.tasks["boxes"]
    assert boxes.precision == 1 and boxes.mean_iou > 0.98
    assert found.coordinates.best == found.coordinates.expected == "0-1000"
    assert not found.examples and not found.is_partial
    assert found.questions == sum(task.asked for task in found.tasks.values())


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_missed_is_told_with_what_was_there(kind):
    found, _ = ask(
        oracle(
            6,
            replace=lambda question: NOTHING.get(question.kind) if question.kind == kind else None,
        ),
        6,
    )
    assert {k for k, task in found.tasks.items() if task.recall < 1} == {kind}
    assert found.tasks[kind].recall == 0
    assert {example.kind for example in found.examples} == {kind}
    assert all(example.expected and example.reply for example in found.examples)


def test_a_failed_request_is_counted_and_the_others_are_scored():
    def replace(question):
        return OutOfMemory("too large") if question.kind == "read" else None

    found, _ = ask(oracle(6, replace=replace), 6)
    read = found.tasks["read"]
    assert (read.failed, read.recall) == (read.asked, 0)
    assert found.tasks["boxes"].recall == 1
    assert {example.error for example in found.examples} == {"too large"}


def test_unreadable_replies_are_counted():
    found, _ = ask(oracle(6, replace=lambda q: "I like it." if q.kind == "boxes" else None), 6)
    assert found.tasks["boxes"].failed == found.tasks["boxes"].asked > 0
    assert found.coordinates.boxes == 0


class Switch(Observer):
    """Its time is up once it is on."""

    on = False

    def check(self):
        if self.on:
            raise TimeIsUp


@pytest.mark.parametrize("requests", [0, 25])
def test_when_the_time_is_up_what_was_answered_counts(requests):
    observer, asked = Switch(), []

    def on_request():
        asked.append(1)
        observer.on = len(asked) > requests

    found, said = ask(oracle(12, on_request=on_request), observer=observer)
    assert len(asked) == requests + 1 and found.is_partial
    if not requests:
        assert (said, found.scenes, found.questions) == ([], 0, 0)
        assert found.tasks["boxes"].recall is None
    else:
        assert (said, found.scenes, found.wanted) == (["6 of 12 scenes"], 6, 12)
        assert found.tasks["boxes"].recall == 1


def test_the_time_limit_is_kept_from_the_first_request_on():
    limit = TimeLimit(-1)
    limit.check()  # loading takes what it takes
    limit.start([1], [1])
    with pytest.raises(TimeIsUp):
        limit.check()
    for seconds in (None, 3600):
        limit = TimeLimit(seconds)
        limit.start([1], [1])
        limit.check()
