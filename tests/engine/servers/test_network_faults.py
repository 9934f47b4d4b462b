"""A network and servers that fail in every way: no answer is lost, told twice or given to another
question."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import fault_proxy
import pytest
import torch
from qwen_vl_suite.benchmarks.loopback import LoopbackServer
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.servers import faults, replicas
from qwen_vl_suite.qwenvl.types import Request, Response, ServerSpec
from trickling import Answers, Trickle

Generate = Callable[..., list[Response]]

COUNT = int(os.environ.get("QVL_FAULT_REQUESTS", "96"))
"""``QVL_FAULT_REQUESTS=2000`` is the long form."""


class Streamed(Observer):
    """What a caller sees of each answer as it comes."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.finished: list[int] = []

    def token(self, index: int, text: str) -> None:
        assert index not in self.finished
        self.texts[index] = self.texts.get(index, "") + text

    def restart(self, index: int) -> None:
        self.texts[index] = ""

    def done(self, index: int, response: Response) -> None:
        self.finished.append(index)


def question(number: int) -> Request:
    """One of which words and picture tell the number."""
    picture = torch.tensor([number >> 8, number & 255, 7], dtype=torch.uint8)
    return Request.ask([picture[:, None, None].expand(3, 64, 64)], f"number {number}")


def at_once(
    backend: OpenAIServerBackend, requests: list[Request], observer: Observer | None = None
) -> list[Response]:
    return backend.generate(requests, observer)


def as_they_come(
    backend: OpenAIServerBackend, requests: list[Request], observer: Observer | None = None
) -> list[Response]:
    told = Answers(observer)
    lots = [requests[at : at + 5] for at in range(0, len(requests), 5)]
    backend.generate_from(Trickle(lots, slow=True), told)
    return told.in_order


each_road = pytest.mark.parametrize("generate", [at_once, as_they_come])


@pytest.fixture(scope="module")
def truth() -> list[str]:
    """The answers on a road without faults."""
    with LoopbackServer(0.001) as server:
        backend = OpenAIServerBackend(ServerSpec((server.url,), family="qwen3_vl"))
        responses = backend.generate([question(n) for n in range(COUNT)])
        backend.close()
    texts = [response.text for response in responses]
    assert len(set(texts)) == COUNT
    assert all(text.startswith(f"number {n} #") for n, text in enumerate(texts))
    return texts


@pytest.fixture
def opened() -> Iterator[Callable[..., OpenAIServerBackend]]:
    made: list[OpenAIServerBackend] = []

    def make(*urls: str, **fields: object) -> OpenAIServerBackend:
        made.append(OpenAIServerBackend(ServerSpec(urls, family="qwen3_vl", **fields)))
        return made[-1]

    yield make
    for backend in made:
        backend.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits between tries as short as tests want them."""
    monkeypatch.setattr(faults, "delay", lambda tries: 0.01)
    for pause in ("FIRST_PAUSE", "LONGEST_PAUSE", "LONGEST_REST"):
        monkeypatch.setattr(replicas, pause, 0.01)


@each_road
@pytest.mark.usefixtures("impatient")
def test_no_answer_is_lost_doubled_or_misplaced(
    opened: Callable[..., OpenAIServerBackend], truth: list[str], generate: Generate
):
    with (
        LoopbackServer(0.001) as server,
        fault_proxy.FaultProxy(server.url, fault_proxy.FAULTS) as proxy,
    ):
        streamed = Streamed()
        backend = opened(proxy.url, concurrency=16)
        responses = generate(backend, [question(n) for n in range(COUNT)], streamed)
    assert [(r.text, r.error) for r in responses] == [(truth[n], None) for n in range(COUNT)]
    assert streamed.texts == {n: truth[n] for n in range(COUNT)}
    assert sorted(streamed.finished) == list(range(COUNT))
    assert set(proxy.met) == {"", *fault_proxy.FAULTS}


@pytest.mark.usefixtures("impatient")
def test_what_never_comes_is_asked_again(
    opened: Callable[..., OpenAIServerBackend], truth: list[str]
):
    with (
        LoopbackServer(0.001) as server,
        fault_proxy.FaultProxy(server.url, ["stall", ""], most=2) as proxy,
    ):
        backend = opened(proxy.url, concurrency=16, timeout=1.0)
        responses = backend.generate([question(n) for n in range(16)])
    assert [r.text for r in responses] == [truth[n] for n in range(16)]
    assert proxy.met["stall"]


@each_road
@pytest.mark.usefixtures("impatient")
def test_pictures_that_the_server_cannot_bear_cost_the_others_nothing(
    opened: Callable[..., OpenAIServerBackend], generate: Generate
):
    with (
        LoopbackServer(0.001) as server,
        fault_proxy.FaultProxy(server.url, hopeless="bad") as proxy,
    ):
        asked = [Request.ask([], f"bad {n}") for n in range(16)]
        asked += [Request.ask([], f"good {n}") for n in range(10)]
        responses = generate(opened(proxy.url, concurrency=4), asked)
    assert [r.text for r in responses] == [""] * 16 + [f"good {n}" for n in range(10)]
    assert all("HTTP 500" in str(r.error) for r in responses[:16])


@pytest.mark.usefixtures("impatient")
def test_a_moment_in_which_a_server_fails_at_everything_costs_nothing(
    opened: Callable[..., OpenAIServerBackend],
):
    with (
        LoopbackServer(0.001) as server,
        fault_proxy.FaultProxy(server.url, ["error"], most=3, least=3) as proxy,
    ):
        backend = opened(proxy.url, concurrency=16)
        responses = backend.generate([Request.ask([], f"number {n}") for n in range(20)])
    assert [r.text for r in responses] == [f"number {n}" for n in range(20)]


class Killer(Observer):
    """Ends a server once so many answers are there."""

    def __init__(self, server: LoopbackServer, after: int):
        self.server, self.left = server, after

    def done(self, index: int, response: Response) -> None:
        self.left -= 1
        if self.left == 0:
            self.server.die()


@each_road
def test_a_replica_that_dies_loses_nothing(
    opened: Callable[..., OpenAIServerBackend], truth: list[str], generate: Generate
):
    with LoopbackServer(0.05) as one, LoopbackServer(0.05) as two, LoopbackServer(0.05) as three:
        backend = opened(one.url, two.url, three.url, concurrency=4)
        questions = [question(n) for n in range(60)]
        responses = generate(backend, questions, Killer(two, after=20))
    assert [(r.text, r.error) for r in responses] == [(truth[n], None) for n in range(60)]
    # Each took part, and the two that lived did the rest of the dead one's share.
    assert 0 < two.answered < min(one.answered, three.answered)
    assert one.answered + three.answered >= 60 - two.answered
