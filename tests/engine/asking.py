"""Requests for the tests of inference, and what watches how they are answered."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl.inference.batch import Batch
from qwen_vl_suite.qwenvl.inference.speculative.adaptive import AdaptiveSpeculation
from qwen_vl_suite.qwenvl.types import Request, Sampling


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width + seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def ask(words: str, *pictures: torch.Tensor, tokens: int = 16, **sampling: Any) -> Request:
    return Request(pictures, words, sampling=Sampling(tokens, **sampling))


class Always(AdaptiveSpeculation):
    @property
    def pays(self) -> bool:
        return True


class Never(AdaptiveSpeculation):
    @property
    def pays(self) -> bool:
        return False


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Rounds that were launched, and rounds that checked guesses with the tokens they gave."""
    counts = {"launches": 0, "checks": 0, "gained": 0}
    launch, check = Batch.launch, Batch.check

    def launching(self: Batch) -> None:
        counts["launches"] += 1
        launch(self)

    def checking(self: Batch, guesses: Any) -> Any:
        gained = check(self, guesses)
        counts["checks"] += 1
        counts["gained"] += sum(map(len, gained))
        return gained

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "launch", launching)
        patch.setattr(Batch, "check", checking)
        yield counts


def row_ids(subject: Any, question: Request) -> list[int]:
    found: list[int] = []
    made = subject.response

    def response(row: Any, prompt: Any) -> Any:
        found.extend(row.ids)
        return made(row, prompt)

    subject.response = response
    try:
        subject.generate([question])
    finally:
        del subject.response
    return found
