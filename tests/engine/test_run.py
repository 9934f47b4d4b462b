"""Runner: from queries to results, with a backend of given replies."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ResidentScriptedBackend, ScriptedBackend
from qwen_vl_suite.qwenvl.errors import (
    BadImage,
    NumericalError,
    OutOfMemory,
    QwenVLError,
    UnreadableReply,
)
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.run import Query, answer, answer_all, answer_each, sampling_for
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import Box, Request, Response, Result, Sampling


def pictures(count: int, height: int = 100, width: int = 200) -> list[torch.Tensor]:
    return [torch.zeros(3, height, width, dtype=torch.uint8) for _ in range(count)]


BOX = '```json\n[{"bbox_2d": [0, 28, 56, 56], "label": "cat"}]\n```'
IN_PIXELS = {
    "qwen3_vl": Box(0, 2.8, 11.2, 5.6, "cat"),
    "qwen2_5_vl": Box(0, 50, 100, 100, "cat"),
}


@pytest.mark.parametrize("family", IN_PIXELS)
def test_boxes_are_in_pixels_of_the_original_for_every_family(family: str) -> None:
    seen = Response(BOX, input_sizes=((56, 112),))
    (found,) = answer(ScriptedBackend(seen, family=family), ground("cat"), pictures(1))
    got, expected = found.boxes[0], IN_PIXELS[family]
    assert got.label == expected.label
    corners = (expected.x1, expected.y1, expected.x2, expected.y2)
    assert (got.x1, got.y1, got.x2, got.y2) == pytest.approx(corners)


def test_one_result_per_picture_in_order_from_one_batched_run() -> None:
    backend = ScriptedBackend(["one", "two", "three"])
    found = answer(backend, describe("short"), pictures(3), system="be kind")
    assert [result.text for result in found] == ["one", "two", "three"]
    assert backend.batches == [3]
    assert {request.system for request in backend.requests} == {"be kind"}


def test_a_question_about_several_pictures_is_one_request() -> None:
    backend = ScriptedBackend(["both", "one"])
    first, second, third = pictures(3)
    queries = [Query(describe("short"), first, others=(second,)), Query(describe("short"), third)]
    assert [result.text for result in answer_all(backend, queries)] == ["both", "one"]
    assert [len(request.images) for request in backend.requests] == [2, 1]
    assert run.expected_tokens(backend, queries[0]) == 2 * run.expected_tokens(backend, queries[1])
    broken = Query(describe("short"), first, others=(BadImage("no picture"),))
    with pytest.raises(BadImage, match="no picture"):
        answer_all(backend, [broken])
    assert len(backend.requests) == 2, "nothing more was asked"


def test_log_probabilities_reach_the_result_where_they_are_asked_for() -> None:
    reply = Reply(BOX, logprobs=-0.5)
    (found,) = answer(ScriptedBackend(reply), ground("cat"), pictures(1), logprobs=True)
    assert found.boxes and found.reply == BOX
    assert "".join(found.reply[token.start : token.end] for token in found.tokens) == BOX
    assert {token.logprob for token in found.tokens} == {-0.5}
    backend = ScriptedBackend(reply)
    (plain,) = answer(backend, ground("cat"), pictures(1))
    assert plain.tokens == () and not backend.requests[0].logprobs


def test_thinking_and_finish_reason_reach_the_result() -> None:
    backend = ScriptedBackend(Reply("one", thinking="hm", finish_reason="repetition"))
    (found,) = answer(backend, describe(), pictures(1))
    assert (found.thinking, found.finish_reason) == ("hm", "repetition")


def test_unreadable_replies_raise_after_the_run_and_name_the_pictures() -> None:
    backend = ScriptedBackend([BOX, "gibberish", BOX, "more gibberish"])
    with pytest.raises(UnreadableReply, match="pictures 2, 4 of 4") as caught:
        answer(backend, ground("cat"), pictures(4))
    assert caught.value.raw == "gibberish"


def test_the_error_of_a_cut_reply_names_max_new_tokens() -> None:
    with pytest.raises(UnreadableReply, match="max_new_tokens"):
        sampling = Sampling(max_new_tokens=1)
        answer(ScriptedBackend("gibberish"), ground("cat"), pictures(1), sampling=sampling)


def test_keep_unreadable_keeps_every_reply() -> None:
    found = answer(
        ScriptedBackend([BOX, "gibberish"]), ground("cat"), pictures(2), keep_unreadable=True
    )
    assert found[0].boxes and not found[0].error
    assert not found[1].boxes and found[1].error and found[1].text == "gibberish"


def test_nothing_found_is_empty_and_no_error() -> None:
    (found,) = answer(ScriptedBackend("None found."), ground("cat"), pictures(1))
    assert found.boxes == () and not found.error


def test_default_sampling_of_each_task() -> None:
    plain, thoughtful, always = (
        ScriptedBackend(thinking=thinking) for thinking in ("never", "on", "always")
    )
    family = FAMILIES["qwen3_vl"]
    assert sampling_for(plain, ground("cat")).temperature == 0
    assert sampling_for(plain, ground("cat")).presence_penalty == 0
    assert sampling_for(plain, describe()).temperature == family.sampling.temperature
    assert sampling_for(plain, describe()).presence_penalty == 1.5
    assert sampling_for(thoughtful, ground("cat")).temperature == 0
    assert sampling_for(always, ground("cat")).temperature == 0.6
    assert sampling_for(thoughtful, ground("cat"), thinking=True).temperature == 0.6
    assert sampling_for(thoughtful, describe()).top_p == 0.95


def test_ocr_and_grounding_turn_switchable_thinking_off() -> None:
    for thinking, expected in (("on", False), ("always", None), ("never", False)):
        backend = ScriptedBackend(BOX, thinking=thinking)
        answer(backend, ground("cat"), pictures(1))
        assert backend.requests[0].thinking is expected
    backend = ScriptedBackend("words", thinking="on")
    answer(backend, describe(), pictures(1))
    assert backend.requests[0].thinking is None


def test_the_callers_sampling_is_used_unchanged() -> None:
    backend = ScriptedBackend("x")
    mine = Sampling(max_new_tokens=7, temperature=0.3, seed=9)
    answer(backend, describe(), pictures(1), sampling=mine)
    assert backend.requests[0].sampling == mine


def test_each_query_has_its_own_task_picture_and_settings() -> None:
    backend = ScriptedBackend(["a cat", BOX])
    found = answer_all(
        backend,
        [
            Query(describe(prompt="What is it?"), pictures(1)[0], sampling=Sampling(seed=7)),
            Query(ground("cat"), pictures(1, 50, 60)[0], max_pixels=5000),
        ],
    )
    assert found[0].text == "a cat" and found[1].boxes
    first, second = backend.requests
    assert (first.prompt, first.sampling.seed, first.max_pixels) == ("What is it?", 7, None)
    assert second.max_pixels == 5000 and second.images[0].shape[-2:] == (50, 60)


def test_results_are_reported_before_an_error_is_raised() -> None:
    reported: list[Sequence[Result]] = []
    queries = [Query(ground("cat"), picture) for picture in pictures(2)]
    with pytest.raises(UnreadableReply, match=r"picture 2 of 2.* Do this instead\.$"):
        answer_all(
            ScriptedBackend([BOX, "?"]), queries, report=reported.append, advice="Do this instead."
        )
    ((whole, bad),) = reported
    assert whole.boxes and not whole.error and bad.error


def test_no_queries_give_no_results() -> None:
    assert answer_all(ScriptedBackend(), []) == []


FAILURES = [NumericalError("it gave NaN"), OutOfMemory("too large"), BadImage("too long")]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_request_that_fails_fails_alone(error: QwenVLError) -> None:
    reported: list[Sequence[Result]] = []
    queries = [Query(ground("cat"), picture) for picture in pictures(3)]
    backend = ScriptedBackend([BOX, error, BOX])
    with pytest.raises(type(error), match=f"^Picture 2 of 3: {error} Keep going.$") as caught:
        answer_all(backend, queries, report=reported.append, advice="Keep going.")
    assert caught.value.__cause__ is error
    ((first, second, third),) = reported
    assert first.boxes and third.boxes and not second.boxes
    assert (second.finish_reason, second.error) == ("error", str(error))


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_a_failed_request_can_be_kept(error: QwenVLError) -> None:
    found = answer(
        ScriptedBackend([BOX, error, BOX]), ground("cat"), pictures(3), keep_unreadable=True
    )
    assert [len(result.boxes) for result in found] == [1, 0, 1]
    assert [result.error for result in found] == ["", str(error), ""]


def test_every_kind_of_failure_names_its_pictures() -> None:
    numbers, memory = NumericalError("it gave NaN."), OutOfMemory("too large.")
    backend = ScriptedBackend([BOX, numbers, memory, numbers])
    with pytest.raises(NumericalError) as caught:
        answer(backend, ground("cat"), pictures(4))
    assert str(caught.value) == ("Pictures 2, 4 of 4: it gave NaN. Picture 3 of 4: too large.")


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
def test_each_result_is_told_as_soon_as_it_is_there(error: QwenVLError) -> None:
    told: list[tuple[int, str, str]] = []
    backend = ScriptedBackend(["a long answer", error, "a short"])
    answer_each(
        backend,
        [Query(describe(), picture) for picture in pictures(3)],
        lambda index, result: told.append((index, result.text, result.error)),
    )
    assert told == [(1, "", str(error)), (2, "a short", ""), (0, "a long answer", "")]


class Recorder(Observer):
    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def loading(self, done: int, total: int) -> None:
        self.calls.append(("loading", done))

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        self.calls.append(("start", [bool(count) for count in prompt_tokens], max_new_tokens))

    def token(self, index: int, text: str) -> None:
        self.calls.append(("token", index, text))

    def restart(self, index: int) -> None:
        self.calls.append(("restart", index))

    def done(self, index: int, response: Response) -> None:
        self.calls.append(("done", index, response.text, str(response.error or "")))


def mixed(keep: bool) -> list[Query]:
    """A picture, then something that is none, then a picture."""
    first, last = pictures(2)
    sampling = Sampling(max_new_tokens=9)
    return [
        Query(describe(), picture, sampling=sampling, keep_unreadable=keep)
        for picture in (first, BadImage("It holds NaN."), last)
    ]


def test_what_is_no_picture_fails_alone_and_is_not_asked_about() -> None:
    backend, seen = ResidentScriptedBackend(["a cat", "a dog"]), Recorder()
    found = answer_all(backend, mixed(keep=True), seen)
    assert [result.text for result in found] == ["a cat", "", "a dog"]
    assert (found[1].finish_reason, found[1].error) == ("error", "It holds NaN.")
    assert backend.batches == [2]
    assert seen.calls == [
        ("loading", 0), ("loading", 1),
        ("start", [True, False, True], [9, 0, 9]),
        ("done", 1, "", "It holds NaN."),
        ("token", 0, "a"), ("token", 2, "a"), ("token", 0, " cat"), ("token", 2, " dog"),
        ("done", 0, "a cat", ""), ("done", 2, "a dog", ""),
    ]  # fmt: skip
    with pytest.raises(BadImage, match=r"^Picture 2 of 3: It holds NaN\. Keep going\.$"):
        answer_all(backend, mixed(keep=False), advice="Keep going.")
    assert backend.batches == [2, 2], "the others are answered first"


def test_a_run_of_some_requests_can_be_stopped_and_started_again() -> None:
    class Stop(BaseException):
        pass

    class Stopping(Observer):
        def check(self) -> None:
            raise Stop

    with pytest.raises(Stop):
        answer_all(ScriptedBackend("a cat"), mixed(keep=True), Stopping())

    class Preempted(ScriptedBackend):
        def generate(
            self, requests: Sequence[Request], observer: Observer | None = None
        ) -> list[Response]:
            found = super().generate(requests, observer)
            assert observer is not None
            observer.restart(1)
            return found

    seen = Recorder()
    answer_all(Preempted("a cat"), mixed(keep=True), seen)
    assert seen.calls[-1] == ("restart", 2)


def test_without_any_picture_nothing_is_asked() -> None:
    backend, seen = ScriptedBackend("a cat"), Recorder()
    queries = [Query(describe(), BadImage("It holds NaN.")) for _ in range(2)]
    with pytest.raises(BadImage, match="Pictures 1, 2 of 2"):
        answer_all(backend, queries, seen)
    assert backend.batches == []
    assert [call[:2] for call in seen.calls] == [
        ("start", [False, False]),
        ("done", 0),
        ("done", 1),
    ]
    told: list[tuple[int, str]] = []
    answer_each(backend, queries, lambda index, result: told.append((index, result.error)))
    assert told == [(0, "It holds NaN."), (1, "It holds NaN.")]
