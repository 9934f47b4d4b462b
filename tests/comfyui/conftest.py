"""The servers that these tests share: each is started once, when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import real

PRETEND_CARD = Path(__file__).resolve().parent / "pretend_card"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Server]:
    """A ComfyUI as a user starts it; on the CPU where there is no GPU."""
    with real.started(tmp_path_factory.mktemp("comfyui")) as running:
        yield running


@pytest.fixture(scope="session")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Server]:
    """One that believes in a graphics card with little memory (see ``pretend_card``)."""
    base = tmp_path_factory.mktemp("card")
    with real.started(base, extensions=[PRETEND_CARD]) as running:
        yield running
