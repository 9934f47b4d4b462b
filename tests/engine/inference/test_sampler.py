"""Choosing the next token of every row of a batch: no model needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.errors import NumericalError
from qwen_vl_suite.qwenvl.inference.sampler import DRAWS, Sampler, checked
from qwen_vl_suite.qwenvl.inference.sequence import Row
from qwen_vl_suite.qwenvl.types import Sampling

EOS, CLOSE = 0, (8, 9)
CPU, VOCABULARY = torch.device("cpu"), 20


def row(thinking: bool = False, index: int = 0, **sampling: Any) -> Row:
    return Row(index, Sampling(**sampling), [1, 2], frozenset({EOS}), CLOSE, thinking)


class Chooser:
    """A row alone, with what it needs to choose."""

    def __init__(self, thinking: bool = False, written: Sequence[int] = (), **sampling: Any):
        self.row = row(thinking, **sampling)
        self.run(*written)
        self.choices = Sampler([self.row], CPU, VOCABULARY)

    def choose(self, values: torch.Tensor) -> int:
        self.choices.prepare()
        return int(self.choices.choose(values[None]))

    def run(self, *tokens: int) -> None:
        for token in tokens:
            if self.row.finish_reason is None:
                self.row.accept(token)


def batch(*rows: Row) -> Sampler:
    first, *others = (Sampler([row], CPU, VOCABULARY) for row in rows)
    first.add(others)
    return first


def take(choices: Sampler, scores: torch.Tensor) -> list[int]:
    choices.prepare()
    return choices.choose(scores).tolist()


def logits(**high: float) -> torch.Tensor:
    values = torch.zeros(VOCABULARY)
    for token, value in high.items():
        values[int(token[1:])] = value
    return values


def draws(count: int, values: torch.Tensor, **sampling: Any) -> Counter[int]:
    rows = [row(temperature=1.0, seed=seed, **sampling) for seed in range(count)]
    return Counter(take(Sampler(rows, CPU, VOCABULARY), values.repeat(count, 1)))


def test_greedy_takes_the_likeliest() -> None:
    assert Chooser().choose(logits(t3=1.0, t5=2.0)) == 5


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
        subject = Chooser(temperature=1.0, seed=seed)
        return [subject.choose(torch.zeros(20)) for _ in range(20)]

    assert text(7) == text(7)
    assert text(7) != text(8)


def test_presence_penalty_is_subtracted_once_for_what_was_written() -> None:
    subject = Chooser(presence_penalty=1.5)
    assert subject.choose(logits(t3=2.0, t4=1.0)) == 3
    subject.run(3, 3)
    assert subject.choose(logits(t3=2.0, t4=1.0)) == 4, "2.0 - 1.5 is below 1.0"
    assert subject.choose(logits(t3=2.6, t4=1.0)) == 3, "written twice, penalised once"


def test_presence_penalty_counts_what_came_before_its_first_use() -> None:
    subject = Chooser(presence_penalty=1.5, written=[3])
    assert subject.choose(logits(t3=2.0, t4=1.0)) == 4


def test_repetition_penalty_makes_seen_tokens_less_likely_on_both_sides_of_zero() -> None:
    subject = Chooser(repetition_penalty=2.0)
    assert subject.choose(logits(t1=1.9, t4=1.0)) == 4, "token 1 is in the prompt"
    values = torch.full((20,), -5.0)
    values[2], values[4] = -1.0, -1.5
    assert Chooser(repetition_penalty=2.0).choose(values) == 4


def test_thinking_has_its_own_budget_and_is_closed() -> None:
    subject = Chooser(thinking=True, max_new_tokens=2, max_thinking_tokens=3)
    longest, taken = subject.row.longest, []
    while subject.row.finish_reason is None:
        taken.append(subject.choose(logits(t5=1.0)))
        subject.run(taken[-1])
    assert taken == [5, 5, 5, *CLOSE, 5, 5]
    assert (subject.row.thought, subject.row.finish_reason) == (5, "length")
    assert len(taken) == longest


def test_an_end_inside_a_thought_ends_the_thought_only() -> None:
    subject = Chooser(thinking=True)
    taken = [subject.choose(logits(t0=1.0)) for _ in range(2)]
    assert taken == list(CLOSE)
    subject.run(*taken)
    assert subject.row.thinking is False
    assert subject.choose(logits(t0=1.0)) == EOS


def test_a_thought_that_the_model_closes_is_not_closed_again() -> None:
    subject = Chooser(thinking=True, max_thinking_tokens=4)
    said = [5, CLOSE[0], *CLOSE, 5, 5, 5]
    assert [subject.choose(logits(**{f"t{token}": 1.0})) for token in said] == said


def test_a_budget_of_no_thought_closes_at_once() -> None:
    assert Chooser(thinking=True, max_thinking_tokens=0).choose(logits(t5=1.0)) == CLOSE[0]


def test_a_thought_can_be_ended_from_without() -> None:
    subject = Chooser(thinking=True)
    assert subject.choose(logits(t5=1.0)) == 5
    subject.choices.end_thought(0)
    assert [subject.choose(logits(t5=1.0)) for _ in range(3)] == [*CLOSE, 5]


def test_the_answer_behind_a_circling_thought_is_whole() -> None:
    subject = Chooser(thinking=True, max_thinking_tokens=10_000, max_new_tokens=5)
    for token in [5, 6] * 1000:
        subject.run(token)
        if subject.row.circling:
            break
    thought = len(subject.row.ids)
    assert 768 <= thought < 800
    subject.run(*CLOSE, 11, 12, 13, 14, 15)
    assert subject.row.ids[subject.row.thought :] == [11, 12, 13, 14, 15]
    assert subject.row.thought == thought + len(CLOSE)
    assert subject.row.finish_reason == "length"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_are_none_are_not_taken_for_an_answer(bad: float) -> None:
    scores = torch.zeros(2, VOCABULARY)
    scores[1] = bad
    tokens = take(batch(row(), row(temperature=1.0)), scores)
    assert tokens == [0, -1]
    with pytest.raises(NumericalError, match="bf16"):
        checked(tokens)


SAMPLINGS = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**64 - 1),
        "temperature": st.sampled_from([0.0, 0.7, 2.0]),
        "top_k": st.sampled_from([0, 1, 5, 50]),
        "top_p": st.sampled_from([0.0, 0.6, 1.0]),
        "min_p": st.sampled_from([0.0, 0.2]),
        "presence_penalty": st.sampled_from([0.0, 1.5]),
        "repetition_penalty": st.sampled_from([1.0, 1.3]),
        "max_thinking_tokens": st.sampled_from([0, 3, 100]),
    }
)


@given(
    given=st.lists(st.tuples(SAMPLINGS, st.booleans()), min_size=1, max_size=5),
    rounds=st.integers(1, 12),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_who_comes_and_goes_beside_a_row_changes_nothing_for_it(
    given: list[tuple[dict[str, Any], bool]], rounds: int, data: st.DataObject
) -> None:
    """Each row against itself alone, while others join, leave and move."""
    generator = torch.Generator().manual_seed(rounds)
    scores = torch.randn(rounds, VOCABULARY, generator=generator) * 3
    alone = []
    for sampling, thinking in given:
        subject = Chooser(thinking, **sampling)
        alone.append([subject.choose(scores[turn]) for turn in range(rounds)])

    company = batch(*(row(thinking, **sampling) for sampling, thinking in given))
    who, turns = list(range(len(given))), [0] * len(given)
    for _ in range(rounds):
        tokens = take(company, torch.stack([scores[turn] for turn in turns]))
        for place, token in enumerate(tokens):
            assert token == alone[who[place]][turns[place]]
        turns = [turn + 1 for turn in turns]
        for place in range(len(who)):
            if turns[place] == rounds or data.draw(st.booleans()):  # another takes its place
                who[place] = data.draw(st.integers(0, len(given) - 1))
                sampling, thinking = given[who[place]]
                company.replace(place, batch(row(thinking, **sampling)))
                turns[place] = 0
        order = data.draw(st.permutations(range(len(who))))
        order = order[: data.draw(st.integers(1, len(order)))]
        company.keep(order)
        who, turns = [who[place] for place in order], [turns[place] for place in order]


def test_whole_numbers_do_not_make_their_followers_whole() -> None:
    company = batch(row(temperature=1, top_p=0, seed=1))
    company.replace(0, batch(row(temperature=0.7, top_p=0.95, seed=2)))
    scores = torch.linspace(-1, 1, VOCABULARY)
    alone = Chooser(temperature=0.7, top_p=0.95, seed=2)
    for _ in range(20):
        assert take(company, scores[None]) == [alone.choose(scores)]


def test_random_numbers_never_run_out() -> None:
    flat = torch.zeros(1, VOCABULARY)
    alone = Sampler([row(temperature=1.0, seed=3)], CPU, VOCABULARY)
    said = [take(alone, flat)[0] for _ in range(3 * DRAWS)]
    assert said[:DRAWS] != said[DRAWS : 2 * DRAWS] != said[2 * DRAWS :]
    assert len(set(said)) == VOCABULARY
