"""Stream: queries that come up while others are answered."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from methods import asked, at_once, twice_then_once
from qwen_vl_suite.qwenvl import stream
from qwen_vl_suite.qwenvl.backends.base import Backend
from qwen_vl_suite.qwenvl.backends.scripted import (
    ContinuousScriptedBackend,
    Reply,
    ScriptedBackend,
)
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption, OutOfMemory
from qwen_vl_suite.qwenvl.observer import Observer, Relay
from qwen_vl_suite.qwenvl.query import Query, Steps
from qwen_vl_suite.qwenvl.run import answer_each
from qwen_vl_suite.qwenvl.stream import answer_stream
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import Request, Response, Result, Sampling, Video

BACKENDS = (ScriptedBackend, ContinuousScriptedBackend)
each_backend = pytest.mark.parametrize("kind", BACKENDS)


def lots(*given: Sequence[Query]) -> Callable[[bool], Sequence[Query] | None]:
    """Gives one of them at a time."""
    left: Iterator[Sequence[Query]] = iter(given)
    return lambda wait: next(left, None)


def refusing(backend: Backend, query: Query) -> Steps:
    yield [asked("a")]
    raise BadOption("too many parts.")


def with_a_bad_part(backend: Backend, query: Query) -> Steps:
    bad = Query(ground("cat"), BadImage("NaN."), keep_unreadable=True)
    results = yield [asked("a"), bad]
    more = yield [bad]
    return Result(" ".join(result.error or result.text for result in [*results, *more]))


class Seen(Observer):
    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.ended: dict[int, str] = {}

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        raise AssertionError("nobody knows how many will come")

    def restart(self, index: int) -> None:
        self.texts[index] = ""

    def token(self, index: int, text: str) -> None:
        self.texts[index] = self.texts.get(index, "") + text

    def done(self, index: int, response: Response) -> None:
        assert index not in self.ended
        self.ended[index] = response.text


def found(backend: Backend, queries: Any, seen: Observer | None = None) -> dict[int, Result]:
    results: dict[int, Result] = {}

    def keep(number: int, result: Result) -> None:
        assert number not in results
        results[number] = result

    answer_stream(backend, queries, keep, seen)
    return results


METHODS = (None, twice_then_once, at_once, refusing, with_a_bad_part)
video = Video(torch.zeros(8, 3, 64, 64, dtype=torch.uint8), tuple(i / 2 for i in range(8)))
QUERIES = st.one_of(
    st.builds(asked, st.text("xyz", max_size=9), method=st.sampled_from(METHODS)),
    st.just(Query(describe(), video, video_tokens=1)),
    st.just(Query(ground("cat"), BadImage("NaN."))),
)


@each_backend
@given(
    st.lists(st.lists(QUERIES, max_size=5), max_size=6),
    st.integers(1, 4),
    st.integers(1, 9),
)
def test_however_they_come_each_has_the_result_of_one_that_is_asked_alone(
    kind: type[ScriptedBackend], given: list[list[Query]], rows: int, most: int
) -> None:
    def reply(request: Request) -> str:
        return f"{request.prompt} said"

    options = {"most_at_once": rows} if kind is ContinuousScriptedBackend else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "MOST_IN_A_CALL", most)
        seen = Seen()
        told = found(kind(reply, **options), lots(*given), seen)
    queries = [query for lot in given for query in lot]
    expected: dict[int, Result] = {}
    for number, query in enumerate(queries):
        answer_each(
            ScriptedBackend(reply),
            [query],
            lambda _, result, number=number: expected.setdefault(number, result),
            alone=True,
        )
    assert told == expected
    assert seen.ended.keys() == expected.keys()
    right = {at: text.strip() for at, text in seen.texts.items() if not expected[at].error}
    assert right == {at: seen.ended[at].strip() for at in right}


def test_what_is_asked_next_about_one_goes_before_those_that_are_new() -> None:
    backend = ContinuousScriptedBackend(lambda request: request.prompt, most_at_once=1)
    queries = [[asked("", method=twice_then_once)], [asked("d")], [asked("e")]]
    told = found(backend, lots(*queries))
    assert [told[number].text for number in range(3)] == ["a b c", "d", "e"]
    order = [request.prompt for request in backend.requests]
    assert order.index("c") < order.index("e")


def test_what_starts_again_in_a_later_round_leaves_what_was_said_before() -> None:
    class Preempting(Relay):
        def done(self, index: int, response: Response) -> None:
            self.restart(index)
            self.token(index, response.text)
            super().done(index, response)

    class Preempted(ScriptedBackend):
        def generate(
            self, requests: Sequence[Request], observer: Observer | None = None
        ) -> list[Response]:
            return super().generate(requests, Preempting(observer or Observer()))

    seen = Seen()
    queries = lots([asked("", method=twice_then_once)])
    found(Preempted(lambda request: request.prompt), queries, seen)
    assert seen.texts == seen.ended == {0: "a\nb\nc"}


def test_a_long_answer_holds_up_no_other() -> None:
    backend = ContinuousScriptedBackend(lambda request: request.prompt, most_at_once=2)
    ended: list[int] = []
    queries = lots([asked("a long answer " * 9), asked("b")], [asked("c")], [asked("d")])
    answer_stream(backend, queries, lambda number, _: ended.append(number))
    assert ended == [1, 2, 3, 0]


@each_backend
def test_one_that_fails_costs_no_other(kind: type[ScriptedBackend]) -> None:
    replies = ["one", OutOfMemory("too large."), Reply("two two", finish_reason="length"), "four"]
    told = found(kind(replies), lots([asked("a")], [asked("b"), asked("c")], [asked("d")]))
    assert [told[number].error for number in range(4)] == ["", "too large.", "", ""]
    assert [told[number].finish_reason for number in (0, 1, 2)] == ["stop", "error", "length"]


@each_backend
@pytest.mark.parametrize("where", ["queries", "on_result", "observer"])
def test_what_a_caller_raises_ends_it(kind: type[ScriptedBackend], where: str) -> None:
    class Enough(Exception):
        pass

    def stop(*_: object) -> Any:
        raise Enough

    class Stop(Observer):
        def token(self, index: int, text: str) -> None:
            if where == "observer":
                raise Enough

    given: Any = lots([asked("a")], [asked("b")])
    with pytest.raises(Enough):
        answer_stream(
            kind("x"),
            stop if where == "queries" else given,
            stop if where == "on_result" else lambda *_: None,
            Stop(),
        )


@each_backend
@pytest.mark.parametrize("what", ["nothing to ask", "refused"])
def test_a_caller_can_stop_while_the_model_has_nothing_to_do(
    kind: type[ScriptedBackend], what: str
) -> None:
    class Enough(Exception):
        pass

    class Stop(Observer):
        def check(self) -> None:
            if times:
                raise Enough

    times: list[int] = []
    narrow = torch.zeros(3, 4, 1000, dtype=torch.uint8)
    query = asked("", method=at_once) if what == "nothing to ask" else Query(describe(), narrow)

    def queries(wait: bool) -> Sequence[Query] | None:
        times.append(1)
        return [query] if len(times) < 20 else None

    with pytest.raises(Enough):
        answer_stream(kind("x"), queries, lambda *_: None, Stop())
    assert len(times) < 5


@each_backend
def test_sampling_that_nothing_can_be_asked_with_is_raised(kind: type[ScriptedBackend]) -> None:
    hot = asked("b", sampling=Sampling(temperature=-1.0))
    with pytest.raises(BadOption, match="temperature"):
        found(kind("x"), lots([asked("a")], [hot]))


@each_backend
def test_nothing_to_ask_asks_nobody(kind: type[ScriptedBackend]) -> None:
    backend = kind("x")
    assert found(backend, lots()) == {} and backend.batches == []
    assert found(backend, lots([], [asked("", method=at_once)]))[0].text == "nothing to ask"
    assert backend.batches == []
