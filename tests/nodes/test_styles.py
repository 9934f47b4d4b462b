"""Users' styles in the Describe node, and the words that the page puts into its prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from qwen_vl_suite.nodes import host, styles
from qwen_vl_suite.qwenvl.errors import BadOption


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(host, "user_folder", lambda kind: tmp_path / kind)
    (tmp_path / "styles").mkdir()
    return tmp_path / "styles"


def test_a_style_is_listed_as_soon_as_its_file_is_there(
    nodes: Any, run_node: Any, scripted: Any, pictures: torch.Tensor, own_folder: Path
) -> None:
    node = nodes["QVL_Describe"]
    (own_folder / "mine.yaml").write_text("noir: Describe it as film noir.\n")
    options = next(item for item in node.define_schema().inputs if item.id == "style").options
    assert options[0] == "short" and options[-1] == "noir"
    model, backend = scripted("A man.")
    run_node("QVL_Describe", model=model, images=pictures[:1], style="noir")
    assert backend.requests[0].prompt == "Describe it as film noir."
    before = node.fingerprint_inputs(style=["noir"], prompt=[""])
    (own_folder / "mine.yaml").write_text("noir: Describe it as a crime.\n")
    assert before != node.fingerprint_inputs(style=["noir"], prompt=[""])


def test_a_saved_workflow_with_an_unknown_style_is_told_what_to_do(
    nodes: Any, run_node: Any, scripted: Any, pictures: torch.Tensor, own_folder: Path
) -> None:
    check = nodes["QVL_Describe"].validate_inputs
    refused = check(style=["noir"], prompt=[""])
    assert "no style 'noir'" in refused and str(own_folder) in refused
    assert check(style=["noir"], prompt=["What is it?"]) is True  # which takes its place
    # What comes by links is known only when the node runs.
    assert (
        check(style=(None,), prompt=[""]) is True and check(style=["noir"], prompt=(None,)) is True
    )
    assert nodes["QVL_Describe"].fingerprint_inputs(style=(None,), prompt=[""])
    assert check(style=["noir"]) is True and check(style=["svg"], prompt=[""]) is True
    model, _ = scripted("A man.")
    with pytest.raises(BadOption, match="no style 'noir'"):
        run_node("QVL_Describe", model=model, images=pictures[:1], style="noir")


def test_the_page_is_told_the_words_of_a_style(own_folder: Path) -> None:
    (own_folder / "mine.yaml").write_text("noir: Describe it as film noir.\n")
    assert styles.words({"name": "noir"}) == {"words": "Describe it as film noir."}
    assert "SVG" in styles.words({"name": "svg"})["words"]
    with pytest.raises(BadOption, match="no style 'gone'"):
        styles.words({"name": "gone"})


def test_a_style_for_videos_that_has_changed_is_asked_for_anew(
    nodes: Any, own_folder: Path
) -> None:
    def fingerprint() -> str:
        task = {"task": ["describe"], "style": ["noir"]}
        return str(nodes["QVL_Video"].fingerprint_inputs(task=task, file=[""], seed=[0]))

    (own_folder / "mine.yaml").write_text("noir: Describe it as film noir.\n")
    before = fingerprint()
    assert before == fingerprint()
    (own_folder / "mine.yaml").write_text("noir: Describe it as a crime.\n")
    assert before != fingerprint()
