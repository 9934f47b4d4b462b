"""Fast-path check, on a pretended card: paths that are made to fail are left off."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import ask, picture
from fake_cuda_graphs import FakeCudaGraphs
from interrupting import Interrupt, InterruptAt
from qwen_vl_suite.qwenvl.backends import local_fast_paths
from qwen_vl_suite.qwenvl.backends.local import LocalBackend, load
from qwen_vl_suite.qwenvl.inference import batch, fast_path_check
from qwen_vl_suite.qwenvl.inference.batch import Batch, StepPolicy
from qwen_vl_suite.qwenvl.inference.fast_path_check import disagreement
from qwen_vl_suite.qwenvl.inference.model_runner import ModelRunner
from qwen_vl_suite.qwenvl.models import patches
from qwen_vl_suite.qwenvl.models.patches import norms
from qwen_vl_suite.qwenvl.models.patches.patch_embedding import PatchEmbedding
from qwen_vl_suite.qwenvl.types import LocalSpec, Response, Token

QUESTIONS = [ask("what is it?", picture(50, 80), tokens=20), ask("words", tokens=30)]


@pytest.fixture
def card(
    checkpoint: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., LocalBackend]:
    """``card("qwen3_vl")`` is a tiny model with all fast paths of CUDA, on the CPU."""
    graphs: list[FakeCudaGraphs] = []
    kinds: list[type[FakeCudaGraphs]] = []

    def step_policy(runner: ModelRunner) -> StepPolicy:
        graphs.append(kinds[-1](runner.model))
        return StepPolicy(lag=1, static=True, max_free=0.5, graphs=graphs[-1])

    monkeypatch.setattr(batch, "step_policy", step_policy)
    monkeypatch.setattr(fast_path_check, "is_needed", lambda _: True)
    monkeypatch.setattr(local_fast_paths, "_FOUND", {})
    applied = tuple(
        patches.Patch(patch.name, lambda _: True, patch.apply) for patch in patches.PATCHES
    )
    monkeypatch.setattr(patches, "PATCHES", applied)

    def made(
        model_type: str = "qwen3_vl", kind: type[FakeCudaGraphs] = FakeCudaGraphs, **options: Any
    ) -> LocalBackend:
        kinds.append(kind)
        folder = checkpoint(model_type, **options)
        subject = load(LocalSpec(str(folder), device="cpu"))
        subject.graphs = graphs  # type: ignore[attr-defined]
        return subject

    return made


@pytest.fixture
def plain(checkpoint: Callable[..., Path]) -> Callable[..., list[str]]:
    """``plain("qwen3_vl")``: the texts of the plain path."""

    def answered(model_type: str, **options: Any) -> list[str]:
        folder = checkpoint(model_type, **options)
        return texts(load(LocalSpec(str(folder), device="cpu", optimize="off")))

    return answered


def texts(subject: LocalBackend) -> list[str]:
    return [answer.text for answer in subject.generate(QUESTIONS)]


@pytest.mark.parametrize(
    ("model_type", "mtp", "paths"),
    [
        ("qwen3_vl", False, {"scheduler", "fused RMS norms", "CUDA graphs", "prompt lookup"}),
        (
            "qwen3_5",
            True,
            {"scheduler", "fused RMS norms", "CUDA graphs", "prompt lookup", "MTP drafts"},
        ),
    ],
)
def test_paths_that_agree_are_used(
    card: Any, model_type: str, mtp: bool, paths: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    subject = card(model_type, mtp=mtp)
    assert subject.fast_path_problems is None
    with caplog.at_level(logging.WARNING):
        texts(subject)
    assert subject.fast_path_problems == dict.fromkeys(paths, "")
    assert not subject.plain_reason and norms.is_applied(subject.model)
    assert subject.graphs[-1].enabled and sum(made.replays for made in subject.graphs)
    assert "Left off" not in caplog.text


def test_a_check_is_made_once_in_a_process(card: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = card()
    texts(subject)
    checks: list[Any] = []
    monkeypatch.setattr(local_fast_paths, "FastPathCheck", lambda *given: checks.append(given))
    texts(subject)
    subject.release()
    texts(subject)
    assert texts(card()) and not checks


def test_norms_that_do_not_agree_are_left_off(
    card: Any, plain: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(norms, "rms_norm", wrong_norm)
    monkeypatch.setattr(norms, "_formula", lambda _: norms._plain)
    subject = card()
    assert norms.is_applied(subject.model)
    with caplog.at_level(logging.WARNING):
        found = texts(subject)
    assert found == plain("qwen3_vl")
    problems = subject.fast_path_problems
    assert problems["fused RMS norms"].startswith("token") and not norms.is_applied(subject.model)
    assert [name for name, problem in problems.items() if problem] == ["fused RMS norms"]
    (record,) = [one for one in caplog.records if "Left off" in one.message]
    assert "fused RMS norms (token" in record.message
    subject.release()
    assert texts(subject) == found and not norms.is_applied(subject.model)


def wrong_norm(x: torch.Tensor, shape: Any, weight: torch.Tensor, eps: float) -> torch.Tensor:
    return torch.nn.functional.rms_norm(x, shape, weight, eps) * torch.linspace(0, 2, x.shape[-1])


class WrongReplays(FakeCudaGraphs):
    """Replays write into other memory, as after a tensor has moved."""

    def _replay(self, graph: Any) -> None:
        super()._replay(graph)
        raise RuntimeError("CUDA error: misaligned address")


def test_graphs_that_fail_are_left_off(card: Any, plain: Any) -> None:
    subject = card(kind=WrongReplays)
    assert texts(subject) == plain("qwen3_vl")
    problems = subject.fast_path_problems
    assert "misaligned address" in problems["CUDA graphs"]
    assert [name for name, problem in problems.items() if problem] == ["CUDA graphs"]
    assert not subject.graphs[-1].enabled and not subject.plain_reason


def test_drafts_whose_verification_does_not_agree_are_left_off(
    card: Any, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = Batch.verify

    def accepting(self: Batch, drafts: Any) -> Any:
        found = verify(self, drafts)
        return [[*tokens[:-1], tokens[-1]._replace(id=7)] for tokens in found]

    monkeypatch.setattr(Batch, "verify", accepting)
    subject = card("qwen3_5", mtp=True)
    assert texts(subject) == plain("qwen3_5", mtp=True)
    problems = subject.fast_path_problems
    assert {name for name, problem in problems.items() if problem} == {
        "prompt lookup",
        "MTP drafts",
    }
    assert not subject.adaptive_lookup.pays and not subject.adaptive_mtp.pays


def test_a_scheduler_that_does_not_agree_is_not_used(
    card: Any, plain: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    step, expected = ModelRunner.step, plain("qwen3_vl")

    def off_by_one(self: ModelRunner, cache: Any, tokens: Any, positions: Any) -> Any:
        return step(self, cache, tokens, positions).roll(1, -1)

    monkeypatch.setattr(ModelRunner, "step", off_by_one)
    subject = card()
    with caplog.at_level(logging.WARNING):
        assert texts(subject) == expected
    assert "the scheduler did not agree" in subject.plain_reason and subject.has_failed
    kinds = {type(part) for part in subject.model.modules()}
    assert PatchEmbedding not in kinds and not norms.is_applied(subject.model)
    assert "scheduler (token" in caplog.text


def test_a_check_can_be_interrupted(card: Any) -> None:
    subject = card()
    with pytest.raises(Interrupt):
        subject.generate(QUESTIONS, InterruptAt(12))
    assert subject.fast_path_problems is None
    assert texts(subject) and not any(subject.fast_path_problems.values())


# Rounding


def answered(*tokens: tuple[int, float]) -> Response:
    return Response("", tokens=tuple(Token(number, 0, 0, logprob) for number, logprob in tokens))


PLAIN = answered((1, -0.2), (2, -0.7), (3, -0.1))
CASES = {
    "equal": (PLAIN, 0.5, ""),
    "equal in fp32": (PLAIN, 0.0, ""),
    "rounded": (answered((1, -0.3), (2, -0.5), (3, -0.1)), 0.5, ""),
    "another token in fp32": (answered((1, -0.2), (9, -0.7), (3, -0.1)), 0.0, "token 2 was 9"),
    "a close second": (answered((1, -0.2), (9, -0.7), (4, -5.0)), 0.5, ""),
    "far less likely": (answered((1, -0.2), (8, -0.7), (3, -0.1)), 0.5, "token 2 was 8"),
    "moved too far": (answered((1, -2.2), (2, -0.7), (3, -0.1)), 0.5, "token 1 was found 2 more"),
    "a close second moved far": (answered((1, -0.2), (9, -3.0), (3, -0.1)), 0.5, "token 2 was 9"),
}


@pytest.mark.parametrize("case", CASES)
def test_in_half_precision_a_close_second_may_come_first(case: str) -> None:
    fast, tolerance, problem = CASES[case]

    def plain_logprob(before: Any, token: int) -> float:
        assert list(before) == [1]
        return {9: -0.9, 8: -6.0}[token]

    found = disagreement(PLAIN, fast, tolerance, plain_logprob)
    assert found.startswith(problem) and bool(found) == bool(problem)
