"""The caption command."""

from __future__ import annotations

import json
import os
import signal

import pytest
import videos
from caption_folders import jsonl, kohya, names, picture
from qwen_vl_suite.qwenvl.cli import folder_progress
from qwen_vl_suite.qwenvl.cli.main import Stopped
from qwen_vl_suite.qwenvl.errors import OutOfMemory


@pytest.fixture
def run(run, tmp_path_factory):
    """The command line with a model that is not the bundled one."""
    folder = tmp_path_factory.mktemp("model")

    def call(*words, **options):
        named = {"--model", "--server"} & set(words)
        return run(*words, *(() if named else ("--model", folder)), **options)

    return call


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "10_cat/b.png"):
        picture(tmp_path / "in" / name)
    return tmp_path / "in"


def test_a_folder_is_captioned_for_kohya_by_default(run, model, folder):
    backend = model("A red square.")
    status, out, err = run("caption", folder)
    assert status == 0 and out == "" and "2 captioned, 0 skipped, 0 failed" in err
    assert "for training" in backend.requests[0].prompt
    assert kohya(folder / "a.png") == kohya(folder / "10_cat" / "b.png") == "A red square."
    status, rows, err = run("caption", folder, "--json")
    assert status == 0 and "0 captioned, 2 skipped" in err and len(backend.requests) == 2
    assert rows == [
        {"file": name, "skipped": "It has a caption."} for name in ("a.png", "10_cat/b.png")
    ]


def test_failures_are_listed_and_decide_the_status(run, model, folder):
    (folder / "z.png").write_bytes(b"no picture")
    model("A red square.", "I'm sorry, but I can't help with that.")
    status, rows, err = run("caption", folder, "--json")
    assert status == 1 and {row["file"] for row in rows} == {"a.png", "10_cat/b.png", "z.png"}
    (caption,) = [row for row in rows if "caption" in row]
    assert caption == {"file": "a.png", "caption": "A red square."}
    assert "error: 10_cat/b.png: The model refused" in err
    assert "error: z.png: cannot be read" in err and "1 captioned, 0 skipped, 2 failed" in err


HEIC = b"\0\0\0\x18ftypheic" + b"\0" * 50


def test_what_is_said_of_files_as_people_have_them(run, model, tmp_path):
    contents = {
        "IMG_1.HEIC": HEIC, "IMG_2.jpg": HEIC, "empty.png": b"", "empty.mov": b"", "new\nline.png":
        b"", "broken.mp4": b"\0" * 99, "raw.CR2": b"x", ".hidden.heic": b"x",
    }  # fmt: skip
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    picture(tmp_path / "thin.tiff", size=(2000, 3))
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing.png")
    model("Never.")
    status, _, err = run("caption", tmp_path)
    assert status == 2
    assert set(err.splitlines()) == {
        "error: IMG_2.jpg: cannot be read as a picture: it is HEIC, which is not read. Convert it "
        "to PNG or JPEG.",
        "error: broken.mp4: cannot be read as a video: Invalid data found when processing input.",
        "error: empty.png: cannot be read: it is empty.",
        "error: empty.mov: empty.png lies beside it, and trainers read the same caption file for "
        "both. Rename one of them.",
        "error: link.png: cannot be read: it is a link to nothing.",
        "error: new\\nline.png: cannot be read: it is empty.",
        "error: thin.tiff: A picture of 2000x3 is more than 200 times as long as it is wide; the "
        "models refuse that. Crop or pad it.",
        "0 captioned, 0 skipped, 7 failed",
        "not read: 1 .heic, 1 .cr2. Convert them to PNG or JPEG.",
    }


def test_a_folder_without_pictures_is_told(run, model, tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    model("Never.")
    status, _, err = run("caption", tmp_path)
    assert status == 0 and "Found no picture and no video to be captioned." in err


@pytest.mark.parametrize(
    ("reply", "status"),
    [("<think>Hm", 3), (OutOfMemory("too large"), 2), ("I cannot assist with that.", 2)],
)
def test_the_status_when_nothing_is_captioned(run, model, folder, reply, status):
    model(reply)
    assert run("caption", folder)[0] == status
    assert names(folder) == ["10_cat/b.png", "a.png"]


@pytest.mark.parametrize(
    ("options", "reply", "asked", "file", "content"),
    [
        (["--style", "tags"], "Red, Square, red", "List tags", "a.txt", "Red, Square"),
        (["--prompt", "What is it?"], "A\nsquare", "What is it?", "a.txt", "A square"),
        (["--ocr", "plain"], "STOP\nHERE", "Read", "a.txt", "STOP HERE"),
        (["--keys", "colour"], '{"colour": "red"}', "colour", "a.txt", '{"colour": "red"}'),
        (
            ["--trigger", "ohwx", "--prefix", "<", "--suffix", ">", "--caption-ext", "cap"],
            "A square.", "training", "a.cap", "<ohwx, A square.>",
        ),
        (["--target", "qwen_image"], "A red square.", "", "a.txt", "A red square."),
        (["--trainer", "csv"], "A, b", "training", "captions.csv", 'file_name,text\na.png,"A, b"'),
    ],
)  # fmt: skip
def test_any_task_and_any_form(run, model, tmp_path, options, reply, asked, file, content):
    picture(tmp_path / "a.png", size=(64, 64))
    backend = model(reply)
    assert run("caption", tmp_path, *options)[0] == 0
    assert asked in backend.requests[0].prompt
    assert (tmp_path / file).read_text() == f"{content}\n"


def test_ideogram_captions_have_their_keys_in_order_and_boxes_with_y_first(run, model, tmp_path):
    path = picture(tmp_path / "a.png", size=(200, 100))
    element = {"type": "obj", "bbox_2d": [100, 200, 500, 600], "label": "cat", "desc": "A cat."}
    reply = {
        "caption": "A cat.",
        "style": {"medium": "photograph", "look": "50 mm", "aesthetics": "x", "lighting": "y"},
        "background": "A wall.",
        "elements": [element],
    }
    model(json.dumps(reply))
    assert run("caption", tmp_path, "--trainer", "ideogram")[0] == 0
    found = json.loads(kohya(path))
    assert list(found) == [
        "high_level_description", "style_description", "compositional_deconstruction",
    ]  # fmt: skip
    assert list(found["style_description"]) == [
        "aesthetics", "lighting", "photo", "medium", "color_palette",
    ]  # fmt: skip
    (cat,) = found["compositional_deconstruction"]["elements"]
    assert list(cat) == ["type", "bbox", "desc", "color_palette"]
    assert cat["bbox"] == [200, 100, 600, 500]
    status, _, err = run("caption", tmp_path, "--trainer", "ideogram", "--style", "tags")
    assert status == 2 and "reads replies to the task 'layout' alone" in err
    status, _, err = run("caption", tmp_path, "--trainer", "ideogram", "--trigger", "x")
    assert status == 2 and "nothing can stand" in err


def test_videos_are_captioned_with_the_frames_that_were_asked_for(run, model, tmp_path):
    clip = videos.write(tmp_path / "clip.MP4", frames=48, rate=12)
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    backend = model("A square moves.")
    status, _, err = run("caption", tmp_path, "--frames", "4")
    assert status == 1 and "error: bad.mp4" in err and kohya(clip) == "A square moves."
    (request,) = backend.requests
    assert len(request.videos[0].times) == 4 and "this video" in request.prompt
    status, _, err = run("caption", tmp_path, "--ocr", "plain", "--overwrite")
    assert status == 0 and "passed over: clip.MP4" in err and len(backend.requests) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_no_name_of_a_file_draws_on_the_terminal(run, model, tmp_path):
    name = "a\x1b[2K\x9b31m\nerror: forged"
    for suffix in (".jpg", ".png"):
        picture(tmp_path / f"{name}{suffix}")
    model("Never.")
    (tmp_path / f"{name}.txt").mkdir()
    status, _, err = run("caption", tmp_path)
    lines = err.splitlines()
    assert status == 2 and len(lines) == 3
    assert "".join(lines).isprintable()


def test_what_load_dataset_makes_of_the_folder_is_said_at_the_end(run, model, folder):
    picture(folder / "my_test.png")
    model("A red square.")
    status, _, err = run("caption", folder, "--trainer", "diffusers")
    assert status == 0 and err.count("note: ") == 1
    assert 'note: "my_test.png" has the word test in it' in err and 'data_files="**"' in err


def test_a_dry_run_loads_no_model(run, model, folder):
    backend = model("x")
    status, out, err = run("caption", folder, "--dry-run")
    assert (status, out) == (0, "a.png\n10_cat/b.png\n") and "2 would be captioned" in err
    assert not backend.specs and names(folder) == ["10_cat/b.png", "a.png"]
    assert not (folder / ".qwenvl-captions").exists()


def test_stopped_by_ctrl_c_and_gone_on_with(run, model, folder):
    def stop(number):
        if number == 1:
            raise Stopped(signal.SIGINT)

    backend = model("A red square.", before_answer=stop)
    status, _, err = run("caption", folder, "--trainer", "diffusers")
    assert status == 130 and "stopped after 1 captions; the same command goes on" in err
    assert len(jsonl(folder / "metadata.jsonl")) == 1
    backend.before_answer = lambda number: None
    status, _, err = run("caption", folder, "--trainer", "diffusers")
    assert status == 0 and "1 captioned, 1 skipped" in err and len(backend.requests) == 3


def test_near_duplicates_share_a_reply_only_if_asked(run, model, tmp_path):
    from PIL import Image

    ramp = Image.linear_gradient("L").convert("RGB")
    ramp.save(tmp_path / "a.png")
    ramp.resize((96, 96)).save(tmp_path / "b.jpg", quality=60)
    ramp.rotate(90).save(tmp_path / "c.png")
    options = ["--template", "{name}: {text}", "--near-duplicates", "2"]
    backend = model("one", "two")
    assert run("caption", tmp_path, *options)[0] == 0 and len(backend.requests) == 2
    captions = [kohya(tmp_path / name) for name in ("a.png", "b.jpg", "c.png")]
    assert captions == ["a: one", "b: one", "c: two"]
    assert run("caption", tmp_path, "--overwrite")[0] == 0 and len(backend.requests) == 5


def test_a_near_duplicate_of_a_failure_is_one(run, model, tmp_path):
    for name in ("a.png", "b.png"):
        picture(tmp_path / name)
    model("I cannot assist with that.")
    status, _, err = run("caption", tmp_path, "--near-duplicates", "0")
    assert status == 2 and "error: b.png: As a.png: The model refused" in err


def test_progress_is_a_bar_on_a_terminal_and_lines_elsewhere(run, model, folder, monkeypatch):
    import sys

    monkeypatch.setattr(folder_progress, "LINE_EVERY", -1)
    model("A red square.")
    _, _, err = run("caption", folder)
    assert "2 of 2 files: 2 captioned, 0 failed" in err and "0:00:00 left" in err
    monkeypatch.setattr(type(sys.stderr), "isatty", lambda self: True, raising=False)
    (folder / "bad.png").write_bytes(b"x")
    _, _, err = run("caption", folder, "--overwrite")
    assert "done=2, failed=1" in err and "error: bad.png" in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--template", "{nothing}"], "there are only {text}"),
        (["--shard", "5/4"], "There is no shard 5/4"),
        (["--trainer", "diffusers", "--append"], "nothing can be appended"),
        (["--trainer", "diffusers", "--caption-ext", "txt"], "has no extension"),
        (["--must", "red", "--must-not", "red"], '"red" must appear, and'),
        (["--near-duplicates", "40"], "it may be 0 to 16"),
        (["--prompt", " "], "--prompt is empty"),
        (["--keys", ""], "Nothing to extract was named"),
        (["--style", "nothing"], "There is no style"),
        (["--fps", "0"], "fps of a video is 0"),
        (["--ask-again", "11"], "ask_again is 11"),
    ],
)
def test_options_that_make_no_sense_are_refused(run, model, folder, options, said):
    backend = model("x")
    status, _, err = run("caption", folder, *options)
    assert (
        status == 2
        and said in err
        and not backend.specs
        and names(folder) == ["10_cat/b.png", "a.png"]
    )


def test_a_folder_that_is_none(run, model, tmp_path):
    backend = model("x")
    status, _, err = run("caption", tmp_path / "nowhere")
    assert status == 2 and "There is no folder" in err and not backend.specs


UNKNOWN = {
    "the style that is the default": (),
    "another style": ("--style", "tags"),
    "a layout": ("--layout", "--trainer", "ideogram"),
    "a trainer of layouts": ("--trainer", "ideogram"),
    "a prompt for an image model": ("--target", "qwen_image"),
    "tags in the template": ("--style", "short", "--template", "{text}, {tags}"),
    "words that are told": ("--style", "short", "--must-not", "cat"),
    "a caption that is corrected": ("--style", "short", "--refine"),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_what_the_bundled_model_does_not_know_is_refused_before_it_begins(run, model, folder, case):
    backend = model("[{]")
    for more in ((), ("--dry-run",)):
        status, _, err = run("caption", folder, "--model", "nano", *UNKNOWN[case], *more)
        assert status == 2 and "--style short" in err and "--model" in err
    assert not backend.specs and not list(folder.rglob("*.txt"))


KNOWN = {
    "a style": ("--style", "short"),
    "another style": ("--style", "detailed"),
    "words that the template has": ("--style", "short", "--trigger", "ohwx", "--must", "ohwx"),
    "own words": ("--prompt", "How many stars are there?"),
    "text": ("--ocr", "plain"),
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_the_bundled_model_knows_it_is_asked(run, model, folder, case):
    model("A red square.")
    assert run("caption", folder, "--model", "nano", *KNOWN[case])[0] == 0
    assert "A red square." in kohya(folder / "a.png")
