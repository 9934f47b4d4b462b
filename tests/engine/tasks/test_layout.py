"""Layout: replies to elements in pixels with measured colours, in each form. No model needed."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption, UnreadableReply
from qwen_vl_suite.qwenvl.layouts import FORMS, Wanted, elements
from qwen_vl_suite.qwenvl.replies.form_check import mismatch
from qwen_vl_suite.qwenvl.types import Response, Result

# A red field on white, 560 wide and 280 high: the left half, from a quarter to three quarters.
PICTURE = torch.full((3, 280, 560), 255, dtype=torch.uint8)
PICTURE[1:, 70:210, :280] = 0

STYLE = {"medium": "photograph", "look": "35 mm", "aesthetics": "plain", "lighting": "flat"}
THING = {"type": "obj", "bbox_2d": [0, 250, 500, 750], "label": "field", "desc": "A red field."}
WORDS = {"type": "text", "bbox_2d": [600, 100, 900, 200], "text": "OPEN", "desc": "Thin letters."}
REPLY = {
    "caption": "A field.",
    "style": STYLE,
    "background": "White.",
    "elements": [THING, WORDS],
}


def answered(
    reply: Any, form: str = "plain", family: str = "qwen3_vl", **settings: Any
) -> tuple[Any, ScriptedBackend]:
    reply = reply if isinstance(reply, (str, Response)) else json.dumps(reply)
    backend, wanted = ScriptedBackend(reply, family=family), Wanted(form)
    (result,) = run.answer(backend, wanted.task, [PICTURE], method=wanted.method, **settings)
    return result, backend


def test_plain_holds_all_that_was_found_in_pixels() -> None:
    result, _ = answered(REPLY)
    assert json.loads(result.text) == result.data
    assert (result.data["width"], result.data["height"]) == (560, 280)
    assert result.data["caption"] == "A field." and result.data["style"] == STYLE
    assert result.data["palette"] == ["#FFFFFF", "#FF0000"]
    thing, words = result.data["elements"]
    assert thing == {**THING, "bbox_2d": [0, 70, 280, 210], "palette": ["#FF0000"]}
    assert words == {**WORDS, "bbox_2d": [336, 28, 504, 56], "palette": ["#FFFFFF"]}
    assert [box.label for box in result.boxes] == ["field", "OPEN"] and result.is_complete


def test_ideogram_captions_have_their_keys_in_the_order_of_the_model() -> None:
    result, _ = answered(REPLY, "ideogram")
    whole = json.loads(result.text)
    assert list(whole) == [
        "high_level_description",
        "style_description",
        "compositional_deconstruction",
    ]
    style, composition = whole["style_description"], whole["compositional_deconstruction"]
    assert list(style) == ["aesthetics", "lighting", "photo", "medium", "color_palette"]
    assert list(composition) == ["background", "elements"]
    assert [list(element) for element in composition["elements"]] == [
        ["type", "bbox", "desc", "color_palette"],
        ["type", "bbox", "text", "desc", "color_palette"],
    ]
    assert composition["elements"][0]["bbox"] == [250, 0, 750, 500]  # y1, x1, y2, x2
    assert elements(result.layout) == composition["elements"]
    painted = {**REPLY, "style": {**STYLE, "medium": "painting", "look": "oil"}}
    style = answered(painted, "ideogram")[0].data["style_description"]
    assert list(style) == ["aesthetics", "lighting", "medium", "art_style", "color_palette"]
    assert (style["medium"], style["art_style"]) == ("painting", "oil")


def test_places_are_in_the_space_of_the_models_family() -> None:
    # Qwen2.5-VL writes pixels of the picture as it was shown, here of its own size.
    pixels = {**REPLY, "elements": [{**THING, "bbox_2d": [0, 70, 280, 210]}]}
    for family, reply in (("qwen3_vl", REPLY), ("qwen2_5_vl", pixels)):
        result, backend = answered(reply, family=family)
        assert result.data["elements"][0]["bbox_2d"] == [0, 70, 280, 210], family
        asked = json.loads(backend.requests[0].constraint.source)
        thing = asked["properties"]["elements"]["items"]["anyOf"][0]
        top = thing["properties"]["bbox_2d"]["items"]["maximum"]
        assert top == (1000 if family == "qwen3_vl" else 65535)


def test_what_is_asked_for_is_in_the_prompt_and_in_its_form() -> None:
    wanted = Wanted("plain", 7, "Write it in German.")
    assert "at most 7" in wanted.task.prompt and wanted.task.prompt.endswith("in German.")
    assert wanted.task.constraint is not None
    assert mismatch(REPLY, wanted.task.constraint) == ""
    assert mismatch({**REPLY, "elements": [THING] * 8}, wanted.task.constraint)
    assert mismatch({**REPLY, "elements": [{**THING, "type": "text"}]}, wanted.task.constraint)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("length", "count"), [(0, 0), (1, 0), (60, 0), (150, 0), (280, 1), (320, 1)]
)
def test_what_is_whole_of_a_reply_that_was_cut_is_a_layout(
    form: str, length: int, count: int
) -> None:
    text = json.dumps(REPLY)
    cut = Response(text[:length], finish_reason="length")
    result: Result = answered(cut, form)[0]
    assert not result.is_complete and json.loads(result.text) == result.data
    kept = result.data["elements"] if form == "plain" else elements(result.layout)  # type: ignore[attr-defined]
    assert len(kept) == len(result.boxes) == count


@pytest.mark.parametrize(
    "broken",
    [
        {**THING, "bbox_2d": [1, 2, 3]},
        {**THING, "bbox_2d": "0, 0, 9, 9"},
        {**THING, "desc": 3},
        {"type": "obj"},
        "a field",
    ],
)
def test_of_a_reply_that_was_cut_the_elements_that_are_whole_are_kept(broken: Any) -> None:
    whole = json.dumps({"elements": [broken, THING], "caption": "A field."})
    cut = Response(whole[:-4], finish_reason="length")
    for form in FORMS:
        result, _ = answered(cut, form)
        assert len(result.boxes) == 1 and "1 of the elements" in result.notes[-1]


def test_a_picture_of_nothing_has_no_elements() -> None:
    result, _ = answered({**REPLY, "elements": []})
    assert (result.boxes, result.data["elements"], result.notes) == ((), [], ())


def test_an_element_without_a_place_is_left_out_and_said() -> None:
    flat = {**THING, "bbox_2d": [100, 250, 100, 750]}
    result, _ = answered({**REPLY, "elements": [flat, WORDS]})
    assert [element["type"] for element in result.data["elements"]] == ["text"]
    assert any("field [100, 250, 100, 750]" in note for note in result.notes)
    with pytest.raises(UnreadableReply, match="cannot be mapped"):
        answered({**REPLY, "elements": [flat]})


@pytest.mark.parametrize(
    "reply",
    [
        "A red field.",
        json.dumps({**REPLY, "elements": [{**THING, "type": "thing"}]}),
        Response('{"elements": [{"type": "obj"}], "caption": "a', finish_reason="length"),
        Response('{"elements": [{"bbox_2d": [1, 2]}], "caption": "a', finish_reason="length"),
        Response('{"style": ["photograph"], "caption": "a', finish_reason="length"),
        Response('{"elements": 3, "caption": "a', finish_reason="length"),
    ],
)
def test_what_is_no_layout_is_unreadable(reply: Any) -> None:
    with pytest.raises(UnreadableReply):
        answered(reply)
    kept, _ = answered(reply, keep_unreadable=True)
    assert kept.error and kept.text


def test_bad_options() -> None:
    with pytest.raises(BadOption, match="Choose one of ideogram, plain"):
        Wanted("xml")
    with pytest.raises(BadOption, match="1 to 100"):
        _ = Wanted("plain", 0).task
