"""Loading: heard of while it goes on, stopped at once, and no more memory than it should."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl import loading
from qwen_vl_suite.qwenvl.families import family_of
from qwen_vl_suite.qwenvl.shards import settings
from qwen_vl_suite.qwenvl.types import ModelSpec

FAMILY_NAMES = list(tiny.CONFIGS)
QUANTISED = ["8bit", "4bit"]


def load(folder: Path, progress=None, **options):
    """The bare model of ``folder`` on the CPU."""
    family = family_of(settings(folder, "config.json"))
    spec = ModelSpec(str(folder), **{"device": "cpu", **options})
    with torch.no_grad():
        return loading.load_model(folder, spec, family, progress)


@pytest.mark.parametrize("quantization", ["none", *QUANTISED])
@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_omni", "qwen3_vl"])
def test_progress_counts_tensors_from_none_to_all(checkpoint, model_type, quantization) -> None:
    told: list[tuple[int, int]] = []
    folder = checkpoint(model_type)
    load(folder, lambda done, total: told.append((done, total)), quantization=quantization)
    (total,) = {total for _, total in told}
    assert total > 40, "whole files would be too coarse"
    assert [done for done, _ in told] == list(range(total + 1))


class HostStop(BaseException):
    """As ComfyUI's interrupt: no ``Exception``."""


@pytest.mark.parametrize("quantization", ["none", *QUANTISED])
@pytest.mark.parametrize("kind", [HostStop, ValueError, OSError])
def test_what_progress_raises_ends_loading_and_comes_unchanged(
    checkpoint, kind, quantization
) -> None:
    folder = checkpoint("qwen3_vl")
    raised = kind("stop")
    told: list[int] = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        if done == 10:
            raise raised

    modules = count_modules()
    with pytest.raises(kind) as caught:
        load(folder, stop, quantization=quantization)
    assert caught.value is raised
    assert raised.__cause__ is None and raised.__context__ is None
    assert told == list(range(11)), "loading went on"
    assert count_modules() == modules, "half a model stayed in memory, held by the error"


def count_modules() -> int:
    gc.collect()
    return sum(isinstance(thing, torch.nn.Module) for thing in gc.get_objects())


def test_transformers_is_left_as_it_was(checkpoint) -> None:
    from transformers import modeling_utils
    from transformers.utils import logging

    def state() -> tuple:
        return modeling_utils.safe_open, getattr(logging, "_tqdm_hook", None)

    def stop(done: int, total: int) -> None:
        raise HostStop

    before = state()
    load(checkpoint("qwen3_vl"), lambda done, total: None)
    assert state() == before
    with pytest.raises(HostStop):
        load(checkpoint("qwen3_vl"), stop)
    assert state() == before
