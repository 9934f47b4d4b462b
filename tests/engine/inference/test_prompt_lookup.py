"""Speculative decoding by prompt lookup: drafts, when they are made, and that they never change an
answer."""

from __future__ import annotations

import random
from typing import Any

import pytest
import tiny
import torch
from asking import KINDS, Always, Never, ask, counted, generated_ids, picture
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.errors import NumericalError
from qwen_vl_suite.qwenvl.inference.batch import Batch, NewRow
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.inference.model_runner import ModelRunner
from qwen_vl_suite.qwenvl.inference.mrope import PositionRule
from qwen_vl_suite.qwenvl.inference.sampler import Sampler
from qwen_vl_suite.qwenvl.inference.scheduler import ActiveRequest
from qwen_vl_suite.qwenvl.inference.sequence import Row, SampledToken
from qwen_vl_suite.qwenvl.inference.speculative.adaptive import AdaptiveSpeculation
from qwen_vl_suite.qwenvl.inference.speculative.prompt_lookup import PromptLookup
from qwen_vl_suite.qwenvl.inference.speculative.verify import MAX_DRAFT_TOKENS, accepted_tokens
from qwen_vl_suite.qwenvl.inference.stopping import append_token
from qwen_vl_suite.qwenvl.types import Request, Sampling

TOKENS = st.lists(st.integers(0, 4), max_size=60)


def test_what_followed_the_last_occurrence_is_drafted() -> None:
    lookup = PromptLookup([1, 2, 3, 4, 1, 2, 5, 6, 7, 8, 9, 10, 11, 12, 1, 2])
    assert lookup.draft() == [5, 6, 7, 8, 9, 10][:MAX_DRAFT_TOKENS]
    lookup.extend([3])
    assert lookup.draft() == [4, 1, 2, 5, 6, 7][:MAX_DRAFT_TOKENS]
    lookup.extend([99])
    assert lookup.draft() == []


@given(TOKENS, TOKENS)
def test_a_draft_follows_the_last_equal_ngram(first: list[int], second: list[int]) -> None:
    lookup = PromptLookup(first)
    lookup.extend(second)
    ids, draft = first + second, PromptLookup(first + second).draft()
    assert lookup.draft() == draft and len(draft) <= MAX_DRAFT_TOKENS
    places = [at for at in range(2, len(ids)) if ids[at - 2 : at] == ids[-2:]]
    expected = ids[places[-1] :][:MAX_DRAFT_TOKENS] if len(ids) > 1 and places else []
    assert draft == expected


@given(st.lists(st.integers(0, 2), max_size=6), st.lists(st.integers(0, 2), min_size=7, max_size=7))
def test_accepted_tokens_are_those_of_the_model(draft: list[int], target: list[int]) -> None:
    accepted = accepted_tokens(draft, target)
    assert accepted == target[: len(accepted)] and accepted
    assert accepted[:-1] == draft[: len(accepted) - 1]
    assert len(accepted) == 1 + len(draft) or accepted[-1] != draft[len(accepted) - 1]


def test_speculation_pauses_where_it_does_not_pay_and_is_tried_again() -> None:
    speculation = AdaptiveSpeculation()
    assert not speculation.pays, "nothing to compare with"
    speculation.record_decode(0.010)
    for _ in range(20):
        assert speculation.pays
        speculation.record_verify(0.015, 2.0)
    while speculation.pays:
        speculation.record_verify(0.030, 1.5)
    pauses = []
    for _ in range(4):
        pauses.append(steps_of_pause(speculation))
        while speculation.pays:  # tried once more
            speculation.record_verify(0.030, 1.5)
    assert 10 < pauses[0] < 1000
    assert pauses[1:] == [2 * pause for pause in pauses[:-1]], "tries that never pay get rarer"
    steps_of_pause(speculation)
    for _ in range(20):
        speculation.record_verify(0.005, 2.0)
    while speculation.pays:
        speculation.record_verify(0.030, 1.5)
    assert steps_of_pause(speculation) == pauses[0], "it did pay since"


def steps_of_pause(speculation: AdaptiveSpeculation) -> int:
    steps = 0
    while not speculation.pays:
        speculation.record_decode(0.010)
        steps += 1
    return steps


LINEAR = ("qwen3_5", "qwen3_5_moe")
REQUESTS = [
    ask("what is it?", picture(50, 80), tokens=30),
    ask("only words", tokens=30),
    ask("both", picture(100, 100), picture(200, 64), tokens=20),
    ask("long", picture(64, 64), tokens=40),
]


def fresh(backend: Any, model_type: str) -> Any:
    subject = backend(model_type)
    subject.prefix_cache.clear()
    subject.batch_limits, subject.adaptive_lookup = BatchLimits(), AdaptiveSpeculation()
    return subject


@pytest.mark.usefixtures("step_policy")
@pytest.mark.parametrize(
    ("step_policy", "model_type"),
    [
        *(("as on CUDA", name) for name in tiny.CONFIGS),
        *(("as on the CPU", name) for name in KINDS),
    ],
    indirect=["step_policy"],
)
def test_drafts_never_change_an_answer(
    backend: Any, model_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drafts that are right, wrong, and right up to a token, for one row and for several."""
    subject = fresh(backend, model_type)
    subject.adaptive_lookup = Never()
    alone = [subject.generate([question])[0] for question in REQUESTS]
    answers = {question.prompt: generated_ids(subject, question) for question in REQUESTS}
    subject.adaptive_lookup = Always()
    draw = random.Random(5)

    def partly_right(self: Any) -> list[int]:
        done = len(self.row.output_ids)
        right = answers[self.prompt.request.prompt][done : done + MAX_DRAFT_TOKENS]
        wrong = draw.randrange(MAX_DRAFT_TOKENS + 1)
        return [*right[:wrong], *(100 + draw.randrange(100) for _ in right[wrong:])]

    monkeypatch.setattr(ActiveRequest, "draft", partly_right)
    for rows in (1, 2, 4):
        subject.batch_limits = BatchLimits(rows=rows)
        with counted() as counts:
            assert subject.generate(REQUESTS) == alone, f"{rows} at once"
        # Of several rows with linear attention only the last one, once alone, gets drafts.
        least = 2 if model_type not in LINEAR or rows == 1 else 1.5
        assert counts["tokens"] > least * counts["verifications"] > 0


@pytest.mark.usefixtures("step_policy")
@pytest.mark.parametrize("model_type", ["qwen3_vl", *LINEAR])
def test_deferred_tokens_are_committed_before_others_join(backend: Any, model_type: str) -> None:
    """A rejected draft, then decode steps, a row beside it, and a verification again."""
    runner = ModelRunner(backend(model_type).model, PositionRule({}, 2))

    def start(*ids: int) -> NewRow:
        prefilled, position = runner.prefill(ids, [], None)
        row = Row(0, Sampling(60), list(ids), frozenset(), ())
        sampler = Sampler([row], runner.device, len(prefilled.logits))
        return NewRow(
            prefilled, sampler, SampledToken(int(prefilled.logits.argmax())), position, 60
        )

    def launched(subject: Batch, times: int) -> list[list[int]]:
        for _ in range(times):
            subject.launch()
        return [[token.id for token in subject.collect(drain=True) or []] for _ in range(times)]

    def verified(subject: Batch, drafts: list[list[int]]) -> list[list[int]]:
        return [[token.id for token in tokens] for tokens in subject.verify(drafts)]

    with torch.no_grad():
        plain = Batch(runner)
        plain.add([start(101, 102, 103)])
        answer = [tokens[0] for tokens in launched(plain, 24)]
        plain.clear()
        plain.add([start(104, 105)])
        other = [tokens[0] for tokens in launched(plain, 6)]

        subject = Batch(runner)
        subject.add([start(101, 102, 103)])
        for done in (0, 3):
            wrong = [*answer[done : done + 2], (answer[done + 2] + 1) % 300, 7]
            assert verified(subject, [wrong]) == [answer[done : done + 3]]
            assert subject.has_deferred == (model_type in LINEAR)
        assert launched(subject, 2) == [[token] for token in answer[6:8]]
        assert verified(subject, [[(answer[8] + 1) % 300]]) == [[answer[8]]]
        subject.add([start(104, 105)])
        assert launched(subject, 6) == [
            list(pair) for pair in zip(answer[9:15], other, strict=True)
        ]
        subject.free(1)
        assert subject.can_verify
        assert verified(subject, [answer[15:17], []])[0] == answer[15:18]
        assert verified(subject, [[(answer[18] + 1) % 300], []])[0] == [answer[18]]
        subject.keep([0])
        assert verified(subject, [[]]) == [[answer[19]]] and not subject.has_deferred
        assert launched(subject, 4) == [[token] for token in answer[20:24]]


def test_sampled_rows_get_no_drafts(backend: Any) -> None:
    subject = fresh(backend, "qwen3_vl")
    subject.adaptive_lookup = Always()
    with counted() as counts:
        subject.generate([ask("warm", picture(64, 64), temperature=1.0, seed=2, tokens=40)])
        subject.generate([ask("again", picture(64, 64), repetition_penalty=1.1, tokens=40)])
    assert counts["launches"] and not counts["verifications"]


def test_a_repetitive_answer_takes_fewer_passes(backend: Any) -> None:
    """Tiny models repeat themselves anyway."""
    subject = fresh(backend, "qwen3_vl")
    asked = [ask(str(n), picture(64, 64, n), tokens=80) for n in range(4)]
    subject.chat_template.eos_ids, kept = frozenset(), subject.chat_template.eos_ids
    try:
        with counted() as plain:
            subject.adaptive_lookup = Never()
            expected = [subject.generate([question])[0] for question in asked]
        with counted() as speculative:
            subject.adaptive_lookup = Always()
            assert [subject.generate([question])[0] for question in asked] == expected
    finally:
        subject.chat_template.eos_ids = kept
    assert speculative["launches"] + speculative["verifications"] < plain["launches"]


def test_drafts_are_no_longer_than_the_rest_of_the_answer_whatever_the_thought() -> None:
    row = Row(0, Sampling(8), [], frozenset({99}), (7,), thinking=True)
    for token in [*[1, 2, 3] * 20, 7, 1, 2]:
        append_token(row, token)
    active = ActiveRequest(row, None, None)  # type: ignore[arg-type]
    assert len(active.draft()) == 4, "six are left, of which the next is the model's own"
    for token in [3, 1, 2]:
        append_token(row, token)
    assert len(active.draft()) == 2


def test_nan_logits_in_a_verification_are_the_error_of_the_row(backend: Any) -> None:
    subject = fresh(backend, "qwen3_vl")
    subject.adaptive_lookup = Always()

    def fill_with_nan(_module: Any, _args: Any, out: Any) -> None:
        if out.logits.shape[1] > 1:
            out.logits.fill_(torch.nan)

    question = Request.ask((picture(64, 64),), "again again again again", sampling=Sampling(60))
    hook = subject.model.register_forward_hook(fill_with_nan)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PromptLookup, "draft", lambda _: [101, 102])
            (answer,) = subject.generate([question])
    finally:
        hook.remove()
    assert isinstance(answer.error, NumericalError)
