"""Requests under faults: what is asked again, what is refused, and that no key shows."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import re
import socket
import sys
import traceback
from contextlib import closing
from typing import Any

import openai
import own_loop
import pytest
import torch
from fake_server import Answer, FakeServer, serving, until
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend, list_models
from qwen_vl_suite.qwenvl.errors import BadOption, QwenVLError, ServerError, Unavailable
from qwen_vl_suite.qwenvl.servers import client, connection, faults, replicas, retries
from qwen_vl_suite.qwenvl.servers.addresses import parse
from qwen_vl_suite.qwenvl.servers.keys import Keys, variable
from qwen_vl_suite.qwenvl.servers.streaming import usage_of
from qwen_vl_suite.qwenvl.types import Request, Response, ServerSpec

KEY = "sk-canary/0123456789+"
PICTURE = torch.zeros(3, 64, 64, dtype=torch.uint8)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_FIRST_DELAY", 0.002)
    monkeypatch.setattr(faults, "_LONGEST_DELAY", 0.01)
    monkeypatch.setattr(replicas, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(replicas, "LONGEST_REST", 0.02)


def opened(*urls: str, model: str = "Qwen3-VL-8B", key: str = "", **spec: Any) -> Any:
    """The backend of these addresses, closed at the end of the block."""
    environ = {variable(parse(url)): key for url in urls if key}
    made = ServerSpec(urls, model, **{"kind": "vllm", **spec})
    return closing(OpenAIServerBackend(made, Keys(environ=environ)))


def ask(backend: OpenAIServerBackend, count: int = 1, **fields: Any) -> list[Response]:
    return backend.generate([Request.ask([], f"{n}", **fields) for n in range(count)])


def error_of(backend: OpenAIServerBackend) -> QwenVLError:
    (response,) = ask(backend)
    assert response.error and not response.text
    return response.error


STREAM = {"Content-Type": "text/event-stream"}


def said(body: dict[str, Any]) -> str:
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else content[-1]["text"]


def refusal(words: str, status: int = 400) -> Answer:
    return Answer(status=status, body=json.dumps({"error": {"message": words}}).encode())


def test_however_the_bytes_of_a_stream_are_cut_the_answer_is_the_same() -> None:
    text = "a cat, un café,\n一只猫 😀 <|x|>"

    @settings(max_examples=25, deadline=None)
    @given(st.lists(st.integers(0, 2000), max_size=12))
    def check(cuts: list[int]) -> None:
        server.script = lambda body, number: Answer(text, thinking="hm so", cuts=cuts)
        (found,) = ask(backend)
        assert (found.text, found.thinking, found.finish_reason) == (text, "hm so", "stop")

    with serving() as server, opened(server.url) as backend:
        check()


def test_one_request_fails_alone_with_the_server_s_own_words() -> None:
    def script(body: dict, number: int) -> Answer | str:
        return refusal("the picture is too odd") if said(body) == "1" else f"answer {said(body)}"

    with serving(script) as server, opened(server.url) as backend:
        first, second, third = ask(backend, 3)
    assert (first.text, third.text) == ("answer 0", "answer 2")
    assert isinstance(second.error, ServerError)
    assert str(second.error).startswith(f"{server.url} gave no answer: it answers with HTTP 400: ")
    assert "the picture is too odd" in str(second.error)
    assert len(server.chats) == 3


@pytest.mark.parametrize("status", [429, 500, 502, 503, 408])
def test_passing_failures_are_asked_again(status: int) -> None:
    def script(body: dict, number: int) -> Answer | str:
        return refusal("later", status) if number < 3 else "at last"

    with serving(script) as server, opened(server.url) as backend:
        (found,) = ask(backend)
    assert found.text == "at last" and len(server.chats) == 4


def test_a_failure_that_does_not_pass_is_told_in_the_end() -> None:
    with serving(refusal("out of order", 500)) as server, opened(server.url) as backend:
        error = error_of(backend)
    assert "HTTP 500: out of order" in str(error)
    assert f"asked {faults.TRIES['broken']} times" in str(error)


@pytest.mark.parametrize(
    ("given", "expected"),
    [("7", 7), ("1e9", 60), ("-5", 0), ("nan", 0), ("inf", 0), ("Wed, 21 Oct 2026", 0), (None, 0)],
)
def test_retry_after(given: str | None, expected: float) -> None:
    headers = {} if given is None else {"retry-after": given}
    assert faults._retry_after(headers) == expected


def test_a_server_that_asks_to_wait_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    busy = replicas.Replicas.busy

    def noted(self: Any, replica: Any, seconds: float) -> None:
        waits.append(seconds)
        busy(self, replica, seconds)

    monkeypatch.setattr(replicas.Replicas, "busy", noted)

    def script(body: dict, number: int) -> Answer | str:
        later = Answer(status=429, body=b"{}", headers={"Retry-After": "0.05"})
        return later if number == 0 else "now"

    with serving(script) as server, opened(server.url) as backend:
        assert ask(backend)[0].text == "now"
    assert waits == [0.05]


def test_while_one_replica_asks_to_wait_another_is_asked() -> None:
    later = Answer(status=429, body=b"{}", headers={"Retry-After": "30"})
    with (
        serving(later) as busy,
        serving("here") as free,
        opened(busy.url, free.url, concurrency=2) as backend,
    ):
        assert {response.text for response in ask(backend, 8)} == {"here"}
    assert 1 <= len(busy.chats) <= 2


def test_without_its_library_servers_are_refused_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    with opened(free_url()) as backend, pytest.raises(Unavailable, match="pip install openai"):
        ask(backend)


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (Answer("never", delay=30), faults.TRIES["slow"]),
        (Answer("one two", fault="stall"), faults.TRIES["slow"]),
        (Answer("x " * 999, drip=0.1), faults.TRIES["slow"]),
        (Answer("x " * 9999, drip=0.002), 1),  # it is coming, and will be as long again
    ],
    ids=["none", "stall", "drip", "long"],
)
def test_the_time_limit_holds_for_stalls_and_for_slow_drips(
    answer: Answer, tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Few on a busy machine, too, and more than drip in time.
    monkeypatch.setattr(client, "_MANY_CHUNKS", 4 if tries == 1 else 8)
    limit = 1.5 if tries == 1 else 0.25
    with serving(answer) as server, opened(server.url, timeout=limit) as backend:
        error = error_of(backend)
        assert f"The limit is {limit} seconds" in str(error)
        asked = re.search(r"asked (\d+) times", str(error))
        # On a busy machine a connection may come too late, which counts by itself.
        assert asked is None if tries == 1 else int(asked[1]) >= tries


def test_a_page_of_another_program_is_told_of() -> None:
    page = Answer(body=b"<html>hello</html>", headers={"Content-Type": "text/html"})
    with serving(page) as server, opened(server.url) as backend:
        assert "'text/html' and not with a stream" in str(error_of(backend))


def free_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def test_where_nothing_answers_the_address_is_named_soon() -> None:
    url = free_url()
    with opened(url) as backend:
        found = ask(backend, 20)
    errors = {str(response.error) for response in found}
    assert len(errors) == 1
    assert f"No server answers ({url}: {os.strerror(errno.ECONNREFUSED)})" in errors.pop()


def test_a_host_that_cannot_be_reached_in_time_is_unreachable_and_not_slow() -> None:
    class ConnectTimeout(Exception):
        pass

    class ReadTimeout(Exception):
        pass

    for cause, kind in ((ConnectTimeout(), "unreachable"), (ReadTimeout(), "slow")):
        error = openai.APITimeoutError(request=None)  # type: ignore[arg-type]
        error.__cause__ = cause
        assert faults.of_exception(error, openai).kind == kind


def test_a_server_that_starts_later_is_found_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "FIRST_PAUSE", 0.2)
    url = free_url()
    with opened(url) as backend:
        assert error_of(backend)
        with serving("here I am", port=parse(url).port):
            assert ask(backend)[0].text == "here I am"


def test_no_more_are_under_way_than_allowed_and_order_is_kept() -> None:
    def script(body: dict, number: int) -> Answer:
        return Answer(said(body), delay=0.01 + 0.01 * (int(said(body)) % 3))

    with serving(script) as server, opened(server.url, concurrency=3) as backend:
        found = ask(backend, 12)
    assert [response.text for response in found] == [str(n) for n in range(12)]
    assert server.most_active == 3


def test_replicas_share_the_work_and_nothing_is_lost_when_one_dies() -> None:
    servers = [FakeServer(lambda body, number: Answer(said(body), drip=0.004)) for _ in range(3)]
    dying = servers[0]

    def script(body: dict, number: int) -> Answer:
        if number == 5:
            dying.close()
        return Answer(said(body), drip=0.004)

    dying.script = script
    with opened(*(server.url for server in servers), concurrency=4) as backend:
        found = ask(backend, 60)
    for server in servers[1:]:
        server.close()
    assert [response.text for response in found] == [str(n) for n in range(60)]
    assert len(dying.chats) >= 5
    assert all(len(server.chats) >= 15 for server in servers[1:])


def test_the_least_busy_replica_is_asked_first() -> None:
    fast = FakeServer("fast")

    def script(body: dict, number: int) -> str:
        until(lambda: len(fast.chats) == 18)
        return "slow"

    slow = FakeServer(script)
    with closing(slow), closing(fast), opened(slow.url, fast.url, concurrency=2) as backend:
        found = ask(backend, 20)
    assert [response.text for response in found].count("slow") == 2


def test_a_server_that_fails_at_everything_is_not_asked_for_ever() -> None:
    with serving(refusal("out of order", 500)) as server, opened(server.url) as backend:
        found = ask(backend, 100)
    assert "HTTP 500: out of order" in str(found[-1].error)
    assert len({said(asked.body) for asked in server.chats}) == 100  # each has its chance
    assert len(server.chats) < 400  # of 800 tries


@pytest.mark.parametrize("is_in_stream", [False, True])
def test_pictures_that_a_server_fails_at_cost_the_others_nothing(is_in_stream: bool) -> None:
    streamed = Answer(body=b'data: {"error": {"message": "bad"}}\n\n', headers=STREAM)

    def script(body: dict, number: int) -> Answer | str:
        bad = int(said(body)) < replicas.FAULTS + 6
        return (streamed if is_in_stream else refusal("bad", 500)) if bad else "good"

    with serving(script) as server, opened(server.url, concurrency=8) as backend:
        found = ask(backend, replicas.FAULTS + 20)
    assert [response.text for response in found[-14:]] == ["good"] * 14
    assert all(response.error for response in found[:-14])


def test_while_one_replica_fails_at_everything_others_are_asked_first() -> None:
    with (
        serving(refusal("ill", 500)) as ill,
        serving("well") as well,
        opened(ill.url, well.url, concurrency=8) as backend,
    ):
        found = ask(backend, 40)
        asked = len(ill.chats)
        found += [ask(backend)[0] for _ in range(4)]
    assert [response.text for response in found] == ["well"] * 44
    assert len(ill.chats) == asked


def test_answers_that_are_long_in_coming_are_no_sign_of_an_ill_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client, "_MANY_CHUNKS", 1)
    monkeypatch.setattr(replicas, "FAULTS", 2)

    def script(body: dict, number: int) -> Answer | str:
        return Answer("x " * 999, drip=0.1) if int(said(body)) < 3 else "quick"

    with serving(script) as server, opened(server.url, concurrency=3, timeout=0.8) as backend:
        (warm,) = backend.generate([Request.ask([], "9")])
        assert warm.text == "quick"  # all that is made once is made
        found = ask(backend, 6)
    assert [response.text for response in found] == [""] * 3 + ["quick"] * 3
    assert len(server.chats) == 7


@pytest.mark.parametrize(
    ("error", "tries"),
    [
        ({"code": 400}, 1),
        ({"code": "404"}, 1),
        ({"status": 422, "code": "context"}, 1),
        ({"code": 429}, faults.TRIES["busy"]),
        ({"code": 503}, faults.TRIES["broken"]),
        ({"code": 7}, faults.TRIES["broken"]),
        ({}, faults.TRIES["broken"]),
    ],
)
def test_an_error_inside_a_stream_is_asked_again_as_its_status_says(
    error: dict[str, Any], tries: int
) -> None:
    told = json.dumps({"error": {"message": "too long", **error}})
    answer = Answer(body=f"data: {told}\n\n".encode(), headers=STREAM)
    with serving(answer) as server, opened(server.url) as backend:
        assert "the server says: too long" in str(error_of(backend))
        assert len(server.chats) == tries


def test_what_cannot_be_written_is_mended_or_never_asked() -> None:
    with serving("fine") as server, opened(server.url) as backend:
        (mended,) = backend.generate([Request.ask([PICTURE], "half \ud83d")])
        assert mended.text == "fine" and said(server.chats[0].body) == "half \ufffd"
    with serving("fine") as server, opened(server.url, model="Qwen3-VL-8B \ud83d") as backend:
        assert "cannot be written as JSON" in str(error_of(backend))
        assert not server.chats


def test_a_server_that_tells_of_itself_byte_by_byte_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "SHORT_SECONDS", 0.1)
    with serving() as server, opened(server.url) as backend:
        server.drips = True
        with pytest.raises(ServerError, match=r"did not tell in 0\.1 seconds\.$"):
            backend.list_models()
        monkeypatch.setattr(connection, "SHORT_SECONDS", 30)
        monkeypatch.setattr(client, "ABOUT_SECONDS", 0.1)
        with pytest.raises(ServerError, match=r"No server told of itself in 0\.1 seconds"):
            backend.list_models()


def test_a_busy_server_is_asked_about_itself_a_few_times_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(retries, "FOR_FACTS", retries.Patience(faults.FEW_TRIES, 0.01))
    with serving() as server, opened(server.url) as backend:
        server.listing = Answer(status=429, body=b"{}", headers={"Retry-After": "60"})
        with pytest.raises(ServerError, match=r"HTTP 429.*asked 3 times"):
            backend.list_models()


def test_one_address_is_asked_within_its_places_and_as_often_as_others() -> None:
    def script(body: dict, number: int) -> Answer | str:
        return refusal("later", 429) if number < 2 else Answer("x", drip=0.02)

    async def work(client: client.Client, address: Any) -> None:
        one = {"messages": [{"role": "user", "content": "?"}]}
        await asyncio.gather(*(client.ask_once(address, one, usage_of) for _ in range(4)))

    with serving(script) as server, serving("x") as other:
        spec = ServerSpec((other.url, server.url), "m", concurrency=2)

        async def run() -> None:
            asking = client.Client(spec, Keys(environ={}))
            try:
                await asyncio.wait_for(work(asking, parse(server.url)), 20)
            finally:
                await asking.close()

        own_loop.run(run())
    assert server.most_active == 2 and len(server.chats) == 6 and not other.chats


def test_redirects_are_not_followed() -> None:
    with serving("stolen") as other:
        moved = Answer(status=307, body=b"", headers={"Location": f"{other.url}/chat/completions"})
        with serving(moved) as server, opened(server.url, key=KEY) as backend:
            error = error_of(backend)
        assert not other.asked
    assert other.url in str(error) and "redirects are not followed" in str(error)


def test_keys_go_to_their_own_host_and_nothing_else_does(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "of-openai")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: of-openai\nAuthorization: of-openai")
    monkeypatch.setenv("HTTP_PROXY", free_url())
    with serving("x") as first, serving("x") as second:
        for url, key in ((first.url, KEY), (second.url, "")):
            with opened(url, key=key) as backend:
                ask(backend)
    (with_key,), (without,) = first.chats, second.chats
    assert with_key.headers["Authorization"] == f"Bearer {KEY}"
    assert "Authorization" not in without.headers
    assert "of-openai" not in repr(with_key.headers) + repr(without.headers)


ECHOES = [
    refusal(f"bad key {KEY}"), refusal("x" * 490 + KEY), refusal(KEY, 401), refusal(KEY, 500),
    refusal(KEY, 429), Answer(status=404, body=KEY.encode()), Answer(body=KEY.encode()),
    Answer(body=b"{}", headers={"X-Echo": f"Bearer {KEY}"}),
    Answer(status=302, body=b"", headers={"Location": "/?k=sk-canary%2F0123456789%2B"}),
    Answer("one two", fault="garbage"), Answer("one two", fault="half"), Answer(delay=9),
    Answer(body=b'data: {"error": {"message": "%s"}}\n\n' % KEY.encode()), Answer(fault="drop"),
]  # fmt: skip


@pytest.mark.parametrize("answer", ECHOES, ids=range(len(ECHOES)))
def test_no_key_is_shown_whatever_the_server_does(
    answer: Answer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("", "openai", "httpx", "httpx2", "httpcore", "httpcore2", "qwen_vl_suite"):
        caplog.set_level(logging.DEBUG, name or None)
    with serving(answer) as server, opened(server.url, key=KEY, timeout=0.2) as backend:
        error = error_of(backend)
        assert server.chats[0].headers["Authorization"] == f"Bearer {KEY}"
        shown = "".join(traceback.format_exception(error)) + caplog.text
        shown += repr(error.__context__) + repr(backend.spec) + repr(backend) + repr(vars(backend))
    assert "sk-canary" not in shown
    assert server.url in str(error)


def test_requests_are_no_line_each_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with serving("x") as server, opened(server.url) as backend:
        ask(backend, 3)
        assert not [record for record in caplog.records if record.name.startswith("http")]
        openai.OpenAI(api_key="none", base_url=server.url).models.list()
    assert [record for record in caplog.records if record.name.startswith("http")]


def test_an_answer_without_end_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_BYTES", 50_000)
    with serving(Answer("word " * 2000)) as server, opened(server.url) as backend:
        assert "its answer is larger than" in str(error_of(backend))
    endless = Answer(status=400, body=b"x" * 100_000)
    with serving(endless) as server, opened(server.url) as backend:
        assert "its answer is larger than" in str(error_of(backend))


def test_addresses_without_tls_elsewhere_need_consent() -> None:
    with opened("http://192.0.2.1:8000/v1") as backend, pytest.raises(BadOption, match="no TLS"):
        ask(backend)


def test_models_are_listed_and_the_only_one_is_taken() -> None:
    with serving("x", models=["Qwen3-VL-8B"]) as one, serving("x", models=["a", "b"]) as two:
        assert list_models(ServerSpec((two.url,))) == ["a", "b"]
        with closing(OpenAIServerBackend(ServerSpec((one.url,), kind="vllm"))) as backend:
            assert backend.family.model_type == "qwen3_vl"
            ask(backend)
        backend = OpenAIServerBackend(ServerSpec((two.url,)))
        with closing(backend), pytest.raises(BadOption, match=r"lists 2 models \(a, b\)"):
            ask(backend)
    assert one.chats[0].body["model"] == "Qwen3-VL-8B"


def test_a_family_is_never_guessed() -> None:
    for spec, words in (
        (ServerSpec((free_url(),), "my-model"), "'my-model' does not tell.*--family"),
        (ServerSpec((free_url(),), "my-model", family="qwen9"), "no family 'qwen9'"),
    ):
        with closing(OpenAIServerBackend(spec)) as backend, pytest.raises(BadOption, match=words):
            backend.family  # noqa: B018
    spec = ServerSpec((free_url(),), "my-model", family="qwen2_5_vl")
    with closing(OpenAIServerBackend(spec)) as backend:
        assert backend.family.coordinates == "absolute"


def test_a_closed_backend_refuses() -> None:
    with serving("x") as server, opened(server.url) as backend:
        ask(backend)
        backend.close()
        with pytest.raises(QwenVLError, match="unloaded"):
            ask(backend)
