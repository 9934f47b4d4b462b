"""Fine-tunes: told by name, asked in their makers' words, their boxes read in their own scale."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from qwen_vl_suite.qwenvl import run
from qwen_vl_suite.qwenvl.backends.local import open_checkpoint
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption, UnreadableReply
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.fine_tunes import FINE_TUNES, PRESETS, as_tuned, by_name, preset
from qwen_vl_suite.qwenvl.tasks.ground import ground
from qwen_vl_suite.qwenvl.tasks.ocr import OUTPUTS, ocr
from qwen_vl_suite.qwenvl.types import LocalSpec, ReplyContext

NAMES = {
    "olmOCR-2-7B-1025": "olmOCR 2",
    "allenai/olmOCR-2-7B-1025-FP8": "olmOCR 2",
    "olmOCR-7B-0825": "olmOCR 0725/0825",
    "olmOCR-7B-0225-preview": None,
    "reducto/RolmOCR": "RolmOCR",
    "Nanonets-OCR2-3B": "Nanonets-OCR",
    "nanonets_Nanonets-OCR-s": "Nanonets-OCR",
    "MinerU2.5-2509-1.2B": "MinerU2.5",
    "Qwen-VL/chandra-ocr-2": "Chandra",
    "chandra": "Chandra",
    "R1-Onevision-7B-RL": "R1-Onevision",
    "Chandrasekhar-VL": None,
    "Qwen3-VL-4B-Instruct": None,
    "": None,
}


@pytest.mark.parametrize("name", NAMES)
def test_a_row_is_found_by_the_checkpoints_name(name: str) -> None:
    found = by_name(name)
    assert (found.title if found else None) == NAMES[name]


def test_every_row_is_found_by_some_name_and_says_something() -> None:
    assert {*FINE_TUNES} == {*NAMES.values()} - {None}
    for tune in FINE_TUNES.values():
        assert tune.outputs <= OUTPUTS.keys()
        assert tune.outputs or tune.longest_side or tune.box_scale


def test_a_preset_is_chosen_by_name_by_hand_or_not_at_all() -> None:
    assert preset("auto", "RolmOCR") is preset("RolmOCR", "my-ocr") is FINE_TUNES["RolmOCR"]
    assert preset("none", "RolmOCR") is None and preset("auto", "my-ocr") is None
    assert "R1-Onevision" not in PRESETS, "it has no prompt of its own"
    with pytest.raises(BadOption, match=r"'olm'.*olmOCR 2"):
        preset("olm", "")


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("title", FINE_TUNES)
def test_text_is_asked_for_in_the_makers_words_where_they_have_any(title: str, output: str) -> None:
    tune, usual = FINE_TUNES[title], ocr(output)
    task, hinted = ocr(output, fine_tune=tune), ocr(output, "Greek", tune)
    assert task.prompt == (tune.prompt(output) or usual.prompt)
    assert hinted.prompt.startswith(task.prompt.rstrip()) and "Greek" in hinted.prompt
    assert task.longest_side == tune.longest_side
    assert task.max_new_tokens >= usual.max_new_tokens


PAGE = """\
<div data-bbox="0 0 1024 512" data-label="Section-Header"><h1>Title</h1></div>
<div data-bbox="[512, 512, 1024, 1024]" data-label="Text"><p>Some <b>words</b></p></div>"""
SIZE = (400, 800)
CONTEXT = ReplyContext(FAMILIES["qwen3_5"], SIZE, (416, 800))
CORNERS = [(0, 0, 800, 200), (400, 200, 800, 400)]


@pytest.mark.parametrize("output", ["html", "plain"])
def test_boxes_of_0_to_1024_are_read_in_that_scale(output: str) -> None:
    result = ocr(output, fine_tune=FINE_TUNES["Chandra"]).parse(PAGE, CONTEXT)
    assert [(b.x1, b.y1, b.x2, b.y2) for b in result.boxes] == CORNERS
    assert [entry["kind"] for entry in result.data] == ["Section-Header", "Text"]
    if output == "plain":
        assert result.text == "Title\n\nSome words"
    else:
        assert 'data-bbox="0 0 800 200"' in result.text
    assert result.notes == ()


def test_words_without_html_are_read_as_they_are() -> None:
    plain = ocr("plain", fine_tune=FINE_TUNES["Chandra"])
    assert plain.parse("SALE 50%", CONTEXT).text == "SALE 50%"
    assert plain.parse("No text found.", CONTEXT).text == ""


def test_replies_of_others_are_read_in_their_familys_scale() -> None:
    (box,) = ocr("html").parse('<p data-bbox="0 0 1000 500">a</p>', CONTEXT).boxes
    assert (box.x2, box.y2) == (800, 200)
    tuned = ocr("plain", fine_tune=FINE_TUNES["RolmOCR"]).parse("a\nb", CONTEXT)
    assert tuned.text == "a\nb"


def test_the_front_matter_of_olmocr_is_data() -> None:
    reply = "---\nprimary_language: en\nis_table: False\n---\n# A\n\nwords"
    for output in ("plain", "markdown"):
        result = ocr(output, fine_tune=FINE_TUNES["olmOCR 2"]).parse(reply, CONTEXT)
        assert result.text == "# A\n\nwords" and result.data["primary_language"] == "en"


def test_a_model_reads_boxes_in_the_scale_of_its_name(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """Whatever it is asked: found things too are where they are."""
    for name, scale in (("chandra-ocr-2", 1024), ("chandran", 1000)):
        folder = shutil.copytree(checkpoint("qwen3_vl"), tmp_path / name)
        family = open_checkpoint(LocalSpec(str(folder), device="cpu")).family
        assert family.box_scale == scale
        reply = json.dumps([{"bbox_2d": [0, 0, scale, scale // 2], "label": "wall"}])
        backend = ScriptedBackend([reply], family=family)
        picture = torch.zeros(3, *SIZE, dtype=torch.uint8)
        (found,) = run.answer(backend, ground("wall"), [picture])
        assert [(b.x1, b.y1, b.x2, b.y2) for b in found.boxes] == [(0, 0, 800, 200)]


def test_a_scale_leaves_the_rest_of_a_family_alone() -> None:
    tuned = as_tuned(FAMILIES["qwen3_5"], "chandra-ocr-2")
    assert (tuned.model_type, tuned.box_scale) == ("qwen3_5", 1024)
    assert "Chandra" in tuned.title and "Qwen3.5" in tuned.title
    assert as_tuned(FAMILIES["qwen3_5"], "RolmOCR") is FAMILIES["qwen3_5"]


def test_what_cannot_be_mapped_is_said_in_that_scale() -> None:
    context = ReplyContext(as_tuned(FAMILIES["qwen3_vl"], "chandra"), SIZE, SIZE)
    reply = '[{"bbox_2d": [3000, 0, 4000, 9], "label": "a"}]'
    with pytest.raises(UnreadableReply, match="0-1024"):
        ground("a").parse(reply, context)
