"""Notes on a whole run are shown once in it; notes on an answer beside each."""

from __future__ import annotations

import dataclasses
import json

from qwen_vl_suite.qwenvl.notes import NotesOfRun, RunNote
from qwen_vl_suite.qwenvl.types import Result


def test_a_note_on_the_run_is_shown_once_and_one_on_an_answer_each_time():
    shown, notes = NotesOfRun(), (RunNote("top_k"), "cut")
    assert [shown.new(notes) for _ in range(3)] == [["top_k", "cut"], ["cut"], ["cut"]]
    assert shown.new([RunNote("min_p"), RunNote("min_p")]) == ["min_p"]
    shown.clear()
    assert shown.new(notes) == ["top_k", "cut"]


def test_it_is_a_text_and_stays_what_it_is_in_a_result():
    result = dataclasses.replace(Result("a"), notes=tuple(dict.fromkeys([RunNote("x"), "x"])))
    assert json.dumps(result.notes) == '["x"]'
    shown = NotesOfRun()
    assert (shown.new(result.notes), shown.new(result.notes)) == (["x"], [])
