"""Captioning of folders, by a scripted model."""

from __future__ import annotations

import os
import unicodedata

import pytest
import videos
from caption_folders import Told, job, kohya, names, picture, run
from qwen_vl_suite.qwenvl.backends.scripted import (
    Reply,
    ScriptedBackend,
)
from qwen_vl_suite.qwenvl.errors import BadOption, OutOfMemory
from qwen_vl_suite.qwenvl.folders import (
    Asking,
    Sizes,
    caption_folder,
    survey,
    trainer,
)
from qwen_vl_suite.qwenvl.tasks.describe import describe

pytestmark = pytest.mark.usefixtures("each_backend")


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
    assert summary.captioned == 1 and summary.failed == 2
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


def test_a_name_that_is_no_unicode(tmp_path):
    try:
        picture(tmp_path / "good.png").rename(os.fsdecode(os.fsencode(tmp_path) + b"/b\xffd.png"))
    except OSError:
        pytest.skip("this file system has only names in Unicode")
    summary, told = run(ScriptedBackend("new"), tmp_path, template="{name}: {text}")
    assert list(told.captions.values()) == ["b\ufffdd: new"] and summary.failed == 0
    _, told = run(ScriptedBackend("new"), tmp_path, trainer="diffusers")
    assert "no valid Unicode" in next(iter(told.failures.values()))


def test_a_survey_asks_and_writes_nothing(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "b.txt").write_text("there")
    told = Told()
    summary = survey(job(tmp_path), told)
    assert list(told.captions) == ["a.png"] and told.there == ["b.png"] and summary.captioned == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "b.txt"]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "out").symlink_to(tmp_path)
    summary = survey(job(tmp_path / "in", within=(tmp_path / "in").resolve()))
    assert (summary.captioned, summary.failed) == (0, 1)


def test_no_link_leads_out_of_what_may_be_used(tmp_path):
    folder, other = tmp_path / "in", tmp_path / "out"
    for place in (folder / "own", other):
        place.mkdir(parents=True)
        picture(place / "a.png")
    (folder / "away").symlink_to(other)
    (folder / "inside").symlink_to(folder / "own")
    (folder / "b.png").symlink_to(other / "a.png")
    picture(folder / "c.png")
    (folder / "c.txt").symlink_to(other / "c.txt")
    told = Told()
    within = folder.resolve()
    summary = caption_folder(ScriptedBackend("new"), job(folder, within=within), told)
    assert (summary.captioned, summary.failed) == (1, 3)
    assert sorted(name for name, _ in summary.failures) == ["away", "b.png", "c.png"]
    assert not list(other.glob("*.txt"))
    caption_folder(ScriptedBackend("new"), job(folder))
    assert len(list(other.glob("*.txt"))) == 2 and (folder / "b.txt").exists()
    for name in (".qwenvl-captions", "metadata.jsonl"):
        linked = tmp_path / name
        linked.mkdir()
        picture(linked / "a.png")
        (linked / name).symlink_to(other)
        with pytest.raises(BadOption, match="leads out"):
            given = {"within": linked.resolve(), "trainer": trainer("diffusers")}
            caption_folder(ScriptedBackend("new"), job(linked, **given))


def test_clips_that_are_refused_cost_only_themselves_however_many_come_first(tmp_path):
    picture(tmp_path / "0.png")
    for number, frames in ((1, 24), (2, 48)):
        videos.write(tmp_path / f"{number}.mp4", frames=frames, rate=12)
    picture(tmp_path / "9.png")
    given = {"words": {"fields": {"video_tokens": 1}}, "sizes": Sizes(1, 2)}
    (tmp_path / "0.txt").write_text("there")
    for _ in range(2):
        summary, told = run(ScriptedBackend("new"), tmp_path, **given)
        assert set(told.failures) == {"1.mp4", "2.mp4"} and kohya(tmp_path / "9.png") == "new"
    assert summary.skipped == 2
    few, many = told.failures.values()
    assert "video_tokens" in few and few != many  # each for its own reason


def test_a_clip_that_is_passed_over_is_no_twin(tmp_path):
    (tmp_path / "a.avi").touch()
    picture(tmp_path / "a.jpg")
    asking = Asking(describe("training"))
    summary, told = run(ScriptedBackend("new"), tmp_path, asking=asking)
    assert list(told.captions) == ["a.jpg"] and told.over == ["a.avi"] and not summary.failed


def test_names_that_are_one_row_of_a_table(tmp_path):
    forms = [unicodedata.normalize(form, "\u00e9.png") for form in ("NFC", "NFD")]
    for name in forms:
        picture(tmp_path / name)
    if len(names(tmp_path)) == 1:
        pytest.skip("one file on this system")
    _, told = run(ScriptedBackend("new"), tmp_path, trainer="csv")
    assert len(told.captions) == 1 and "Unicode form" in next(iter(told.failures.values()))


def test_diffusers_reads_no_clips_beside_pictures(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b").mkdir()
    videos.write(tmp_path / "b" / "1.mp4", frames=24, rate=12)
    _, told = run(ScriptedBackend("new"), tmp_path, trainer="diffusers")
    assert list(told.captions) == ["a.png"] and told.over == ["b/1.mp4"]
    _, told = run(ScriptedBackend("new"), tmp_path / "b", trainer="diffusers")
    assert list(told.captions) == ["1.mp4"]  # as VideoFolder reads it
    _, told = run(ScriptedBackend("new"), tmp_path, trainer="csv")
    assert set(told.captions) == {"a.png", "b/1.mp4"}


def test_a_link_to_itself_fails_alone(tmp_path):
    picture(tmp_path / "b.png")
    (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
    picture(tmp_path / "c.png")
    (tmp_path / "c.txt").symlink_to(tmp_path / "c.txt")
    for within in (None, tmp_path.resolve()):
        (tmp_path / "b.txt").unlink(missing_ok=True)
        _, told = run(ScriptedBackend("new"), tmp_path, within=within)
        assert "b.png" in told.captions and "a.png" in told.failures
