"""Guesses: what they are made of, when they are made, and that they never change an answer."""

from __future__ import annotations

import random
from typing import Any

import pytest
import tiny
import torch
from asking import Always, Never, ask, counted, picture, row_ids
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.errors import NumericalError
from qwen_vl_suite.qwenvl.inference.batch import Batch, NewRow
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.inference.model_runner import ModelRunner
from qwen_vl_suite.qwenvl.inference.sampler import Sampler
from qwen_vl_suite.qwenvl.inference.scheduler import ActiveRequest
from qwen_vl_suite.qwenvl.inference.sequence import Row
from qwen_vl_suite.qwenvl.inference.speculative.adaptive import AdaptiveSpeculation
from qwen_vl_suite.qwenvl.inference.speculative.prompt_lookup import PromptLookup
from qwen_vl_suite.qwenvl.inference.speculative.verify import MAX_DRAFT_TOKENS, accepted_tokens
from qwen_vl_suite.qwenvl.types import Request, Sampling

TOKENS = st.lists(st.integers(0, 4), max_size=60)


def test_what_followed_the_last_time_is_guessed() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2])
    assert lookup.draft() == [5, 6, 7, 8, 9, 10][:MAX_DRAFT_TOKENS]
    lookup.extend([3])
    assert lookup.draft() == [4, 1, 2, 5, 6, 7][:MAX_DRAFT_TOKENS]
    lookup.extend([99])
    assert lookup.draft() == []


@given(TOKENS, TOKENS)
def test_a_guess_is_from_what_was_written(first: list[int], second: list[int]) -> None:
    lookup = PromptLookup(first)
    lookup.extend(second)
    said, guess = first + second, PromptLookup(first + second).draft()
    assert lookup.draft() == guess and len(guess) <= MAX_DRAFT_TOKENS
    places = [at for at in range(2, len(said)) if said[at - 2 : at] == said[-2:]]
    expected = said[places[-1] :][:MAX_DRAFT_TOKENS] if len(said) > 1 and places else []
    assert guess == expected


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), min_size=7, max_size=7))
def test_a_row_gains_what_the_model_would_have_said(guess: list[int], said: list[int]) -> None:
    gained = accepted_tokens(guess, said)
    assert gained == said[: len(gained)] and gained
    assert gained[:-1] == guess[: len(gained) - 1]
    assert len(gained) == 1 + len(guess) or gained[-1] != guess[len(gained) - 1]


def test_guessing_stops_where_it_does_not_pay_and_is_tried_again() -> None:
    worth = AdaptiveSpeculation()
    assert not worth.pays, "nothing to compare with"
    worth.record_decode(0.010)
    for _ in range(20):
        assert worth.pays
        worth.record_verify(0.015, 2.0)
    for _ in range(20):
        worth.record_verify(0.030, 1.5)
    assert not worth.pays
    rounds_without = 0
    while not worth.pays:
        worth.record_decode(0.010)
        rounds_without += 1
    assert 10 < rounds_without < 1000


LINEAR = ("qwen3_5", "qwen3_5_moe")
REQUESTS = [
    ask("what is it?", picture(50, 80), tokens=30),
    ask("only words", tokens=30),
    ask("both", picture(100, 100), picture(200, 64), tokens=20),
    ask("long", picture(64, 64), tokens=60),
]


def quiet(backend: Any, model_type: str) -> Any:
    subject = backend(model_type)
    subject.prefix_cache.clear()
    subject.batch_limits, subject.adaptive_lookup = BatchLimits(), AdaptiveSpeculation()
    return subject


@pytest.mark.usefixtures("step_policy")
@pytest.mark.parametrize("model_type", list(tiny.CONFIGS))
def test_guesses_never_change_an_answer(
    backend: Any, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guesses that are right, wrong, and right up to a place, for one row and for several."""
    subject = quiet(backend, model_type)
    subject.adaptive_lookup = Never()
    alone = [subject.generate([question])[0] for question in REQUESTS]
    said = {question.prompt: row_ids(subject, question) for question in REQUESTS}
    subject.adaptive_lookup = Always()
    draw = random.Random(5)

    def prompted(self: Any) -> list[int]:
        done = len(self.row.ids)
        guess = said[self.prompt.request.prompt][done : done + MAX_DRAFT_TOKENS]
        wrong = draw.randrange(MAX_DRAFT_TOKENS + 1)
        return [*guess[:wrong], *(100 + draw.randrange(100) for _ in guess[wrong:])]

    monkeypatch.setattr(ActiveRequest, "draft", prompted)
    for rows in (1, 2, 4):
        subject.batch_limits = BatchLimits(rows=rows)
        with counted() as counts:
            assert subject.generate(REQUESTS) == alone, f"{rows} at once"
        # Of several rows with linear attention only the last is guessed for, where it is alone.
        least = 2 if model_type not in LINEAR or rows == 1 else 1.5
        assert counts["gained"] > least * counts["checks"] > 0


@pytest.mark.usefixtures("step_policy")
@pytest.mark.parametrize("model_type", ["qwen3_vl", *LINEAR])
def test_what_a_row_owes_is_paid_before_others_join(backend: Any, model_type: str) -> None:
    """A check that was wrong, then plain rounds, a row beside it, and a check again."""
    decoder = ModelRunner(backend(model_type).model, -1, 2)

    def start(*ids: int) -> NewRow:
        read, position = decoder.read(ids, [], None)
        row = Row(0, Sampling(60), list(ids), frozenset(), ())
        choices = Sampler([row], decoder.device, len(read.logits))
        return NewRow(read, choices, int(read.logits.argmax()), position, 60)

    def launched(subject: Batch, times: int) -> list[list[int]]:
        for _ in range(times):
            subject.launch()
        return [subject.collect(all_of_them=True) or [] for _ in range(times)]

    with torch.no_grad():
        plain = Batch(decoder)
        plain.add([start(101, 102, 103)])
        said = [tokens[0] for tokens in launched(plain, 24)]
        plain.clear()
        plain.add([start(104, 105)])
        other = [tokens[0] for tokens in launched(plain, 6)]

        subject = Batch(decoder)
        subject.add([start(101, 102, 103)])
        for done in (0, 3):
            wrong = [*said[done : done + 2], (said[done + 2] + 1) % 300, 7]
            assert subject.check([wrong]) == [said[done : done + 3]]
            assert subject.owes == (model_type in LINEAR)
        assert launched(subject, 2) == [[token] for token in said[6:8]]
        assert subject.check([[(said[8] + 1) % 300]]) == [[said[8]]]
        subject.add([start(104, 105)])
        assert launched(subject, 6) == [list(pair) for pair in zip(said[9:15], other, strict=True)]
        subject.leave(1)
        assert subject.can_check
        assert subject.check([said[15:17], []])[0] == said[15:18]
        assert subject.check([[(said[18] + 1) % 300], []])[0] == [said[18]]
        subject.keep([0])
        assert subject.check([[]]) == [[said[19]]] and not subject.owes
        assert launched(subject, 4) == [[token] for token in said[20:24]]


def test_rows_that_sample_are_not_guessed(backend: Any) -> None:
    subject = quiet(backend, "qwen3_vl")
    subject.adaptive_lookup = Always()
    with counted() as counts:
        subject.generate([ask("warm", picture(64, 64), temperature=1.0, seed=2, tokens=40)])
        subject.generate([ask("again", picture(64, 64), repetition_penalty=1.1, tokens=40)])
    assert counts["launches"] and not counts["checks"]


def test_an_answer_that_repeats_itself_takes_fewer_passes(backend: Any) -> None:
    """Tiny models turn in circles by themselves."""
    subject = quiet(backend, "qwen3_vl")
    asked = [ask(str(n), picture(64, 64, n), tokens=100) for n in range(12)]
    subject.chat_template.eos_ids, kept = frozenset(), subject.chat_template.eos_ids
    try:
        with counted() as plain:
            subject.adaptive_lookup = Never()
            calm = [subject.generate([question])[0] for question in asked]
        with counted() as guessed:
            subject.adaptive_lookup = Always()
            assert [subject.generate([question])[0] for question in asked] == calm
    finally:
        subject.chat_template.eos_ids = kept
    assert guessed["launches"] + guessed["checks"] < plain["launches"]


def test_guesses_go_as_far_as_the_answer_may_whatever_was_thought() -> None:
    row = Row(0, Sampling(8), [], frozenset({99}), (7,), thinking=True)
    for token in [*[1, 2, 3] * 20, 7, 1, 2]:
        row.accept(token)
    running = ActiveRequest(row, None, None)  # type: ignore[arg-type]
    assert len(running.draft()) == 4, "six are left, this one and that behind it not guessed"
    for token in [3, 1, 2]:
        row.accept(token)
    assert len(running.draft()) == 2


def test_bad_numbers_are_told_from_a_check_too(backend: Any) -> None:
    subject = quiet(backend, "qwen3_vl")
    subject.adaptive_lookup = Always()

    def spoil(_module: Any, _args: Any, out: Any) -> None:
        if out.logits.shape[1] > 1:
            out.logits.fill_(torch.nan)

    question = Request((picture(64, 64),), "again again again again", sampling=Sampling(60))
    hook = subject.model.register_forward_hook(spoil)
    try:
        with pytest.MonkeyPatch.context() as patch, pytest.raises(NumericalError):
            patch.setattr(PromptLookup, "draft", lambda _: [101, 102])
            subject.generate([question])
    finally:
        hook.remove()
