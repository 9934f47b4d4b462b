"""Layout with a scripted model."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl.errors import OutOfMemory, UnreadableReply

Run = Callable[..., tuple[Any, ...]]
THING = {"type": "obj", "bbox_2d": [0, 0, 500, 500], "label": "cat", "desc": "A grey cat."}
WORDS = {"type": "text", "bbox_2d": [500, 500, 1000, 1000], "text": "HI", "desc": "Letters."}


def reply(caption: str, *elements: dict[str, Any]) -> str:
    style = {"medium": "painting", "look": "oil", "aesthetics": "soft", "lighting": "dim"}
    whole = {"caption": caption, "style": style, "background": "A wall.", "elements": elements}
    return json.dumps(whole)


def test_each_picture_gets_json_caption_boxes_and_elements(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted(reply("One.", THING, WORDS), reply("Two."), reply("Three.", WORDS))
    pictures[0, :50, :100] = torch.tensor([0.5, 0.5, 0.5])
    texts, captions, (boxes,), (drawn,), elements, complete = run_node(
        "QVL_Layout", model=model, images=pictures
    )
    wholes = [json.loads(text)["compositional_deconstruction"] for text in texts]
    assert captions == ["One.", "Two.", "Three."] and complete == [True] * 3
    assert [whole["elements"] for whole in wholes] == elements
    assert [len(frame) for frame in boxes] == [2, 0, 1] and drawn.shape == pictures.shape
    cat = boxes[0][0]
    assert {name: cat[name] for name in ("x", "y", "width", "height", "label")} == {
        **{"x": 0, "y": 0, "width": 100, "height": 50, "label": "cat"}
    }
    assert cat["metadata"] == {
        **{"type": "obj", "text": "", "desc": "A grey cat.", "palette": ["#808080"]}
    }
    assert (boxes[0][1]["metadata"]["type"], boxes[0][1]["metadata"]["text"]) == ("text", "HI")
    assert elements[0][0] == {
        **{"type": "obj", "bbox": [0, 0, 500, 500], "desc": "A grey cat."},
        "color_palette": ["#808080"],
    }
    assert backend.batches == [3]


def test_each_widget_changes_what_is_asked_or_given(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    model, backend = scripted(reply("One.", THING))

    def run(**widgets: Any) -> Any:
        return run_node("QVL_Layout", model=model, images=pictures[:1], **widgets)

    assert "high_level_description" in json.loads(run()[0][0])
    plain = json.loads(run(form="plain")[0][0])
    assert (plain["caption"], plain["elements"][0]["bbox_2d"]) == ("One.", [0, 0, 100, 50])
    run(max_elements=3, instructions="In German.", max_new_tokens=500)
    asked = backend.requests[-1]
    assert "at most 3" in asked.prompt and asked.prompt.endswith("In German.")
    elements = json.loads(asked.constraint.source)["properties"]["elements"]
    assert elements["maxItems"] == 3 and asked.sampling.max_new_tokens == 500


def test_to_keep_going_leaves_something_for_every_picture(
    run_node: Run, scripted: Any, pictures: torch.Tensor
) -> None:
    replies = (reply("One.", THING), "A cat.", OutOfMemory("too large"))
    model, _ = scripted(*replies)
    texts, captions, (boxes,), _, elements, complete = run_node(
        "QVL_Layout", model=model, images=pictures, when_unreadable="keep going"
    )
    assert json.loads(texts[1]) == {"unreadable": "A cat."} and json.loads(texts[2])["error"]
    assert captions == ["One.", "", ""] and complete == [True, False, False]
    assert [len(frame) for frame in boxes] == [len(found) for found in elements] == [1, 0, 0]
    model, _ = scripted("A cat.")
    with pytest.raises(UnreadableReply, match="not JSON"):
        run_node("QVL_Layout", model=model, images=pictures[:1])
