"""The servers that these tests share: each is started once, when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import real
from hub import Hub


@pytest.fixture(scope="session")
def hub() -> Iterator[Hub]:
    """What ``server`` takes for Hugging Face: a hub on this machine, empty at first."""
    with Hub({}) as running:
        yield running


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, hub: Hub) -> Iterator[real.Server]:
    """A ComfyUI as a user starts it; on the CPU where there is no GPU."""
    mirror = {"HF_ENDPOINT": hub.url, "HF_TOKEN": "", "NO_PROXY": "127.0.0.1"}
    with real.started(tmp_path_factory.mktemp("comfyui"), env=mirror) as running:
        yield running


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Server]:
    """One that believes in a graphics card with little memory (see ``pretend_card``)."""
    base = tmp_path_factory.mktemp("card")
    with real.started(base, extensions=[real.PRETEND_CARD]) as running:
        yield running


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 260 MB, which is seen in a process's memory and takes a while to load."""
    import tiny

    return tiny.make_large(tmp_path_factory.mktemp("large") / "large")
