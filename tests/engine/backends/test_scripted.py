"""Scripted backend: replays replies as a model's tokens, so that tests need none."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl.backends.base import Backend, Resident, Scorer
from qwen_vl_suite.qwenvl.backends.local import LocalBackend
from qwen_vl_suite.qwenvl.backends.scripted import (
    Reply,
    ResidentScriptedBackend,
    ScriptedBackend,
    tokenize,
)
from qwen_vl_suite.qwenvl.errors import (
    BadImage,
    BadOption,
    NumericalError,
    QwenVLError,
    Unavailable,
)
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.replies import split_thinking
from qwen_vl_suite.qwenvl.types import (
    Generated,
    Message,
    Request,
    Response,
    Sampling,
    Token,
    Usage,
)

PICTURE = torch.zeros(3, 100, 200, dtype=torch.uint8)


def ask(prompt: str = "What is it?", images: Sequence[Any] = (), **fields: Any) -> Request:
    sampling = {name: fields.pop(name) for name in list(fields) if hasattr(Sampling, name)}
    return Request.ask(images, prompt, sampling=Sampling(**sampling), **fields)


class Recorder(Observer):
    """Every call, in order."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def loading(self, done: int, total: int) -> None:
        self.calls.append(("loading", done, total))

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        self.calls.append(("start", list(prompt_tokens), list(max_new_tokens)))

    def token(self, index: int, text: str) -> None:
        self.calls.append(("token", index, text))

    def done(self, index: int, response: Response) -> None:
        self.calls.append(("done", index, response.text))

    def check(self) -> None:
        self.calls.append(("check",))

    def named(self, *names: str) -> list[tuple[Any, ...]]:
        return [call for call in self.calls if call[0] in names]


def test_replies_are_given_in_turn_and_again_from_the_first() -> None:
    backend = ScriptedBackend(["a", "b", "c"])
    assert [r.text for r in backend.generate([ask()] * 2)] == ["a", "b"]
    assert [r.text for r in backend.generate([ask()] * 3)] == ["c", "a", "b"]
    assert backend.batches == [2, 3] and len(backend.requests) == 5


def test_one_reply_is_that_of_every_request() -> None:
    assert [r.text for r in ScriptedBackend("a cat").generate([ask()] * 2)] == ["a cat"] * 2


def test_a_function_sees_the_request() -> None:
    backend = ScriptedBackend(lambda request: request.prompt.upper())
    found = backend.generate([ask("red?"), ask("round?")])
    assert [response.text for response in found] == ["RED?", "ROUND?"]
    assert [request.prompt for request in backend.requests] == ["red?", "round?"]


def test_no_replies_are_refused() -> None:
    with pytest.raises(BadOption, match="empty"):
        ScriptedBackend([])


@pytest.mark.parametrize("text", ["a cat, 12 px", "", "  two\n\nlines \t", "猫が2匹", "x" * 50])
def test_tokens_make_the_text(text: str) -> None:
    assert "".join(tokenize(text)) == text


def test_digits_are_tokens_of_their_own() -> None:
    assert tokenize("a cat at [12, 345]") == [
        "a", " cat", " at", " ", "[", "1", "2", ",", " ", "3", "4", "5", "]",
    ]  # fmt: skip


def test_requests_are_answered_side_by_side_a_token_a_step() -> None:
    seen = Recorder()
    ScriptedBackend(["a red cat", "a dog"]).generate([ask(max_new_tokens=9)] * 2, seen)
    assert seen.named("start", "token", "done") == [
        ("start", [4, 4], [9, 9]),
        ("token", 0, "a"), ("token", 1, "a"),
        ("token", 0, " red"), ("token", 1, " dog"),
        ("token", 0, " cat"), ("done", 1, "a dog"),
        ("done", 0, "a red cat"),
    ]  # fmt: skip
    for before, call in zip(seen.calls, seen.calls[1:], strict=False):
        assert call[0] != "token" or before == ("check",)


def test_the_order_of_calls_is_that_of_the_scheduler(backend: Callable[..., LocalBackend]) -> None:
    lengths = (2, 5, 1, 4)
    asked = [
        ask(images=[PICTURE], max_new_tokens=length, temperature=1.0, seed=length)
        for length in lengths
    ]
    real, replayed = Recorder(), Recorder()
    answers = backend("qwen3_vl").generate(asked, real)
    replies = [Reply(["x"] * found.usage.new_tokens, "", found.finish_reason) for found in answers]
    found = ScriptedBackend(replies, family="qwen3_vl").generate(asked, replayed)
    assert [call[:2] for call in replayed.named("token", "done")] == [
        call[:2] for call in real.named("token", "done")
    ]
    assert replayed.named("start")[0][2] == real.named("start")[0][2] == list(lengths)
    assert [response.finish_reason for response in found] == [
        response.finish_reason for response in answers
    ]


@pytest.mark.parametrize("name", ["loading", "start", "token", "done", "check"])
def test_what_the_observer_raises_ends_the_run_and_leaves_unchanged(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stop(BaseException):
        pass

    stop, seen = Stop(), Recorder()

    def raising(*_: Any) -> None:
        raise stop

    monkeypatch.setattr(seen, name, raising)
    backend = ResidentScriptedBackend("a cat")
    with pytest.raises(Stop) as caught:
        backend.generate([ask()] * 2, seen)
    assert caught.value is stop
    assert len(seen.named("done")) == 0
    assert [r.text for r in backend.generate([ask()])] == ["a cat"], "it can be asked again"


def test_what_the_function_raises_ends_the_run() -> None:
    def reply(request: Request) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        ScriptedBackend(reply).generate([ask()])


@pytest.mark.parametrize(
    ("limit", "text", "reason", "streamed"),
    [
        (2, "a red", "length", "a"),
        (3, "a red cat", "length", "a red"),
        (4, "a red cat", "stop", "a red cat"),
    ],
)
def test_an_answer_is_cut_at_its_limit(limit: int, text: str, reason: str, streamed: str) -> None:
    seen = Recorder()
    (found,) = ScriptedBackend("a red cat").generate([ask(max_new_tokens=limit)], seen)
    assert (found.text, found.finish_reason) == (text, reason)
    assert "".join(call[2] for call in seen.named("token")) == streamed
    assert found.usage.new_tokens == len(found.tokens) == min(limit, 3)


def test_tokens_say_where_they_stand() -> None:
    (found,) = ScriptedBackend("on and on").generate([ask()])
    assert [found.text[token.start : token.end] for token in found.tokens] == ["on", " and", " on"]
    assert found.tokens[0].id != found.tokens[1].id
    assert {token.logprob for token in found.tokens} == {None}
    (again,) = ScriptedBackend("on").generate([ask()])
    assert again.ids == found.ids[:1], "equal tokens have equal ids"


def test_log_probabilities_reach_those_who_ask() -> None:
    reply = Reply(["[1", "2]"], logprobs=[-0.5, -1.5])
    with_them, without = ScriptedBackend(reply).generate([ask(logprobs=True), ask()])
    assert with_them.text == "[12]"
    assert [(t.start, t.end, t.logprob) for t in with_them.tokens] == [(0, 2, -0.5), (2, 4, -1.5)]
    assert [token.logprob for token in without.tokens] == [None, None]
    (one_for_all,) = ScriptedBackend(Reply("a cat", logprobs=-1)).generate([ask(logprobs=True)])
    assert [token.logprob for token in one_for_all.tokens] == [-1, -1]
    (cut,) = ScriptedBackend(reply).generate([ask(logprobs=True, max_new_tokens=1)])
    assert [token.logprob for token in cut.tokens] == [-0.5]


@pytest.mark.parametrize("logprobs", [[-1.0], [-1.0] * 3, [-1.0, 0.5], 0.1, math.nan])
def test_log_probabilities_that_cannot_be_are_refused(logprobs: Any) -> None:
    with pytest.raises(BadOption, match="log-probabilit"):
        Reply("a cat", logprobs=logprobs)


@pytest.mark.parametrize(
    ("family", "bounds", "size"),
    [
        ("qwen2_5_vl", {}, (112, 196)),
        ("qwen3_vl", {}, (96, 192)),
        ("qwen3_vl", {"min_pixels": 100_000}, (224, 448)),
        ("qwen3_vl", {"max_pixels": 5000}, (32, 96)),
    ],
)
def test_pictures_are_planned_as_the_family_needs(
    family: str, bounds: dict[str, int], size: tuple[int, int]
) -> None:
    backend = ScriptedBackend("a cat", family=family)
    (found,) = backend.generate([ask("what?", [PICTURE], **bounds)])
    assert found.input_sizes == (size,)
    side = FAMILIES[family].patch_factor
    tokens = size[0] * size[1] // side**2
    assert found.usage == Usage(prompt_tokens=2 + tokens, image_tokens=tokens, new_tokens=2)


def test_its_own_bound_holds_unless_the_request_has_one() -> None:
    backend = ScriptedBackend("x", max_pixels=50_000)
    large = torch.zeros(3, 1000, 1000, dtype=torch.uint8)
    own, asked = backend.generate([ask(images=[large]), ask(images=[large], max_pixels=200_000)])
    assert math.prod(own.input_sizes[0]) <= 50_000 < math.prod(asked.input_sizes[0])


def test_a_response_is_given_as_it_is_with_what_it_leaves_out() -> None:
    given = Response("a cat", finish_reason="repetition", notes=("It repeats.",))
    (found,) = ScriptedBackend(given).generate([ask("x", [PICTURE], max_new_tokens=1)])
    assert (found.text, found.finish_reason, found.notes) == ("a cat", "repetition", given.notes)
    assert found.input_sizes == ((96, 192),) and found.ids and found.usage.new_tokens == 2
    whole = replace(
        given, input_sizes=((1, 2),), usage=Usage(1, 2, 3), tokens=(Token(7, 0, 5, -1.0),)
    )
    assert ScriptedBackend(whole).generate([ask("x", [PICTURE])]) == [whole]


@pytest.mark.parametrize(
    "given", [NumericalError("NaN"), Response("", error=NumericalError("NaN"))]
)
def test_an_error_is_that_of_its_request_alone(given: Any) -> None:
    seen = Recorder()
    found = ScriptedBackend(["a", given, "c"]).generate([ask()] * 3, seen)
    assert [response.text for response in found] == ["a", "", "c"]
    assert [str(response.error or "") for response in found] == ["", "NaN", ""]
    assert {call[1] for call in seen.named("token")} == {0, 2}
    assert sorted(seen.named("done")) == [("done", 0, "a"), ("done", 1, ""), ("done", 2, "c")]


def test_requests_that_cannot_be_asked_fail_alone_or_end_the_run() -> None:
    long = torch.zeros(3, 1, 300, dtype=torch.uint8)
    asked = [
        ask(images=[long]),
        ask("fine"),
        ask(thinking=True),
        ask(images=[PICTURE], max_pixels=5),
    ]
    seen = Recorder()
    found = ScriptedBackend("a cat").generate(asked, seen)
    assert [type(response.error) for response in found] == [
        BadImage, type(None), BadOption, BadOption,
    ]  # fmt: skip
    assert found[1].text == "a cat"
    assert seen.named("start")[0][1:] == ([0, 1, 0, 0], [0, 1024, 0, 0])
    assert len(seen.named("done")) == 4
    for request, error in ((asked[0], BadImage), (asked[3], BadOption)):
        with pytest.raises(error):
            ScriptedBackend("a cat").generate([request])
    with pytest.raises(BadOption, match="temperature"):
        ScriptedBackend("a cat").generate([ask("fine"), ask(temperature=-1)])


@pytest.mark.parametrize(
    ("thinking", "wish", "expected"),
    [
        ("never", None, False), ("never", False, False), ("never", True, None),
        ("off", None, False), ("off", True, True), ("on", None, True), ("on", False, False),
        ("always", None, True), ("always", True, True), ("always", False, None),
    ],
)  # fmt: skip
def test_whether_it_thinks(thinking: Any, wish: bool | None, expected: bool | None) -> None:
    backend = ScriptedBackend(thinking=thinking)
    if expected is None:
        with pytest.raises(BadOption, match=thinking):
            backend.thinks(wish)
    else:
        assert backend.thinks(wish) is expected


@pytest.mark.parametrize("thinking", ["off", "on"])
def test_a_thought_is_streamed_before_the_answer(thinking: Any) -> None:
    backend, seen = ScriptedBackend(Reply("a cat", "it purrs"), thinking=thinking), Recorder()
    (found,) = backend.generate([ask()], seen)
    assert (found.thinking, found.text) == ("it purrs", "a cat")
    streamed = "".join(call[2] for call in seen.named("token"))
    assert split_thinking(streamed, inside=backend.thinks()) == ("it purrs", "a cat")
    assert found.usage.new_tokens == len(seen.named("token")) > len(found.tokens)
    (short,) = backend.generate([ask(max_thinking_tokens=1)])
    assert (short.thinking, short.text) == ("it", "a cat")


def test_an_earlier_answer_counts_by_its_tokens() -> None:
    backend = ScriptedBackend("yes")
    messages = (
        Message("user", ("is it?",)),
        Message("assistant", (Generated((1, 2, 3, 4, 5)),)),
        Message("user", ("sure?",)),
    )
    (found,) = backend.generate([Request(messages)])
    assert found.usage.prompt_tokens == 3 + 5 + 2


def test_scores_are_normalised_over_the_candidates() -> None:
    backend: Scorer = ScriptedBackend(scores=[[1, 3], [0.2, 0]])
    assert backend.score([ask(), ask()], ["yes", "no"]) == [[0.25, 0.75], [1, 0]]
    by_length = ScriptedBackend(scores=lambda request, texts: [len(text) for text in texts])
    assert by_length.score([ask()], ["a", "bcd"]) == [[0.25, 0.75]]
    assert isinstance(by_length, Scorer)


@pytest.mark.parametrize("candidates", [[], ["yes", ""], ["yes", "no", "yes"]])
def test_candidates_that_cannot_be_compared_are_refused(candidates: list[str]) -> None:
    with pytest.raises(BadOption, match="andidate"):
        ScriptedBackend(scores=[[1]]).score([ask()], candidates)


@pytest.mark.parametrize("scores", [[1], [1, 2, 3], [1, -1], [0, 0], [1, math.nan], [1, math.inf]])
def test_scores_that_cannot_be_normalised_are_refused(scores: list[float]) -> None:
    with pytest.raises(BadOption, match="scores of 2 candidates"):
        ScriptedBackend(scores=[scores]).score([ask()], ["yes", "no"])


def test_scoring_is_interrupted_and_needs_scores() -> None:
    class Stop(Observer):
        def check(self) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ScriptedBackend(scores=[[1]]).score([ask()], ["yes"], Stop())
    with pytest.raises(Unavailable):
        ScriptedBackend().score([ask()], ["yes"])


def test_a_closed_one_refuses_requests() -> None:
    backend = ScriptedBackend("a cat")
    backend.close()
    assert backend.closed
    with pytest.raises(QwenVLError, match="unloaded"):
        backend.generate([ask()])


def test_only_the_resident_one_has_weights_that_move() -> None:
    plain: Backend = ScriptedBackend("a cat")
    assert not isinstance(plain, Resident)
    backend, seen = ResidentScriptedBackend("a cat", size=44), Recorder()
    assert isinstance(backend, Resident)
    assert (backend.place, backend.nbytes) == ("disk", 0)
    backend.offload()
    assert backend.place == "disk", "nothing is there to be offloaded"
    backend.generate([ask()], seen)
    assert seen.calls[1:3] == [("loading", 0, 1), ("loading", 1, 1)]
    assert (backend.place, backend.nbytes) == ("device", 44)
    backend.offload()
    assert (backend.place, backend.nbytes) == ("ram", 44)
    backend.generate([ask()], seen)
    assert (backend.place, len(seen.named("loading"))) == ("device", 2)
    backend.close()
    assert (backend.place, backend.nbytes) == ("disk", 0)


def test_calls_of_several_threads_queue() -> None:
    inside = threading.Semaphore(1)

    class Alone(Observer):
        def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
            assert inside.acquire(blocking=False)

        def done(self, index: int, response: Response) -> None:
            inside.release()

    backend = ScriptedBackend("a long reply of many words " * 20)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: backend.generate([ask()], Alone()), range(50)))
    assert backend.batches == [1] * 50
