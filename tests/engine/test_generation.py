"""Choosing tokens, knowing when to stop, and planning batches: no model needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.costs import Need
from qwen_vl_suite.qwenvl.errors import BadOption, NumericalError
from qwen_vl_suite.qwenvl.generation import (
    Budget,
    Row,
    TextStream,
    check_sampling,
    choose,
    loop_start,
)
from qwen_vl_suite.qwenvl.types import Sampling

EOS, CLOSE = 0, (8, 9)


def row(thinking: bool = False, index: int = 0, **sampling) -> Row:
    return Row(index, Sampling(**sampling), [1, 2], frozenset({EOS}), CLOSE, thinking)


def logits(**high: float) -> torch.Tensor:
    values = torch.zeros(20)
    for token, value in high.items():
        values[int(token[1:])] = value
    return values


def run(subject: Row, *tokens: int) -> Row:
    for token in tokens:
        if subject.finish_reason is None:
            subject.accept(token)
    return subject


def draws(count: int, values: torch.Tensor, **sampling) -> Counter:
    found: Counter = Counter()
    for seed in range(count):
        found[row(temperature=1.0, seed=seed, **sampling).choose(values.clone())] += 1
    return found


def test_greedy_takes_the_likeliest() -> None:
    assert row().choose(logits(t3=1.0, t5=2.0)) == 5


def test_sampling_follows_the_probabilities() -> None:
    values = torch.full((20,), -torch.inf)
    values[3], values[4] = torch.log(torch.tensor([0.75, 0.25]))
    found = draws(2000, values)
    assert set(found) == {3, 4}
    assert 0.70 < found[3] / 2000 < 0.80


FILTERS = {
    "top_k": ({"top_k": 2}, {3, 4}),
    "top_p": ({"top_p": 0.5}, {3}),
    "top_p keeps what crosses": ({"top_p": 0.6}, {3, 4}),
    "min_p": ({"min_p": 0.5}, {3, 4}),
    "top_p 0 is greedy": ({"top_p": 0.0}, {3}),
    "none": ({}, {3, 4, 5}),
}


@pytest.mark.parametrize("case", FILTERS, ids=str)
def test_filters(case: str) -> None:
    options, left = FILTERS[case]
    values = torch.full((20,), -torch.inf)
    values[3], values[4], values[5] = torch.log(torch.tensor([0.55, 0.35, 0.10]))
    assert set(draws(300, values, **options)) == left


def test_equal_seeds_draw_equal_tokens_and_others_do_not() -> None:
    def text(seed: int) -> list[int]:
        subject = row(temperature=1.0, seed=seed)
        return [subject.choose(torch.zeros(20)) for _ in range(20)]

    assert text(7) == text(7)
    assert text(7) != text(8)


def test_presence_penalty_is_subtracted_once_for_what_was_written() -> None:
    subject = row(presence_penalty=1.5)
    assert subject.choose(logits(t3=2.0, t4=1.0)) == 3
    run(subject, 3, 3)
    assert subject.choose(logits(t3=2.0, t4=1.0)) == 4, "2.0 - 1.5 is below 1.0"
    assert subject.choose(logits(t3=2.6, t4=1.0)) == 3, "written twice, penalised once"


def test_presence_penalty_counts_what_came_before_its_first_use() -> None:
    subject = run(row(presence_penalty=1.5), 3)
    assert subject.choose(logits(t3=2.0, t4=1.0)) == 4


def test_repetition_penalty_makes_seen_tokens_less_likely_on_both_sides_of_zero() -> None:
    subject = row(repetition_penalty=2.0)
    assert subject.choose(logits(t1=1.9, t4=1.0)) == 4, "token 1 is in the prompt"
    values = torch.full((20,), -5.0)
    values[2], values[4] = -1.0, -1.5
    assert subject.choose(values) == 4


def test_the_end_token_ends_and_is_not_text() -> None:
    subject = run(row(), 3, EOS)
    assert (subject.ids, subject.finish_reason) == ([3], "stop")


def test_max_new_tokens_is_kept_to_the_token() -> None:
    subject = run(row(max_new_tokens=3), 3, 4, 5, 6)
    assert (subject.ids, subject.finish_reason) == ([3, 4, 5], "length")


def test_thinking_has_its_own_budget_and_is_closed() -> None:
    subject = row(thinking=True, max_new_tokens=2, max_thinking_tokens=3)
    longest, taken = subject.longest, []
    while subject.finish_reason is None:
        token = subject.choose(logits(t5=1.0))
        taken.append(token)
        subject.accept(token)
    assert taken == [5, 5, 5, *CLOSE, 5, 5]
    assert (subject.thought, subject.finish_reason) == (5, "length")
    assert len(taken) == longest


def test_a_thought_that_ends_by_itself_leaves_the_whole_answer() -> None:
    subject = run(row(thinking=True, max_new_tokens=2, max_thinking_tokens=9), 5, *CLOSE, 6, 7)
    assert (subject.ids[subject.thought :], subject.finish_reason) == ([6, 7], "length")


def test_an_end_inside_a_thought_ends_the_thought_only() -> None:
    subject = row(thinking=True)
    taken = [subject.choose(logits(t0=1.0)) for _ in range(2)]
    assert taken == list(CLOSE)
    assert run(subject, *taken).thinking is False
    assert subject.choose(logits(t0=1.0)) == EOS


def test_a_budget_of_no_thought_closes_at_once() -> None:
    subject = row(thinking=True, max_thinking_tokens=0)
    assert subject.choose(logits(t5=1.0)) == CLOSE[0]


def test_a_loop_is_cut_to_one_turn_and_named() -> None:
    turn = list(range(1, 8))
    subject = run(row(max_new_tokens=10_000), 15, 16, *turn * 100)
    assert subject.finish_reason == "repetition"
    assert subject.ids == [15, 16, *turn]


def test_a_loop_in_a_thought_ends_the_thought_only() -> None:
    subject = run(row(thinking=True, max_thinking_tokens=10_000), *[5, 6] * 200)
    assert subject.finish_reason is None
    assert subject.choose(logits(t5=1.0)) == CLOSE[0]


def test_the_answer_behind_a_circling_thought_is_whole() -> None:
    subject = row(thinking=True, max_thinking_tokens=10_000, max_new_tokens=5)
    for token in [5, 6] * 200:
        if subject.choose(logits(t5=1.0)) == CLOSE[0]:
            break
        subject.accept(token)
    thought = len(subject.ids)
    for token in (*CLOSE, 11, 12, 13, 14, 15):
        subject.accept(token)
    assert subject.ids[subject.thought :] == [11, 12, 13, 14, 15]
    assert subject.thought == thought + len(CLOSE)
    assert subject.finish_reason == "length"


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
    tokens=st.integers(1, 5000),
    rows=st.integers(1, 8),
    nbytes=st.none() | st.integers(1, 5000),
)
def test_a_budget_holds_what_is_within_all_its_bounds(sizes, tokens, rows, nbytes) -> None:
    needs = [Need(prompt, answer) for prompt, answer in sizes]

    def work(batch: Sequence[Need]) -> int:
        return sum(need.prompt for need in batch)

    longest = max(n.prompt for n in needs) + max(n.answer for n in needs)
    fits = len(needs) <= rows and len(needs) * longest <= tokens
    fits = fits and (nbytes is None or work(needs) <= nbytes)
    assert Budget(tokens, rows, nbytes).holds(needs, work) == fits


@given(st.text(max_size=60), st.integers(1, 5))
def test_streamed_pieces_add_up_to_the_text_and_hold_no_half_characters(text: str, _n) -> None:
    data = list(text.encode())
    stream = TextStream(lambda ids: bytes(ids).decode(errors="replace"))
    pieces = [stream.grow(data[:end]) for end in range(1, len(data) + 1)]
    assert "".join(pieces) == text or "\ufffd" in text
    assert "\ufffd" not in "".join(pieces) or "\ufffd" in text


def test_rows_of_a_batch_do_not_know_of_each_other() -> None:
    def text(*others: Row) -> list[int]:
        subject = row(temperature=1.0, seed=3, presence_penalty=0.5, max_new_tokens=12)
        rows = [*others, subject]
        while subject.finish_reason is None:
            scores = torch.linspace(-1, 1, 20).repeat(len(rows), 1)
            for item, token in zip(rows, choose(rows, scores), strict=True):
                item.accept(token)
        return subject.ids

    alone = text()
    assert text(row(max_new_tokens=30), row(temperature=2.0, seed=9)) == alone


def test_one_likeliest_token_a_row_or_what_each_row_says() -> None:
    scores = torch.tensor([[0.0, 1.0, 9.0], [0.0, 5.0, 1.0]])
    plain, forced = row(), row(thinking=True, max_thinking_tokens=0)
    assert choose([plain, plain], scores.clone()) == [2, 1]
    assert choose([plain, forced], scores.clone()) == [2, CLOSE[0]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_not_taken_for_an_answer(bad: float) -> None:
    scores = torch.zeros(2, 5)
    scores[1] = bad
    with pytest.raises(NumericalError, match="bf16"):
        choose([row(), row()], scores)


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
