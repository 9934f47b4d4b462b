"""Multiple choice: how choices are written, and answers of backends that hold nothing."""

from __future__ import annotations

import pytest
import torch
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.constraints import split_choices
from qwen_vl_suite.qwenvl.errors import BadOption, UnreadableReply
from qwen_vl_suite.qwenvl.tasks.choose import choose

SHOWN = torch.zeros(3, 64, 64, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("text", "choices"),
    [
        ("yes, no", ["yes", "no"]),
        ("是、否，是", ["是", "否"]),
        ("a cat, lying\n\na cat, sitting \n", ["a cat, lying", "a cat, sitting"]),
        (" yes ", ["yes"]),
    ],
)
def test_choices_are_lines_or_parted_by_commas(text: str, choices: list[str]) -> None:
    assert split_choices(text) == choices


@pytest.mark.parametrize("reply", ["yes", "Yes.", "**yes**", "<think>\nHm, no.\n</think>\n\nYES"])
def test_an_answer_that_nothing_held_is_taken_for_its_choice(reply: str) -> None:
    backend = ScriptedBackend(reply)
    (result,) = run.answer(backend, choose("yes, no", "Is it red?"), [SHOWN])
    assert result.text == "yes"
    assert backend.requests[0].prompt == "Is it red?\nAnswer with one of: yes, no."


@pytest.mark.parametrize("reply", ["perhaps", "yes and no", "", "!"])
def test_any_other_answer_is_unreadable(reply: str) -> None:
    with pytest.raises(UnreadableReply, match="none of the choices \\(yes, no\\)"):
        run.answer(ScriptedBackend(reply), choose("yes, no"), [SHOWN])


def test_choices_with_commas_are_told_line_by_line() -> None:
    task = choose("a cat, lying\na cat, sitting", "What is it?")
    assert task.prompt == "What is it?\nAnswer with one of:\na cat, lying\na cat, sitting"


def test_there_must_be_a_choice() -> None:
    with pytest.raises(BadOption, match="Name at least one choice"):
        choose(" , ")
