"""Loads the pack by path under an identifier name, as ComfyUI does, and keeps its root off
``sys.path``: the folder ``nodes`` would otherwise shadow ComfyUI's own ``nodes.py``."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

# How long an example takes says more of the machine than of the code. By hand other examples are
# tried each time; in CI the same ones, so that it says the same of the same code.
settings.register_profile("suite", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("suite")

ROOT = Path(__file__).resolve().parent.parent
NAME = "qwen_vl_suite"


def load_pack() -> None:
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != ROOT]
    spec = importlib.util.spec_from_file_location(
        NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)


if NAME not in sys.modules:
    load_pack()


@pytest.fixture(autouse=True)
def same_priority() -> Iterator[None]:
    """A library that gives the tests' own thread real-time priority, as some encoders do for root,
    would let all later tests keep the processors from the threads that they wait for."""
    before = _scheduler()
    yield
    assert _scheduler() == before, "the priority of the tests' thread was changed"


def _scheduler() -> int:
    return os.sched_getscheduler(0) if hasattr(os, "sched_getscheduler") else 0
