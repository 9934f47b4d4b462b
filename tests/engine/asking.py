"""What tests of inference share: whom they ask, requests, counters of the steps that answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl.inference.active_request import ActiveRequest
from qwen_vl_suite.qwenvl.inference.batch import Batch
from qwen_vl_suite.qwenvl.inference.speculative.adaptive import AdaptiveSpeculation
from qwen_vl_suite.qwenvl.types import Request, Response, Sampling

KINDS = ("qwen2_5_vl", "qwen3_vl_moe", "qwen3_5")
"""Of each kind of decoder one: dense with M-RoPE in sections; interleaved M-RoPE, deepstack and
experts; linear attention. For what holds of a kind whatever the family: a test on all families
costs three times as much."""


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width + seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


def ask(words: str, *pictures: torch.Tensor, tokens: int = 16, **sampling: Any) -> Request:
    return Request.ask(pictures, words, sampling=Sampling(tokens, **sampling))


REQUESTS = [
    ask("what is it?", picture(50, 80)),
    ask("one word", picture(64, 64), tokens=1),
    ask("only words"),
    ask("both", picture(100, 100), picture(200, 64)),
    ask("short", picture(33, 90), tokens=4),
    ask("warm", picture(50, 80), temperature=1.0, top_k=30, seed=5),
    ask("long", picture(64, 64), tokens=40),
    ask("again", picture(90, 60), repetition_penalty=1.3),
    ask("hot", picture(90, 60), temperature=1.5, top_p=0.9, presence_penalty=1.0, seed=8),
]
"""Of all kinds: pictures and none, short and long answers, greedy and warm."""


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
    """Decode steps, verifications, and the tokens that verifications gave."""
    counts = {"launches": 0, "verifications": 0, "tokens": 0}
    launch, verify = Batch.launch, Batch.verify

    def counted_launch(self: Batch) -> None:
        counts["launches"] += 1
        launch(self)

    def counted_verify(self: Batch, drafts: Any) -> Any:
        accepted = verify(self, drafts)
        counts["verifications"] += 1
        counts["tokens"] += sum(map(len, accepted))
        return accepted

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batch, "launch", counted_launch)
        patch.setattr(Batch, "verify", counted_verify)
        yield counts


@contextmanager
def recorded_ids() -> Iterator[dict[int, list[int]]]:
    """All generated tokens, thoughts included, by the index of the request."""
    found: dict[int, list[int]] = {}
    response = ActiveRequest.response

    def recorded(self: ActiveRequest) -> Response:
        found[self.row.index] = list(self.row.output_ids)
        return response(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ActiveRequest, "response", recorded)
        yield found


def generated_ids(subject: Any, question: Request) -> list[int]:
    with recorded_ids() as found:
        subject.generate([question])
    return found[0]
