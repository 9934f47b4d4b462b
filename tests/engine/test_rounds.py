"""Rounds: queries that take several requests, those of all pictures in one batch a round."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from methods import PICTURE, asked, at_once, twice_then_once
from qwen_vl_suite.qwenvl.backends.base import Backend
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption, OutOfMemory, UnreadableReply
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.query import Query, Steps
from qwen_vl_suite.qwenvl.rounds import PORTION
from qwen_vl_suite.qwenvl.run import answer_all, answer_each
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import Response, Result, Video


class Recorder(Observer):
    def __init__(self) -> None:
        self.started: list[int] = []
        self.texts: dict[int, str] = {}
        self.responses: dict[int, str] = {}

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        self.started.append(len(prompt_tokens))

    def token(self, index: int, text: str) -> None:
        self.texts[index] = self.texts.get(index, "") + text

    def done(self, index: int, response: Response) -> None:
        assert index not in self.responses
        self.responses[index] = response.text


def prompts(backend: ScriptedBackend) -> list[str]:
    return [request.prompt for request in backend.requests]


def test_the_requests_of_all_pictures_share_each_round() -> None:
    backend = ScriptedBackend(lambda request: f"({request.prompt} said)")
    seen = Recorder()
    queries = [
        asked("", method=twice_then_once), asked("d"), asked("", method=at_once),
        asked("", method=twice_then_once),
    ]  # fmt: skip
    found = answer_all(backend, queries, seen)
    said = "(a said) (b said) (c said)"
    assert [result.text for result in found] == [said, "(d said)", "nothing to ask", said]
    assert prompts(backend) == ["a", "b", "d", "a", "b", "c", "c"]
    assert backend.batches == [5, 2]
    joined = said.replace(") (", ")\n(")
    assert seen.started == [4], "a picture is one answer to whoever watches"
    assert seen.texts == {0: joined, 1: "(d said)", 3: joined}
    assert seen.responses == {0: joined, 1: "(d said)", 2: "", 3: joined}


def test_only_methods_that_have_nothing_to_ask() -> None:
    backend, seen = ScriptedBackend("x"), Recorder()
    (found,) = answer_all(backend, [asked("", method=at_once)], seen)
    assert (found.text, backend.batches, seen.started) == ("nothing to ask", [], [1])


def test_a_result_is_told_once_its_last_request_is_answered() -> None:
    backend = ScriptedBackend(lambda request: f"{request.prompt} is long" * len(request.prompt))
    told: list[str] = []
    queries = [asked("dddd"), asked("", method=twice_then_once), asked("d")]
    answer_each(backend, queries, lambda index, result: told.append(f"{index} {result.text}"))
    assert told == ["2 d is long", f"0 {'dddd is long' * 4}", "1 a is long b is long c is long"]


def _parts(backend: Backend, query: Query) -> Steps:
    results = yield [
        Query(ground("cat"), PICTURE, keep_unreadable=query.keep_unreadable) for _ in "ab"
    ]
    return Result(str([bool(result.error) for result in results]))


@pytest.mark.parametrize("error", [OutOfMemory("too large."), None])
def test_a_request_that_fails_fails_its_picture_unless_that_is_kept(
    error: OutOfMemory | None,
) -> None:
    backend = ScriptedBackend(["None found.", error or "gibberish", "a cat"])
    queries = [Query(ground("cat"), PICTURE, method=_parts), asked("d")]
    with pytest.raises(type(error) if error else UnreadableReply, match=r"icture 1 of 2"):
        answer_all(backend, queries)
    assert backend.batches == [3], "the others are answered first"
    backend = ScriptedBackend(["None found.", error or "gibberish"])
    kept = Query(ground("cat"), PICTURE, method=_parts, keep_unreadable=True)
    assert answer_all(backend, [kept])[0].text == "[False, True]"


def test_a_picture_that_cannot_be_asked_about_fails_alone() -> None:
    def refusing(backend: Backend, query: Query) -> Steps:
        yield [asked("a")]
        raise BadOption("too many parts.")

    backend = ScriptedBackend("x")
    told: list[tuple[int, str]] = []
    queries = [asked("", method=refusing), asked("", method=twice_then_once)]
    answer_each(backend, queries, lambda index, result: told.append((index, result.error)))
    assert sorted(told) == [(0, "too many parts."), (1, "")] and backend.batches == [3, 1]
    with pytest.raises(BadOption, match="Picture 1 of 2: too many parts"):
        answer_all(backend, queries)


def test_what_a_caller_raises_ends_the_run_also_between_portions() -> None:
    def stop(index: int, result: Result) -> None:
        raise BadOption("enough.")

    backend = ScriptedBackend("x")
    queries = [asked("", method=twice_then_once, holds=PORTION) for _ in range(2)]
    with pytest.raises(BadOption, match=r"enough\."):
        answer_each(backend, queries, stop)
    assert backend.batches == [2, 1]


def test_what_is_no_picture_needs_no_method() -> None:
    query = Query(ground("cat"), BadImage("NaN."), method=_parts, keep_unreadable=True)
    assert answer_all(ScriptedBackend("x"), [query])[0].error == "NaN."


def test_a_cut_request_is_seen_at_its_picture() -> None:
    backend = ScriptedBackend(["None found.", Reply("None found.", finish_reason="repetition")])

    class Last(Recorder):
        def done(self, index: int, response: Response) -> None:
            self.reason = response.finish_reason

    seen = Last()
    answer_all(backend, [Query(ground("cat"), PICTURE, method=_parts)], seen)
    assert seen.reason == "repetition"


def test_what_is_refused_in_a_later_round_costs_no_answer_of_the_others() -> None:
    video = Video(torch.zeros(8, 3, 64, 64, dtype=torch.uint8), tuple(i / 2 for i in range(8)))

    def then_too_much(backend: Backend, query: Query) -> Steps:
        yield [asked("a")]
        yield [Query(describe(), video, video_tokens=1)]
        raise AssertionError("it was refused")

    told: dict[int, tuple[str, str]] = {}
    queries = [asked("b"), asked("", method=then_too_much)]
    answer_each(ScriptedBackend("x"), queries, lambda at, r: told.setdefault(at, (r.text, r.error)))
    assert told[0] == ("x", "") and "video_tokens" in told[1][1]
