"""Score with a scripted model: one number a picture, in order, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from qwen_vl_suite.nodes import host
from qwen_vl_suite.nodes.host import page
from qwen_vl_suite.qwenvl.errors import BadOption, NumericalError

Run = Callable[..., tuple[Any, ...]]


def rated(*values: float) -> list[list[float]]:
    return [[value, 0, 1 - value, 0] for value in values]


def test_one_number_a_picture_and_the_best_picture(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("", scores=rated(0.25, 0.75, 0.5))
    scores, index, best = run_node("QVL_Score", model=model, images=pictures, text="a cat")
    assert scores == pytest.approx([0.25, 0.75, 0.5])
    assert index == [1]
    assert len(best) == 1 and torch.equal(best[0], pictures[1:2])
    assert len(backend.requests) == 3
    _, index, best = run_node("QVL_Score", model=model, images=pictures, text="a cat", top=2)
    assert index == [1, 2]
    assert [torch.equal(one[0], pictures[at]) for one, at in zip(best, index, strict=True)]


def test_lists_of_pictures_have_one_best_and_texts_one_each(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, _ = scripted("", scores=rated(0.1, 0.2, 0.9, 0.3))
    several = [pictures[:2], torch.rand(1, 40, 60, 3), torch.rand(1, 60, 40, 3)]
    scores, index, best = run_node(
        "QVL_Score", lists={"model": [model], "images": several}, text="a cat"
    )
    assert len(scores) == 4 and index == [2]
    assert torch.equal(best[0], several[1])
    model, _ = scripted("", scores=rated(0.1, 0.2, 0.9, 0.3))
    _, index, _ = run_node(
        "QVL_Score",
        lists={"model": [model], "images": [pictures[:2]], "text": ["a cat", "a dog"]},
    )
    assert index == [1, 0]


def test_scores_of_different_models_do_not_compete(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    low, _ = scripted("", scores=rated(0.1, 0.2))
    high, _ = scripted("", scores=rated(0.9, 0.8))
    _, index, best = run_node(
        "QVL_Score", lists={"model": [low, high], "images": [pictures[:2]]}, text="a cat"
    )
    assert index == [1, 0]
    assert torch.equal(best[0], pictures[1:2]) and torch.equal(best[1], pictures[:1])


def test_every_widget_changes_what_is_asked(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("", scores=rated(0.5))

    def asked(**widgets: Any) -> Any:
        run_node("QVL_Score", model=model, images=pictures[:1], **widgets)
        return backend.requests[-1]

    assert "a cat" in asked(text="a cat").prompt
    assert asked(text="hands", instruction="Good [text]?").prompt == "Good hands?"
    hidden = torch.ones(1, 100, 200)
    assert (asked(text="a cat", mask=hidden).images[0] == 255).all()
    with pytest.raises(BadOption, match="text is empty"):
        asked(text="")


def test_a_picture_without_a_score_stops_the_node_or_is_nan(
    run_node: Run, scripted: Any, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Any] = []
    monkeypatch.setattr(page, "send_live", lambda **fields: shown.append(fields.get("results")))
    scores = [*rated(0.25), NumericalError("It computed NaN."), *rated(0.5)]
    model, _ = scripted("", scores=scores)
    with pytest.raises(
        NumericalError, match=r"Picture 2 of 3 got no score: It computed NaN\. To go on"
    ):
        run_node("QVL_Score", model=model, images=pictures, text="a cat")
    texts = [entry["text"] for entry in shown[-1]]
    assert texts == ["0.2500", "", "0.5000 ★"]
    found, index, _ = run_node(
        "QVL_Score", model=model, images=pictures, text="a cat", when_unscored="keep going"
    )
    assert found[0] == 0.25 and math.isnan(found[1]) and found[2] == 0.5
    assert index == [2]


def test_without_any_score_nodes_that_take_the_best_stop_and_are_told_why(
    run_node: Run, scripted: Any, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "execution_blocker", lambda message: message)
    model, _ = scripted("", scores=[NumericalError("It computed NaN.")] * 3)
    found, index, best = run_node(
        "QVL_Score", model=model, images=pictures, text="a cat", when_unscored="keep going"
    )
    assert len(found) == 3 and all(map(math.isnan, found))
    assert "No picture got a score" in index and index == best


def test_the_bundled_model_picks_the_picture_that_shows_it(run_node: Run) -> None:
    (model,) = run_node(
        "QVL_Loader",
        model="nano (bundled demo)",
        device="cpu",
        precision="fp32",
        quantization="none",
    )
    shown = [run_node("QVL_ExamplePicture", picture=name)[0] for name in ("both", "shapes", "sign")]
    scores, index, best = run_node(
        "QVL_Score", lists={"model": [model], "images": shown}, text="a green circle"
    )
    assert index == [2] and torch.equal(best[0], shown[2])
    assert scores[2] > 0.5 > max(scores[:2])
