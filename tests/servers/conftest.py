"""Real servers, one at a time: each is started for the tests that are about it, and ended before
the next. What is not installed is skipped; ``running`` says how each is named."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import running
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend
from qwen_vl_suite.qwenvl.types import LocalSpec

MEASURED: list[str] = []


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session", params=list(running.WAYS))
def server(request: pytest.FixtureRequest, files: Path) -> Iterator[running.Server]:
    yield from _started(request.param, files)


@pytest.fixture(scope="session")
def thinking_server(files: Path) -> Iterator[running.Server]:
    """One whose model begins each answer with a thought."""
    yield from _started(running.THINKING, files)


def _started(name: str, files: Path) -> Iterator[running.Server]:
    if missing := [name for name in running.way(name).needs if not os.environ.get(name)]:
        pytest.skip(f"{', '.join(missing)} is not set")
    with running.started(name, files) as found:
        yield found


@pytest.fixture(scope="session")
def backend(server: running.Server) -> Iterator[OpenAIServerBackend]:
    made = OpenAIServerBackend(server.spec)
    yield made
    made.close()


@pytest.fixture(scope="session")
def local(server: running.Server) -> Iterator[LocalBackend]:
    """The same checkpoint in this process."""
    made = load(LocalSpec(str(server.checkpoint), device="cpu", precision="fp32"))
    yield made
    made.close()


@pytest.fixture
def measured(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes down a number for the summary."""
    return lambda what: MEASURED.append(f"{request.node.name}: {what}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if MEASURED:
        terminalreporter.section("measured")
        for line in MEASURED:
            terminalreporter.line(line)
