"""Continuous batching: requests that are taken in while others are answered."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from asking import KINDS, REQUESTS, ask, counted, picture
from interrupting import Interrupt
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.backends.local_prompts import Prompts
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption, UnsuitableModel
from qwen_vl_suite.qwenvl.inference.batch import Batch
from qwen_vl_suite.qwenvl.inference.loaded_model import model_runner
from qwen_vl_suite.qwenvl.inference.memory_model import BatchLimits
from qwen_vl_suite.qwenvl.inference.prefill import Prefiller
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.prompting.prompt import Prompt
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Response, Sampling
from trickling import Answers, Trickle

FAMILY_NAMES = list(tiny.CONFIGS)


def answers(subject: LocalBackend, source: Any) -> Answers:
    told = Answers()
    subject.generate_from(source, told)
    return told


WAYS = {
    "one by one": [[one] for one in REQUESTS],
    "two lots": [REQUESTS[:3], REQUESTS[3:]],
    "with nothing between": [REQUESTS[:1], [], REQUESTS[1:]],
}


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_whenever_a_request_comes_its_answer_is_that_to_it_alone(
    backend: Any, model_type: str
) -> None:
    subject = backend(model_type)
    alone = [subject.generate([request])[0] for request in REQUESTS]
    for lots in WAYS.values():
        for limits in (BatchLimits(), BatchLimits(rows=2)):
            subject.batch_limits = limits
            for slow in (False, True):
                assert answers(subject, Trickle(lots, slow)).in_order == alone
    subject.batch_limits = BatchLimits()


@pytest.mark.parametrize("model_type", KINDS)
def test_with_the_step_policy_of_cuda(backend: Any, model_type: str, cuda_policy: Any) -> None:
    subject = backend(model_type)
    alone = [subject.generate([request])[0] for request in REQUESTS]
    for rows in (2, 8):
        subject.batch_limits = BatchLimits(rows=rows)
        assert answers(subject, Trickle(WAYS["one by one"], slow=True)).in_order == alone
    subject.batch_limits = BatchLimits()


def test_the_next_takes_the_place_of_each_that_was_answered(backend: Any) -> None:
    """One long answer does not hold up the others: what two lots of three would take twice."""
    subject = backend("qwen3_vl")
    subject.batch_limits = BatchLimits(rows=3)
    lots = [
        [ask(f"{at}", tokens=40 if at == 0 else 8) for at in lot] for lot in ((0, 1, 2), (3, 4))
    ]
    try:
        with counted() as together:
            told = answers(subject, Trickle(lots))
        with counted() as apart:
            for lot in lots:
                subject.generate(lot)
    finally:
        subject.batch_limits = BatchLimits()
    assert list(told.found)[-1] == 0 and len(told.found) == 5
    steps = [counts["launches"] + counts["verifications"] for counts in (together, apart)]
    assert steps[0] < steps[1]


def test_what_cannot_be_asked_fails_alone(backend: Any) -> None:
    subject = backend("qwen3_vl")
    bad = Request.ask((picture(4, 1000),), "too narrow")
    thinking = Request.ask((), "think", thinking=True)
    good = ask("what is it?", picture(50, 80))
    told = answers(subject, Trickle([[bad], [good, thinking], [bad], [good]], slow=True))
    errors = [type(response.error) for response in told.in_order]
    assert errors == [BadImage, type(None), BadOption, BadImage, type(None)]
    assert told.found[1] == told.found[4] == subject.generate([good])[0]


def test_what_is_wrong_with_the_model_or_with_all_requests_is_raised(
    backend: Any, checkpoint: Callable[..., Path]
) -> None:
    wrong = Request.ask((), "hot", sampling=Sampling(temperature=-1.0))
    with pytest.raises(BadOption, match="temperature"):
        answers(backend("qwen3_vl"), Trickle([[ask("first")], [wrong]]))
    reader = load(LocalSpec(str(checkpoint("qwen3")), device="cpu"))
    with pytest.raises(UnsuitableModel):
        answers(reader, Trickle([[ask("what is it?", picture(50, 80))]]))


def test_nothing_to_ask_reads_no_weights(checkpoint: Callable[..., Path]) -> None:
    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"))
    subject.release()
    assert not answers(subject, Trickle([])).found
    assert subject.place == "disk"


def test_nothing_is_kept_of_what_is_answered(backend: Any) -> None:
    subject, seen = backend("qwen3_vl"), weakref.WeakSet()

    def lots() -> Iterator[list[Request]]:
        for number in range(12):
            shown = picture(64, 64, seed=number)
            seen.add(shown)
            request = ask("what is it?", shown, tokens=3)
            del shown
            yield [request]
            del request
            gc.collect()
            held.append(len(seen))

    class Counting(Observer):
        def done(self, index: int, response: Response) -> None:
            done.append(index)

    held: list[int] = []
    done: list[int] = []
    subject.generate_from(Trickle(lots()), Counting())  # type: ignore[arg-type]
    assert sorted(done) == list(range(12)) and max(held) <= 9 and held[-1] <= 9


def test_what_came_first_is_not_kept_until_the_last_is_answered(backend: Any) -> None:
    subject, seen = backend("qwen3_vl"), weakref.WeakSet()

    def lots() -> Iterator[list[Request]]:
        yield [ask("what is it?", shown(number), tokens=2) for number in range(12)]
        for _ in range(20):
            yield [ask("only words", tokens=2)]
        gc.collect()
        held.append(len(seen))

    def shown(number: int) -> torch.Tensor:
        made = picture(64, 64, seed=number)
        seen.add(made)
        return made

    held: list[int] = []
    subject.generate_from(Trickle(lots()), Observer())  # type: ignore[arg-type]
    assert held == [0]


def test_pictures_can_be_forgotten_while_the_next_are_looked_at(backend: Any) -> None:
    """Of requests that show the same one: a thread looks while another forgets."""

    class Forgotten(dict[int, bytes]):
        """By the other thread, as soon as it was looked."""

        def __contains__(self, key: object) -> bool:
            return self.pop(key, None) is not None  # type: ignore[call-overload]

        def get(self, key: int, default: Any = None) -> Any:
            return self.pop(key, default)

    subject, prompt = backend("qwen3_vl"), backend("qwen3_vl").prompt(ask("one", picture(64, 64)))
    prefiller = Prefiller(subject, model_runner(subject), {0: prompt}, Observer())
    prefiller._digests = Forgotten()
    with closing(prefiller):
        assert prefiller._keys(prompt) == prefiller._keys(prompt)


def test_a_place_in_memory_that_is_used_again_is_no_sign_of_the_same_picture(backend: Any) -> None:
    subject = backend("qwen3_vl")
    place = torch.zeros(3, 64, 64, dtype=torch.uint8)
    pictures = [picture(64, 64, seed=number) for number in range(6)]

    class OnePlace:
        """Gives a picture in the tensor of the one before, once that is answered."""

        def __init__(self) -> None:
            self._left = iter(pictures)

        def more(self, wait: bool) -> Sequence[Request] | None:
            if not wait:
                return []
            shown = next(self._left, None)
            return None if shown is None else [ask("what is it?", place.copy_(shown))]

    expected = [subject.generate([ask("what is it?", shown)])[0] for shown in pictures]
    assert answers(subject, OnePlace()).in_order == expected
    assert len({response.text for response in expected}) > 3


def test_where_memory_runs_out_nothing_is_lost(backend: Any, monkeypatch: Any) -> None:
    subject = backend("qwen3_vl")
    expected = [subject.generate([request])[0] for request in REQUESTS]
    launch, steps = Batch.launch, []

    def failing(self: Batch) -> None:
        steps.append(1)
        if len(steps) in (3, 9):
            raise torch.OutOfMemoryError("pretended: tried to allocate 3.00 GiB")
        launch(self)

    monkeypatch.setattr(Batch, "launch", failing)
    try:
        told = answers(subject, Trickle(WAYS["one by one"]))
    finally:
        subject.batch_limits = BatchLimits()
    assert told.restarted
    assert [one.text for one in told.in_order] == [one.text for one in expected]


def test_where_a_fast_path_fails_all_is_answered_all_the_same(
    checkpoint: Callable[..., Path], may_fall_back: None, monkeypatch: Any
) -> None:
    spec = LocalSpec(str(checkpoint("qwen3_vl")), device="cpu")
    expected = load(spec).generate(REQUESTS)
    launch, steps = Batch.launch, []

    def failing(self: Batch) -> None:
        steps.append(1)
        if len(steps) == 8:
            raise RuntimeError("CUDA error: a kernel of this step does not run here")
        launch(self)

    monkeypatch.setattr(Batch, "launch", failing)
    subject = load(spec)
    told = answers(subject, Trickle(WAYS["one by one"], slow=True))
    assert "does not run here" in subject.plain_reason and told.restarted
    assert [one.text for one in told.in_order] == [one.text for one in expected]
    told = answers(subject, Trickle(WAYS["two lots"]))
    assert [one.text for one in told.in_order] == [one.text for one in expected]


@pytest.mark.parametrize("where", ["source", "observer"])
def test_what_a_caller_raises_reaches_it_and_is_no_failure_of_a_fast_path(
    checkpoint: Callable[..., Path], may_fall_back: None, where: str
) -> None:
    class Wish(RuntimeError):
        pass

    class Stop(Observer):
        def token(self, index: int, text: str) -> None:
            if where == "observer" and index == 3:
                raise Wish

    class Source(Trickle):
        def more(self, wait: bool) -> Sequence[Request] | None:
            if where == "source" and self._times == 2:
                raise Wish
            return super().more(wait)

    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"))
    with pytest.raises(Wish):
        subject.generate_from(Source(WAYS["one by one"]), Stop())
    assert not subject.plain_reason
    assert subject.generate(REQUESTS[:1])[0].text


@pytest.mark.parametrize("where", ["token", "done", "check"])
@pytest.mark.parametrize("optimize", ["auto", "off"])
def test_memory_that_a_caller_lacks_is_no_lack_of_the_model(
    checkpoint: Callable[..., Path], optimize: Any, where: str
) -> None:
    class Full(Answers):
        times = 0

        def _run_out(self, at: str) -> None:
            self.times += at == where
            if self.times == 3:
                raise MemoryError("of the caller")

        def token(self, index: int, text: str) -> None:
            super().token(index, text)
            self._run_out("token")

        def done(self, index: int, response: Response) -> None:
            super().done(index, response)
            self._run_out("done")

        def check(self) -> None:
            self._run_out("check")

    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu", optimize=optimize))
    told = Full()
    with pytest.raises(MemoryError, match="of the caller"):
        subject.generate_from(Trickle([[ask("one", tokens=4)] for _ in range(6)]), told)
    assert told.times == 3 and not told.restarted


def test_a_prompt_that_cannot_be_made_is_no_failure_of_a_fast_path(
    checkpoint: Callable[..., Path], may_fall_back: None, monkeypatch: Any
) -> None:
    subject = load(LocalSpec(str(checkpoint("qwen3_vl")), device="cpu"))
    made = []

    def of(self: Prompts, request: Request) -> Prompt:
        made.append(request)
        if len(made) == 4:
            raise RuntimeError("something of a template")
        return right(self, request)

    right = Prompts.of
    monkeypatch.setattr(Prompts, "of", of)
    with pytest.raises(RuntimeError, match="of a template"):
        answers(subject, Trickle(WAYS["one by one"]))
    assert not subject.plain_reason


def test_a_caller_can_stop_while_the_next_requests_are_waited_for(backend: Any) -> None:
    class Never:
        def more(self, wait: bool) -> Sequence[Request] | None:
            while wait:
                raise Interrupt
            return []

    with pytest.raises(Interrupt):
        backend("qwen3_vl").generate_from(Never(), Observer())
