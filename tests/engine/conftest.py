"""Tiny checkpoints of every family, made once a run, and the models loaded from them."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from fake_cuda_graphs import FakeCudaGraphs
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.inference import batch
from qwen_vl_suite.qwenvl.inference.batch import StepPolicy
from qwen_vl_suite.qwenvl.inference.logits import GrammarMask
from qwen_vl_suite.qwenvl.types import LocalSpec

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``checkpoint("qwen3_vl")`` is a folder; skips where transformers is too old to have it."""
    root = tmp_path_factory.mktemp("checkpoints")

    def made(model_type: str, thinking: str = "", mtp: bool = False) -> Path:
        if not tiny.available(model_type):
            import transformers

            pytest.skip(f"transformers {transformers.__version__} has no {model_type}")
        folder = root / f"{model_type}{thinking}{'-mtp' * mtp}"
        # Written once: models that are loaded from it see when their files change.
        if not folder.exists():
            tiny.make(model_type, folder, thinking, mtp=mtp)
        if not gc.get_freeze_count():
            gc.freeze()  # the libraries' objects, which every collection would go through
        return folder

    return made


@pytest.fixture(scope="session")
def backend(checkpoint: Callable[..., Path]) -> Callable[..., LocalBackend]:
    """``backend("qwen3_vl")`` is a loaded tiny model, fp32, on the CPU."""

    @cache
    def loaded(model_type: str, thinking: str = "", mtp: bool = False) -> LocalBackend:
        return load(LocalSpec(str(checkpoint(model_type, thinking, mtp)), device="cpu"))

    return loaded


@pytest.fixture(params=["as on the CPU", "as on CUDA"])
def step_policy(request: pytest.FixtureRequest) -> None:
    if request.param == "as on CUDA":
        request.getfixturevalue("cuda_policy")


@pytest.fixture
def cuda_policy(monkeypatch: pytest.MonkeyPatch) -> list[FakeCudaGraphs]:
    """From here on batches have the step policy of CUDA, and masks are put on as there, which the
    host does not look into. Gives their graphs."""
    made: list[FakeCudaGraphs] = []

    def step_policy(_runner: Any) -> StepPolicy:
        made.append(FakeCudaGraphs())
        return StepPolicy(lag=1, static=True, max_free=0.5, graphs=made[-1])

    monkeypatch.setattr(batch, "step_policy", step_policy)
    monkeypatch.setattr(GrammarMask, "_masked_where_needed", GrammarMask._masked)
    return made


@pytest.fixture(autouse=True)
def no_fall_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of a fast path fails the test, instead of being answered the plain way."""

    def failed(_self: LocalBackend, error: Exception) -> None:
        raise error

    monkeypatch.setattr(LocalBackend, "_fall_back", failed)


_FALL_BACK = LocalBackend._fall_back


@pytest.fixture
def may_fall_back(no_fall_back: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalBackend, "_fall_back", _FALL_BACK)
