"""Captioning of folders, by a scripted model."""

from __future__ import annotations

import pytest
from caption_folders import Told, job, kohya, names, picture, run
from qwen_vl_suite.qwenvl.backends.scripted import Reply, ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption, OutOfMemory
from qwen_vl_suite.qwenvl.folders import survey


def by_colour(request):
    """A caption that tells which picture was shown."""
    red, green, blue = (int(request.images[0][channel, 0, 0]) for channel in range(3))
    return f"A picture of {red}, {green} and {blue}."


def test_each_picture_gets_one_line_beside_it(tmp_path):
    for number, name in enumerate(["a.png", "B.JPG", "10_cat/c.webp", "10_cat/deep/d.bmp"]):
        picture(tmp_path / name, (0, 0, 20 * number), quality=100, lossless=True)
    before = names(tmp_path)
    summary, told = run(ScriptedBackend(by_colour), tmp_path)
    assert (summary.found, summary.captioned, summary.failed) == (4, 4, 0)
    assert set(told.captions) == set(before) and told.total == 4
    for number, name in enumerate(["a.png", "B.JPG", "10_cat/c.webp", "10_cat/deep/d.bmp"]):
        assert kohya(tmp_path / name) == f"A picture of 0, 0 and {20 * number}."
        assert told.captions[name] == kohya(tmp_path / name)
    written = {name.rpartition(".")[0] + ".txt" for name in before}
    assert set(names(tmp_path)) == set(before) | written


def test_what_has_a_caption_is_skipped_and_an_empty_one_is_none(tmp_path):
    for name in ("a", "b", "c", "d"):
        picture(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("mine")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.txt").write_bytes(b"\xef\xbb\xbf\r\n \x00\x00")
    backend = ScriptedBackend("new")
    summary, told = run(backend, tmp_path)
    assert told.there == ["a.png"] and summary.skipped == 1 and len(backend.requests) == 3
    assert [kohya(tmp_path / f"{name}.png") for name in "abcd"] == ["mine", "new", "new", "new"]
    summary, told = run(backend, tmp_path)
    assert summary.skipped == 4 and len(backend.requests) == 3 and not told.asked


def test_files_that_cannot_be_read_cost_only_themselves(tmp_path):
    picture(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    summary, told = run(ScriptedBackend("new"), tmp_path)
    assert summary.captioned == 1 and summary.failed == 2 and summary.left == 0
    assert told.failures["broken.png"].startswith("cannot be read as a picture")
    assert "a link to nothing" in told.failures["gone.png"]
    assert sorted(summary.failures) == sorted(told.failures.items())
    assert names(tmp_path) == ["broken.png", "good.png", "good.txt"]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (Reply("A cat, a cat, a", finish_reason="length"), "was cut"),
        (Reply("cat cat cat", finish_reason="repetition"), "in a circle"),
        ("I'm sorry, but I can't help with that.", "refused"),
        ("  ", "empty"),
        (OutOfMemory("too large"), "too large"),
        ("<think>Let me see", "thinking"),
    ],
)
def test_no_failure_becomes_a_caption(tmp_path, reply, why):
    picture(tmp_path / "a.png", "red")
    picture(tmp_path / "b.png", "blue")
    summary, told = run(
        ScriptedBackend(lambda request: reply if request.images[0][0, 0, 0] else "fine"), tmp_path
    )
    assert why in told.failures["a.png"] and summary.failed == 1
    assert names(tmp_path) == ["a.png", "b.png", "b.txt"]


def test_of_twins_the_second_is_named_and_nothing_is_overwritten(tmp_path):
    picture(tmp_path / "a.jpg", "blue")
    picture(tmp_path / "a.png", "red")
    _, told = run(ScriptedBackend("new"), tmp_path)
    assert list(told.captions) == ["a.jpg"] and "a.jpg lies beside it" in told.failures["a.png"]
    _, told = run(ScriptedBackend("newer"), tmp_path, trainer="diffusers")
    assert set(told.captions) == {"a.jpg", "a.png"}  # each has its own row


def test_a_model_that_refuses_all_is_an_error_and_no_list_of_failures(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(BadOption, match="never thinks"):
        run(ScriptedBackend("x"), tmp_path, words={"fields": {"thinking": True}})
    assert names(tmp_path) == ["a.png"]


def test_a_survey_asks_and_writes_nothing(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("there")
    told = Told()
    summary = survey(job(tmp_path), told)
    assert list(told.captions) == ["a.png"] and told.there == ["b.png"] and summary.left == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "b.txt"]
