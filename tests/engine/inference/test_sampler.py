"""Sampler: the next token of every row of a batch. No model needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.inference.sampler import BUFFERED_NUMBERS, Sampler
from qwen_vl_suite.qwenvl.inference.sequence import Row
from qwen_vl_suite.qwenvl.inference.stopping import append_token
from qwen_vl_suite.qwenvl.types import Sampling

EOS, CLOSE = 0, (8, 9)
CPU, VOCABULARY = torch.device("cpu"), 20


def row(thinking: bool = False, index: int = 0, **sampling: Any) -> Row:
    return Row(index, Sampling(**sampling), [1, 2], frozenset({EOS}), CLOSE, thinking)


class SingleRow:
    """A row alone with its sampler."""

    def __init__(self, thinking: bool = False, generated: Sequence[int] = (), **sampling: Any):
        self.row = row(thinking, **sampling)
        self.run(*generated)
        self.sampler = Sampler([self.row], CPU, VOCABULARY)

    def sample(self, values: torch.Tensor) -> int:
        self.sampler.prepare()
        return int(self.sampler.sample(values[None]).tokens)

    def run(self, *tokens: int) -> None:
        for token in tokens:
            if self.row.finish_reason is None:
                append_token(self.row, token)


def batch(*rows: Row) -> Sampler:
    first, *others = (Sampler([row], CPU, VOCABULARY) for row in rows)
    first.add(others)
    return first


def take(sampler: Sampler, scores: torch.Tensor) -> list[int]:
    sampler.prepare()
    return sampler.sample(scores).tokens.tolist()


def logits(**high: float) -> torch.Tensor:
    values = torch.zeros(VOCABULARY)
    for token, value in high.items():
        values[int(token[1:])] = value
    return values


def draws(count: int, values: torch.Tensor, **sampling: Any) -> Counter[int]:
    rows = [row(temperature=1.0, seed=seed, **sampling) for seed in range(count)]
    return Counter(take(Sampler(rows, CPU, VOCABULARY), values.repeat(count, 1)))


def test_greedy_takes_the_likeliest_token() -> None:
    assert SingleRow().sample(logits(t3=1.0, t5=2.0)) == 5


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
        subject = SingleRow(temperature=1.0, seed=seed)
        return [subject.sample(torch.zeros(20)) for _ in range(20)]

    assert text(7) == text(7)
    assert text(7) != text(8)


def test_presence_penalty_is_subtracted_once_for_generated_tokens() -> None:
    subject = SingleRow(presence_penalty=1.5)
    assert subject.sample(logits(t3=2.0, t4=1.0)) == 3
    subject.run(3, 3)
    assert subject.sample(logits(t3=2.0, t4=1.0)) == 4, "2.0 - 1.5 is below 1.0"
    assert subject.sample(logits(t3=2.6, t4=1.0)) == 3, "generated twice, penalised once"


def test_presence_penalty_counts_tokens_generated_before_the_sampler() -> None:
    subject = SingleRow(presence_penalty=1.5, generated=[3])
    assert subject.sample(logits(t3=2.0, t4=1.0)) == 4


def test_repetition_penalty_makes_present_tokens_less_likely_on_both_sides_of_zero() -> None:
    subject = SingleRow(repetition_penalty=2.0)
    assert subject.sample(logits(t1=1.9, t4=1.0)) == 4, "token 1 is in the prompt"
    values = torch.full((20,), -5.0)
    values[2], values[4] = -1.0, -1.5
    assert SingleRow(repetition_penalty=2.0).sample(values) == 4


def test_thinking_has_its_own_limit_and_is_closed() -> None:
    subject = SingleRow(thinking=True, max_new_tokens=2, max_thinking_tokens=3)
    longest, taken = subject.row.max_output, []
    while subject.row.finish_reason is None:
        taken.append(subject.sample(logits(t5=1.0)))
        subject.run(taken[-1])
    assert taken == [5, 5, 5, *CLOSE, 5, 5]
    assert (subject.row.thought_length, subject.row.finish_reason) == (5, "length")
    assert len(taken) == longest


def test_an_end_token_inside_a_thought_closes_the_thought_only() -> None:
    subject = SingleRow(thinking=True)
    taken = [subject.sample(logits(t0=1.0)) for _ in range(2)]
    assert taken == list(CLOSE)
    subject.run(*taken)
    assert subject.row.thinking is False
    assert subject.sample(logits(t0=1.0)) == EOS


def test_a_thought_that_the_model_closes_is_not_closed_again() -> None:
    subject = SingleRow(thinking=True, max_thinking_tokens=4)
    tokens_drawn = [5, CLOSE[0], *CLOSE, 5, 5, 5]
    assert [subject.sample(logits(**{f"t{token}": 1.0})) for token in tokens_drawn] == tokens_drawn


def test_a_thinking_limit_of_zero_closes_at_once() -> None:
    assert SingleRow(thinking=True, max_thinking_tokens=0).sample(logits(t5=1.0)) == CLOSE[0]


def test_a_thought_can_be_closed_from_outside() -> None:
    subject = SingleRow(thinking=True)
    assert subject.sample(logits(t5=1.0)) == 5
    subject.sampler.close_thought(0)
    assert [subject.sample(logits(t5=1.0)) for _ in range(3)] == [*CLOSE, 5]


def test_the_answer_behind_a_repeating_thought_is_whole() -> None:
    subject = SingleRow(thinking=True, max_thinking_tokens=10_000, max_new_tokens=5)
    for token in [5, 6] * 1000:
        subject.run(token)
        if subject.row.thought_repeats:
            break
    thought = len(subject.row.output_ids)
    assert 768 <= thought < 800
    subject.run(*CLOSE, 11, 12, 13, 14, 15)
    assert subject.row.output_ids[subject.row.thought_length :] == [11, 12, 13, 14, 15]
    assert subject.row.thought_length == thought + len(CLOSE)
    assert subject.row.finish_reason == "length"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_logits_that_are_not_finite_give_no_token(bad: float) -> None:
    scores = torch.zeros(2, VOCABULARY)
    scores[1] = bad
    tokens = take(batch(row(), row(temperature=1.0)), scores)
    assert tokens == [0, -1]


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
    steps=st.integers(1, 12),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_a_row_is_not_changed_by_rows_that_join_and_leave(
    given: list[tuple[dict[str, Any], bool]], steps: int, data: st.DataObject
) -> None:
    """Each row against itself alone, while others join, leave and change slots."""
    generator = torch.Generator().manual_seed(steps)
    scores = torch.randn(steps, VOCABULARY, generator=generator) * 3
    alone = []
    for sampling, thinking in given:
        subject = SingleRow(thinking, **sampling)
        alone.append([subject.sample(scores[step]) for step in range(steps)])

    rows_together = batch(*(row(thinking, **sampling) for sampling, thinking in given))
    which, taken = list(range(len(given))), [0] * len(given)
    for _ in range(steps):
        tokens = take(rows_together, torch.stack([scores[step] for step in taken]))
        for place, token in enumerate(tokens):
            assert token == alone[which[place]][taken[place]]
        taken = [step + 1 for step in taken]
        for place in range(len(which)):
            if taken[place] == steps or data.draw(st.booleans()):  # another takes its place
                which[place] = data.draw(st.integers(0, len(given) - 1))
                sampling, thinking = given[which[place]]
                rows_together.replace(place, batch(row(thinking, **sampling)))
                taken[place] = 0
        order = data.draw(st.permutations(range(len(which))))
        order = order[: data.draw(st.integers(1, len(order)))]
        rows_together.keep(order)
        which, taken = [which[place] for place in order], [taken[place] for place in order]


def test_integer_parameters_do_not_round_those_of_the_next_row() -> None:
    rows_together = batch(row(temperature=1, top_p=0, seed=1))
    rows_together.replace(0, batch(row(temperature=0.7, top_p=0.95, seed=2)))
    scores = torch.linspace(-1, 1, VOCABULARY)
    alone = SingleRow(temperature=0.7, top_p=0.95, seed=2)
    for _ in range(20):
        assert take(rows_together, scores[None]) == [alone.sample(scores)]


def test_random_numbers_never_run_out() -> None:
    flat = torch.zeros(1, VOCABULARY)
    alone = Sampler([row(temperature=1.0, seed=3)], CPU, VOCABULARY)
    tokens_drawn = [take(alone, flat)[0] for _ in range(3 * BUFFERED_NUMBERS)]
    assert (
        tokens_drawn[:BUFFERED_NUMBERS]
        != tokens_drawn[BUFFERED_NUMBERS : 2 * BUFFERED_NUMBERS]
        != tokens_drawn[2 * BUFFERED_NUMBERS :]
    )
    assert len(set(tokens_drawn)) == VOCABULARY
