"""Scores of pictures against texts, with scripted probabilities and the bundled model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from asking import picture
from qwen_vl_suite.qwenvl import score
from qwen_vl_suite.qwenvl.backends.local import open_checkpoint
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption, NumericalError
from qwen_vl_suite.qwenvl.media import images
from qwen_vl_suite.qwenvl.model_cache import ModelCache
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import LocalSpec, Response

ROOT = Path(__file__).resolve().parents[2]


class Seen(Observer):
    def __init__(self) -> None:
        self.done_indices: list[int] = []

    def done(self, index: int, response: Response) -> None:
        self.done_indices.append(index)


def test_a_score_is_the_probability_of_yes_in_either_spelling() -> None:
    backend = ScriptedBackend(scores=[[1, 2, 1, 0], [0, 0, 1, 3]], thinking="on")
    pairs = [score.Pair(picture(64, 96), " a cat\n"), score.Pair(picture(64, 96), "a dog")]
    assert score.score_all(backend, pairs) == pytest.approx([0.75, 0])
    request = backend.requests[0]
    assert request.prompt == 'Does this image show "a cat"? Answer yes or no.'
    assert request.thinking is False
    assert torch.equal(request.images[0], picture(64, 96))


def test_an_own_question_holds_the_text() -> None:
    backend = ScriptedBackend(scores=[[1, 0, 1, 0]])
    shown = picture(64, 96)
    score.score_all(backend, [score.Pair(shown, "hands", "Are the [text] well drawn?")])
    assert backend.requests[-1].prompt == "Are the hands well drawn?"
    with pytest.raises(BadOption, match=r"write \[text\]"):
        score.score_all(backend, [score.Pair(shown, "hands", "Is it well drawn?")])
    with pytest.raises(BadOption, match="text is empty"):
        score.score_all(backend, [score.Pair(shown, " \n")])


def test_a_pair_that_fails_costs_only_its_own_score() -> None:
    broken, failed = BadImage("No pixels."), NumericalError("NaN")
    backend, seen = ScriptedBackend(scores=[[1, 0, 0, 0], failed]), Seen()
    shown = [picture(64, 96), broken, picture(96, 64)]
    found = score.score_all(backend, [score.Pair(one, "x") for one in shown], seen)
    assert found == [1, broken, failed]
    assert sorted(seen.done_indices) == [0, 1, 2]
    assert score.score_all(backend, [score.Pair(broken, "x")]) == [broken]


def test_the_best_are_the_highest_and_the_first_of_equals() -> None:
    scores = [0.5, BadImage("x"), 0.9, 0.5, 0.1]
    assert score.best(scores) == [2]
    assert score.best(scores, 3) == [2, 0, 3]
    assert score.best(scores, 9) == [2, 0, 3, 4]
    assert score.best([BadImage("x")]) == []


def test_the_bundled_model_prefers_what_is_there() -> None:
    spec = LocalSpec(str(library.BUNDLED), precision="fp32", device="cpu")
    wrong = {"a green circle": "a green star", "a purple star": "a red star"}
    shown = picture_of("sign")
    with ModelCache(lambda spec: open_checkpoint(spec)).lease(spec) as backend:
        for right, other in wrong.items():
            pairs = [score.Pair(shown, text) for text in (right, other)]
            fits, does_not = score.score_all(backend, pairs)
            assert not isinstance(fits, Exception) and not isinstance(does_not, Exception)
            assert fits > 0.5 > does_not


def picture_of(name: str) -> torch.Tensor:
    found: torch.Tensor = images.read(ROOT / "example_workflows" / "pictures" / f"{name}.png")
    return found
