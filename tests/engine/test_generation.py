"""Knowing when to stop, and planning batches: no model needed."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.costs import Need
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.generation import (
    Budget,
    Row,
    TextStream,
    check_sampling,
    loop_start,
)
from qwen_vl_suite.qwenvl.types import Sampling

EOS, CLOSE = 0, (8, 9)


def row(thinking: bool = False, index: int = 0, **sampling) -> Row:
    return Row(index, Sampling(**sampling), [1, 2], frozenset({EOS}), CLOSE, thinking)


def run(subject: Row, *tokens: int) -> Row:
    for token in tokens:
        if subject.finish_reason is None:
            subject.accept(token)
    return subject


def test_the_end_token_ends_and_is_not_text() -> None:
    subject = run(row(), 3, EOS)
    assert (subject.ids, subject.finish_reason) == ([3], "stop")


def test_max_new_tokens_is_kept_to_the_token() -> None:
    subject = run(row(max_new_tokens=3), 3, 4, 5, 6)
    assert (subject.ids, subject.finish_reason) == ([3, 4, 5], "length")


def test_a_thought_that_ends_by_itself_leaves_the_whole_answer() -> None:
    subject = run(row(thinking=True, max_new_tokens=2, max_thinking_tokens=9), 5, *CLOSE, 6, 7)
    assert (subject.ids[subject.thought :], subject.finish_reason) == ([6, 7], "length")


def test_a_loop_is_cut_to_one_turn_and_named() -> None:
    turn = list(range(1, 8))
    subject = run(row(max_new_tokens=10_000), 15, 16, *turn * 100)
    assert subject.finish_reason == "repetition"
    assert subject.ids == [15, 16, *turn]


@given(
    head=st.lists(st.integers(0, 3), max_size=40),
    turn=st.lists(st.integers(0, 9), min_size=1, max_size=40),
)
def test_any_exact_loop_is_found(head: list[int], turn: list[int]) -> None:
    turns = max(8, 200 // len(turn) + 1)
    kept = loop_start([*head, *turn * turns])
    assert kept is not None and kept <= len(head) + len(turn)


NOT_LOOPS = {
    "short": [5] * 100,
    "few turns": list(range(50)) * 4,
    "counting": list(range(500)),
    "looped before, went on": [5] * 300 + list(range(20)),
}


@pytest.mark.parametrize("case", NOT_LOOPS, ids=str)
def test_what_is_no_loop_is_left_alone(case: str) -> None:
    assert loop_start(NOT_LOOPS[case]) is None


@given(
    sizes=st.lists(st.tuples(st.integers(1, 500), st.integers(1, 500)), min_size=1, max_size=12),
    rows=st.integers(1, 8),
    nbytes=st.none() | st.integers(1, 5000),
)
def test_a_budget_holds_what_is_within_all_its_bounds(sizes, rows, nbytes) -> None:
    needs = [Need(prompt, answer) for prompt, answer in sizes]

    def work(batch: Sequence[Need]) -> int:
        return sum(need.prompt for need in batch)

    fits = len(needs) <= rows and (nbytes is None or work(needs) <= nbytes)
    assert Budget(rows, nbytes).holds(needs, work) == fits


@given(st.text(max_size=60), st.integers(1, 5))
def test_streamed_pieces_add_up_to_the_text_and_hold_no_half_characters(text: str, _n) -> None:
    data = list(text.encode())
    stream = TextStream(lambda ids: bytes(ids).decode(errors="replace"))
    pieces = [stream.grow(data[:end]) for end in range(1, len(data) + 1)]
    assert "".join(pieces) == text or "\ufffd" in text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("top_p", 1.5),
        ("top_k", -1),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("presence_penalty", 3),
        ("max_thinking_tokens", -1),
        ("temperature", float("nan")),
    ],
)
def test_values_out_of_range_are_named(name: str, value: float) -> None:
    with pytest.raises(BadOption, match=name):
        check_sampling(Sampling(**{name: value}))
