"""Requests to servers on this machine: many at once against one by one, several replicas, and one
of them that dies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import Request, Response, ServerSpec

from .figures import Figure, Growth, compare, measure_growth
from .loopback import ServerProcess


def concurrency(
    name: str, wanted: float | None, seconds: float, count: int, at_once: int
) -> Figure:
    """``count`` questions to a server that takes ``seconds`` for each: ``at_once`` of them under
    way together, against one by one."""
    asked = _questions(count)
    with (
        ServerProcess(seconds) as server,
        _opened([server], 1) as one,
        _opened([server], at_once) as many,
    ):
        return compare(
            name,
            lambda: _answers(many, asked),
            lambda: _answers(one, asked),
            wanted=wanted,
            repeats=3,
            note="pictures of 256×256, compressed here",
        )


def replicas(
    name: str, wanted: float | None, seconds: float, count: int, at_once: int, most: int
) -> Growth:
    """``count`` questions to 1 to ``most`` servers, each of which answers ``at_once`` at a time."""
    asked = _questions(count)
    with ExitStack() as stack:
        servers = [stack.enter_context(ServerProcess(seconds, at_once)) for _ in range(most)]
        backends = [
            stack.enter_context(_opened(servers[: index + 1], at_once)) for index in range(most)
        ]
        return measure_growth(
            name,
            wanted,
            "replicas",
            list(range(1, most + 1)),
            lambda index: _answers(backends[index], asked),
        )


def death(name: str, wanted: float | None, seconds: float, count: int, at_once: int) -> Figure:
    """``count`` questions to three replicas, one of which dies midway, against three that live.
    Their answers are the same: none is lost."""
    asked = _questions(count)

    def ask(kills: bool) -> list[str]:
        with ExitStack() as stack:
            servers = [stack.enter_context(ServerProcess(seconds, at_once)) for _ in range(3)]
            backend = stack.enter_context(_opened(servers, at_once))
            return _answers(backend, asked, _Killer(servers[1], count // 2) if kills else None)

    return compare(
        name,
        lambda: ask(True),
        lambda: ask(False),
        wanted=wanted,
        repeats=3,
        note="nothing is lost",
    )


def jpeg(name: str, wanted: float | None, count: int, at_once: int, side: int) -> Figure:
    """``count`` questions about pictures of ``side`` pixels to a server that answers at once: the
    pictures as JPEG against PNG. The same questions are answered; the pictures' bytes differ."""
    asked = _questions(count, side)
    with (
        ServerProcess(0) as server,
        _opened([server], at_once, picture_format="jpeg") as small,
        _opened([server], at_once) as exact,
    ):
        return compare(
            name,
            lambda: _without_pictures(_answers(small, asked)),
            lambda: _without_pictures(_answers(exact, asked)),
            wanted=wanted,
            repeats=3,
            note=f"pictures of {side}×{side}",
        )


def _without_pictures(texts: Sequence[str]) -> list[str]:
    return [text.partition(" #")[0] for text in texts]


class _Killer(Observer):
    """Ends a server once so many answers are there."""

    def __init__(self, server: ServerProcess, after: int):
        self._server, self._left = server, after

    def done(self, index: int, response: Response) -> None:
        self._left -= 1
        if self._left == 0:
            self._server.die()


@contextmanager
def _opened(
    servers: Sequence[ServerProcess], at_once: int, **fields: Any
) -> Iterator[OpenAIServerBackend]:
    """The model of ``servers``, of which one question was asked already."""
    urls = tuple(server.url for server in servers)
    spec = ServerSpec(urls, family="qwen3_vl", concurrency=at_once, **fields)
    backend = OpenAIServerBackend(spec)
    try:
        _answers(backend, _questions(1))
        yield backend
    finally:
        backend.close()


def _questions(count: int, side: int = 256) -> list[Request]:
    return [
        Request.ask([_picture(side, number)], f"What is in picture {number}?")
        for number in range(count)
    ]


def _picture(side: int, seed: int) -> torch.Tensor:
    """Soft colours, which compress about as a photograph does and noise does not."""
    random = torch.Generator().manual_seed(seed)
    few = torch.rand((1, 3, 24, 24), generator=random) * 255
    return torch.nn.functional.interpolate(few, (side, side), mode="bilinear")[0].byte()


def _answers(
    backend: OpenAIServerBackend, asked: Sequence[Request], observer: Observer | None = None
) -> list[Any]:
    """Raises ``AssertionError`` for an answer that is missing or belongs to another question."""
    responses = backend.generate(asked, observer)
    texts = [response.text for response in responses]
    for number, response in enumerate(responses):
        expected = f"What is in picture {number}?"
        assert response.text.startswith(expected), f"{expected}: {response}"
    return texts
