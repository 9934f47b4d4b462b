"""What CONTRIBUTING promises: a family is one row, a task one function, a backend one class."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.base import Backend
from qwen_vl_suite.qwenvl.backends.local import load
from qwen_vl_suite.qwenvl.errors import UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES, family_of, is_default
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.types import (
    LocalSpec,
    ReplyContext,
    Request,
    Response,
    Result,
    Sampling,
    Task,
)

PICTURE = torch.full((3, 64, 96), 128, dtype=torch.uint8)


@pytest.fixture
def library() -> None:
    """A transformers that has ``qwen9_vl``, which is Qwen3-VL by another name."""
    import transformers
    from transformers import AutoConfig, AutoModelForImageTextToText

    class Qwen9VLConfig(transformers.Qwen3VLConfig):  # type: ignore[misc]
        model_type = "qwen9_vl"

    class Qwen9VL(transformers.Qwen3VLForConditionalGeneration):  # type: ignore[misc]
        config_class = Qwen9VLConfig

    AutoConfig.register("qwen9_vl", Qwen9VLConfig, exist_ok=True)
    AutoModelForImageTextToText.register(Qwen9VLConfig, Qwen9VL, exist_ok=True)


def test_a_family_is_one_row(
    library: None, checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.make("qwen3_vl", tmp_path / "qwen9")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "qwen9_vl"}))

    row = dataclasses.replace(
        FAMILIES["qwen3_vl"], model_type="qwen9_vl", title="Qwen9-VL", coordinates="absolute"
    )
    monkeypatch.setitem(FAMILIES, "qwen9_vl", row)  # type: ignore[arg-type]

    assert family_of({"model_type": "qwen9_vl"}) is row and not is_default(row)
    asked = Request.ask((PICTURE,), "What is it?", sampling=Sampling(8))
    new = load(LocalSpec(str(folder), device="cpu"))
    old = load(LocalSpec(str(tiny.make("qwen3_vl", tmp_path / "qwen3")), device="cpu"))
    assert new.family is row
    assert [r.text for r in new.generate([asked])] == [r.text for r in old.generate([asked])]


def count(thing: str) -> Task:
    """How many there are: a task as ``qwenvl/tasks`` has them."""

    def parse(text: str, context: ReplyContext) -> Result:
        if not text.strip().isdigit():
            raise UnreadableReply(f"This is no number: {text}", text)
        return Result(text.strip(), data=int(text))

    return Task("count", f"How many {thing} are there? Answer with a number.", parse, greedy=True)


class Echo:
    """A backend as ``qwenvl/backends`` has them: every answer is ``reply``."""

    family = FAMILIES["qwen3_vl"]
    max_pixels = None

    def __init__(self, reply: str):
        self.reply = reply
        self.asked: list[Request] = []

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        return False

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        self.asked += requests
        sizes = [tuple(tuple(image.shape[-2:]) for image in r.images) for r in requests]
        return [Response(self.reply, input_sizes=size) for size in sizes]

    def close(self) -> None:
        return None


def test_a_task_is_one_function() -> None:
    backend = Echo("3")
    (result,) = run.answer(backend, count("cats"), [PICTURE])
    assert result.data == 3
    assert backend.asked[0].prompt == "How many cats are there? Answer with a number."
    with pytest.raises(UnreadableReply, match="no number: many"):
        run.answer(Echo("many"), count("cats"), [PICTURE])


def test_a_backend_is_one_class() -> None:
    backend: Backend = Echo('[{"bbox_2d": [0, 0, 500, 1000], "label": "wall"}]')
    found = run.answer(backend, ground("wall"), [PICTURE, PICTURE])
    assert [(b.x1, b.y1, b.x2, b.y2) for r in found for b in r.boxes] == [(0, 0, 48, 64)] * 2
