"""Styles of descriptions as data: the pack's own, and users' in files beside them."""

from __future__ import annotations

from pathlib import Path

import pytest
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.styles import read_styles
from qwen_vl_suite.qwenvl.tasks.describe import describe, known_styles
from qwen_vl_suite.qwenvl.types import ReplyContext

CONTEXT = ReplyContext(FAMILIES["qwen3_vl"], (500, 2000), (512, 2016))
OWN = """
noir: Describe this image as a scene of a film noir.
colors:
  prompt: >-
    List the colors.
  form: tags
  max_new_tokens: 99
short:
  prompt: One word.
html:
  prompt: Describe the page.
"""


def made(folder: Path, text: str) -> Path:
    (folder / "mine.yaml").write_text(text, encoding="utf-8")
    return folder


def test_users_add_and_change_styles(tmp_path: Path) -> None:
    own = read_styles([made(tmp_path, OWN), tmp_path / "absent"])
    assert not own.problems and not own.broken
    names = list(known_styles(own))
    assert names[:2] == ["short", "detailed"] and names[-2:] == ["noir", "colors"]
    assert len(names) == len(known_styles()) + 2
    assert describe("short", own=own).prompt == "One word."
    assert describe("noir", own=own).parse('"A man."', CONTEXT).text == "A man."
    colors = describe("colors", own=own)
    assert (colors.prompt, colors.max_new_tokens) == ("List the colors.", 99)
    assert colors.parse("- Red\n- blue\n- red", CONTEXT).text == "Red, blue"
    assert describe("html", own=own).parse("A page.", CONTEXT).text == "A page."  # no code asked
    assert describe("short").prompt != "One word."


@pytest.mark.parametrize(
    ("text", "name", "complaint"),
    [
        ("noir: {form: line}", "noir", "mine.yaml: noir: prompt is missing"),
        ("noir: {prompt: x, from: line}", "noir", "noir: from is no field.*Did you mean form"),
        ("noir: {prompt: x, form: poem}", "noir", "Choose one of: line, paragraphs, tags, text"),
        ("noir: [a]", "noir", "noir has to be a text"),
        ("noir: [", "noir", "no style 'noir'.*short, detailed.*Left out: .*mine.yaml"),
        ("yes: x", "yes", 'Left out: .*name that YAML takes for True goes into "quotes"'),
        ("noir: x\n2024: y", "nior", "svg.*noir"),
        ("noir: !!bool maybe", "noir", "no style 'noir'.*Left out: .*no valid YAML.*maybe"),
        ("noir: x", "nior", "no style 'nior'. Choose one of: short, .*svg.*noir"),
    ],
)
def test_a_mistake_costs_only_its_style_and_is_named(
    tmp_path: Path, text: str, name: str, complaint: str
) -> None:
    own = read_styles([made(tmp_path, text)])
    assert describe("detailed", own=own).prompt
    with pytest.raises(BadOption, match=complaint):
        describe(name, own=own)


def test_a_style_stays_where_one_to_take_its_place_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    own = read_styles([made(tmp_path, "detailed: {form: line}")])
    assert own["detailed"] == read_styles()["detailed"]
    assert "prompt is missing" in caplog.text and "'detailed' stays as it was" in caplog.text
