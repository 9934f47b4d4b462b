"""The Prompt node with a scripted model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from qwen_vl_suite.nodes import host
from qwen_vl_suite.nodes.model import ModelHandle
from qwen_vl_suite.qwenvl.checkpoints.library import BUNDLED
from qwen_vl_suite.qwenvl.errors import BadOption, UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.types import LocalSpec

Run = Callable[..., tuple[Any, ...]]


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where users' files lie, by kind."""
    monkeypatch.setattr(host, "user_folder", lambda kind: tmp_path / kind)
    return tmp_path


def test_ideas_alone_give_a_prompt_each_in_one_run(run_node: Run, scripted: Any) -> None:
    model, backend = scripted("A cat.", "A dog.")
    prompts, negatives, _, _, data, complete = run_node(
        "QVL_Prompt", model=model, lists={"idea": ["cat", "{dog}"], "target": ["wan", "flux2"]}
    )
    assert prompts == ["A cat.", "A dog."] and complete == [True, True]
    assert "watermark" in negatives[0] and negatives[1] == ""
    assert [json.loads(text)["idea"] for text in data] == ["cat", "dog"]
    assert backend.batches == [2] and not backend.requests[0].images


def test_pictures_one_by_one_or_together(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("Red.")
    prompts, *_ = run_node("QVL_Prompt", model=model, idea="red", images=pictures)
    assert prompts == ["Red."] * 3 and "Qwen-Image-Edit" in backend.requests[0].system
    prompts, *_ = run_node("QVL_Prompt", model=model, idea="red", images=pictures, together=True)
    assert prompts == ["Red."] and len(backend.requests[-1].images) == 3


def test_together_are_only_pictures_of_the_same_order(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("Red.")
    given = {"model": model, "idea": "red", "together": True}
    lists: dict[str, Any] = {"images": [pictures[:1], pictures[1:2], pictures[2:3]]}
    lists["trigger_words"] = ["aaa", "bbb", "bbb"]
    prompts, *_ = run_node("QVL_Prompt", **given, lists=lists)
    assert prompts == ["aaa, Red.", "bbb, Red."]
    assert [len(request.images) for request in backend.requests] == [1, 2]
    lists |= {"trigger_words": [""], "when_unreadable": ["stop", "keep going"]}
    assert len(run_node("QVL_Prompt", **given, lists=lists)[0]) == 2


def test_an_idea_that_is_none_costs_only_its_own_where_the_node_is_to_keep_going(
    run_node: Run, scripted: Any
) -> None:
    model, backend = scripted("A cat.", "A dog.")
    given = {"model": model, "lists": {"idea": ["cat", " ", "dog"]}}
    with pytest.raises(BadOption, match="no idea"):
        run_node("QVL_Prompt", **given)
    assert not backend.requests
    prompts, *_, data, complete = run_node("QVL_Prompt", **given, when_unreadable="keep going")
    assert (prompts, complete) == (["A cat.", "", "A dog."], [True, False, True])
    assert "no idea" in json.loads(data[1])["error"] and backend.batches == [2]
    with pytest.raises(BadOption, match="no idea"):  # nothing is left to go on with
        run_node("QVL_Prompt", model=model, idea="", when_unreadable="keep going")


def test_an_idea_alone_is_sampled_as_text_is(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted("A cat.", family="qwen3_vl")
    for shown in ({}, {"images": pictures[:1]}):
        run_node("QVL_Prompt", model=model, idea="cat", target="flux2", **shown)
    text, seen = (request.sampling for request in backend.requests)
    family = FAMILIES["qwen3_vl"]
    assert family.text_sampling and family.text_sampling != family.sampling
    assert text.presence_penalty == family.text_sampling.presence_penalty
    assert seen.presence_penalty == family.sampling.presence_penalty
    assert text.presence_penalty != seen.presence_penalty


def test_each_widget_changes_what_is_asked(run_node: Run, scripted: Any) -> None:
    model, backend = scripted("A cat.")

    def asked(**widgets: Any) -> Any:
        given = {"idea": "cat", "target": "flux2", "ask_again": 0, **widgets}
        outputs = run_node("QVL_Prompt", model=model, **given)
        return outputs[0][0], backend.requests[-1]

    assert '"hat"' in asked(must_appear="hat")[1].prompt
    assert '"dog"' in asked(must_not_appear="dog")[1].prompt
    assert asked(trigger_words="ohwx")[0] == "ohwx, A cat."
    assert asked(seed=7)[1].sampling.seed == 7
    assert asked(max_new_tokens=9)[1].sampling.max_new_tokens == 9
    assert asked(thinking="on")[1].thinking is True
    before = len(backend.requests)
    asked(must_appear="hat", ask_again=3)
    assert len(backend.requests) == before + 4
    assert {asked(idea="{a|b|c|d}", seed=seed)[1].prompt[0] for seed in range(40)} == set("abcd")


def test_a_ratio_gives_a_size(run_node: Run, scripted: Any) -> None:
    reply = {"rewritten_prompt": "A cat.", "wh_ratio": "2:1", "ratio_follow": ""}
    model, _ = scripted(json.dumps(reply), elsewhere=True)
    asked = {"model": model, "idea": "cat", "target": "qwen_image_2_1"}
    _, _, width, height, *_ = run_node("QVL_Prompt", **asked)
    assert (width, height) == ([1472], [736])
    _, _, width, height, *_ = run_node("QVL_Prompt", **asked, megapixels=2.0)
    assert (width, height) == ([1984], [992])


def test_an_unreadable_reply_stops_or_is_kept(run_node: Run, scripted: Any) -> None:
    model, _ = scripted("Just words.")
    asked = {"model": model, "idea": "cat", "target": "qwen_image_2_1"}
    with pytest.raises(UnreadableReply, match="rewritten_prompt"):
        run_node("QVL_Prompt", **asked)
    prompts, *_, data, complete = run_node("QVL_Prompt", **asked, when_unreadable="keep going")
    assert prompts == ["Just words."] and complete == [False]
    assert json.loads(data[0]) == {"unreadable": "Just words."}


def test_own_targets_are_listed_at_once_and_broken_ones_explained(
    nodes: Any, run_node: Run, scripted: Any, own_folder: Path
) -> None:
    node, folder = nodes["QVL_Prompt"], own_folder / "targets"
    folder.mkdir()
    (folder / "mine.yaml").write_text("title: T\nsource: me\nsystem: Be brief.\n")
    (folder / "broken.yaml").write_text("title: T\n")

    options = next(item for item in node.define_schema().inputs if item.id == "target").options
    assert "mine" in options and "broken" not in options and "flux2" in options
    model, backend = scripted("A cat.")
    run_node("QVL_Prompt", model=model, idea="cat", target="mine")
    assert backend.requests[0].system == "Be brief."

    before = node.fingerprint_inputs(target=["mine"], idea=["cat"])
    assert before == node.fingerprint_inputs(target=["mine"], idea=["cat"])
    (folder / "mine.yaml").write_text("title: T\nsource: me\nsystem: Be long.\n")
    assert before != node.fingerprint_inputs(target=["mine"], idea=["cat"])

    assert node.validate_inputs(target=["mine"]) is True and node.validate_inputs() is True
    assert node.validate_inputs(target=(None,)) is True
    refused = node.validate_inputs(target=["broken"])
    assert "broken.yaml: source is missing" in refused and str(folder) in refused
    assert "no target 'gone'" in node.validate_inputs(target=["gone"])
    with pytest.raises(BadOption, match="no target 'gone'"):
        run_node("QVL_Prompt", model=model, idea="cat", target="gone")


def test_lengths_are_counted_by_the_tokenizers_of_this_comfyui(
    run_node: Run, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = scripted("1girl, cat")
    asked = {"model": model, "idea": "cat", "target": "sdxl_tags"}
    counted = json.loads(run_node("QVL_Prompt", **asked)[4][0])
    assert counted["tokens_are_estimated"] is not bool(host.text_tokenizers())
    monkeypatch.setattr(host, "text_tokenizers", lambda: {})
    assert json.loads(run_node("QVL_Prompt", **asked)[4][0])["tokens_are_estimated"]


def test_a_real_model_answers_an_idea_alone_and_the_bundled_one_is_said_to_be_unable(
    run_node: Run, caplog: pytest.LogCaptureFixture
) -> None:
    model = ModelHandle(LocalSpec(str(BUNDLED), precision="fp32", device="cpu"))
    asked = {"model": model, "idea": "a cat", "target": "flux2", "ask_again": 0}
    prompts, *_ = run_node("QVL_Prompt", **asked, max_new_tokens=5)
    assert prompts[0] and "cannot write prompts" in caplog.text
