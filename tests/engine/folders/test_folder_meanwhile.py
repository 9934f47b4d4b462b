"""What somebody does in a folder while the model answers."""

from __future__ import annotations

import contextlib
import shutil

import pytest
from caption_folders import Told, job, kohya, names, picture, run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import QwenVLError
from qwen_vl_suite.qwenvl.folders import caption_folder


def test_a_caption_that_comes_while_the_model_answers_stays(tmp_path):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")

    def reply(request):
        (tmp_path / "b.txt").write_text("by hand")
        return "by the model"

    summary, told = run(ScriptedBackend(reply), tmp_path)
    assert kohya(tmp_path / "a.png") == "by the model" and kohya(tmp_path / "b.png") == "by hand"
    assert (summary.captioned, summary.skipped, told.there) == (1, 1, ["b.png"])
    assert told.notes == told.reasons == ["It got a caption meanwhile, which stays."]


@pytest.mark.parametrize("refine", [False, True])
def test_an_edit_of_what_is_written_over_stays(tmp_path, refine):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png").with_suffix(".txt").write_text("old")
    given = {"existing": "overwrite", "words": {"refine": refine}}
    run(ScriptedBackend("second"), tmp_path, **given)  # what was there at first is kept

    def reply(request):
        (tmp_path / "b.txt").write_text("by hand")
        return "third"

    summary, told = run(ScriptedBackend(reply), tmp_path, **given)
    assert kohya(tmp_path / "a.png") == "third" and kohya(tmp_path / "b.png") == "by hand"
    assert summary.failed == 1 and "changed while the model was asked" in told.failures["b.png"]
    again = ScriptedBackend("fourth")
    run(again, tmp_path, **given)
    assert len(again.requests) == 1 and kohya(tmp_path / "b.png") == "fourth"


@pytest.mark.parametrize("trainer", ["kohya", "diffusers"])
def test_a_picture_that_is_taken_away_while_the_model_answers_gets_no_caption(tmp_path, trainer):
    for name in ("a", "b"):
        picture(tmp_path / f"{name}.png")

    def reply(request):
        (tmp_path / "b.png").unlink(missing_ok=True)
        return "new"

    _, told = run(ScriptedBackend(reply), tmp_path, trainer=trainer)
    assert list(told.captions) == ["a.png"] and "taken away" in told.failures["b.png"]
    assert "b.txt" not in names(tmp_path)
    assert trainer == "kohya" or "b.png" not in (tmp_path / "metadata.jsonl").read_text()


@pytest.mark.parametrize("trainer", ["kohya", "diffusers"])
def test_a_folder_that_goes_while_it_is_captioned_is_told(tmp_path, trainer):
    for number in range(2):
        picture(tmp_path / "set" / f"{number}.png")

    def reply(request):
        shutil.rmtree(tmp_path / "set", ignore_errors=True)
        return "x"

    told = Told()
    with contextlib.suppress(QwenVLError):
        caption_folder(ScriptedBackend(reply), job(tmp_path / "set", trainer=trainer), told)
    assert set(told.failures) == {"0.png", "1.png"} and not told.captions
