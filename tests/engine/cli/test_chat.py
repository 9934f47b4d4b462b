"""The chat command: turns from options and from stdin, and conversations in files."""

from __future__ import annotations

import json
import sys

import pytest
import videos
from qwen_vl_suite.qwenvl.backends.scripted import Reply
from qwen_vl_suite.qwenvl.errors import OutOfMemory, Unavailable, UnsuitableModel
from qwen_vl_suite.qwenvl.types import Generated


@pytest.fixture
def files(tmp_path):
    from PIL import Image

    for name, colour in (("a.png", "red"), ("b.png", "blue"), ("c.png", "green")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / name)
    return tmp_path


def test_each_turn_is_a_line_with_what_it_cost(model, run, files):
    backend = model("A cat.", "Two.", "Yes.")
    a, b, c = (files / f"{name}.png" for name in "abc")
    turns = ("--image", a, "--turn", "What?", "--image", b, "--image", c, "--turn", "And these?")
    status, rows, _ = run("chat", "--json", "--system", "Be brief.", *turns, "--turn", "Sure?")
    assert status == 0 and [row["text"] for row in rows] == ["A cat.", "Two.", "Yes."]
    assert [row["turn"] for row in rows] == [1, 2, 3]
    assert [row["images"] for row in rows] == [[str(a)], [str(b), str(c)], []]
    assert all(row["read_tokens"] > 0 == row["reused_tokens"] for row in rows)
    assert rows[0]["new_tokens"] == 3 and rows[0]["first_token_seconds"] >= 0
    last = backend.requests[-1]
    assert len(last.images) == 3 and last.system == "Be brief." and last.continues
    assert isinstance(last.messages[2].parts[0], Generated)


def test_lines_on_stdin_are_turns_and_one_that_fails_is_followed_by_the_next(model, run, files):
    backend = model("Hello.", "Red.", "Bye.")
    typed = f"Hi\n\n/image {files / 'a.png'}\nWhat?\n/image none.png\nAnd?\nWell?\n/quit\nno\n"
    status, out, err = run("chat", stdin=typed)
    assert out == "Hello.\nRed.\nBye.\n" and status == 1
    assert "none.png" in err and len(backend.requests) == 3
    assert [len(request.images) for request in backend.requests] == [0, 1, 1]


def test_a_thought_is_no_part_of_what_is_printed(model, run):
    model(Reply("Yes, it is.", thinking="Is it? Yes"), thinking="on")
    assert run("chat", "--turn", "Is it?")[1] == "Yes, it is.\n"


def test_an_answer_without_a_thought_is_no_thought(model, run):
    model("Yes, it is.", thinking="on")
    turn = ("--turn", "Is it?", "--reasoning-effort", "none")
    assert run("chat", *turn)[1] == "Yes, it is.\n"


def test_what_this_model_or_machine_cannot_do_ends_no_conversation_at_the_keyboard(model, run):
    model(UnsuitableModel("It sees no pictures."), Unavailable("No av here."), "Bye.")
    status, out, err = run("chat", stdin="a\nb\nc\n")
    assert (status, out) == (1, "Bye.\n") and "sees no pictures" in err and "No av" in err


def test_options_reach_the_model(model, run):
    backend = model("yes", thinking="off")
    more = ("--preserve-thinking", "--reasoning-effort", "low", "--thinking", "--seed", "3")
    run("chat", "--turn", "Hi", "--temperature", "0", "--max-new-tokens", "9", *more)
    (asked,) = backend.requests
    assert asked.preserve_thinking and asked.reasoning_effort == "low" and asked.thinking is True
    sampling = asked.sampling
    assert (sampling.temperature, sampling.max_new_tokens, sampling.seed) == (0, 9, 3)


def test_a_failed_turn_of_the_options_ends_them(model, run):
    model("one", OutOfMemory("too large"), "three")
    status, rows, err = run("chat", "--json", "--turn", "1", "--turn", "2", "--turn", "3")
    assert [row["text"] for row in rows] == ["one", ""]
    assert status == 1 and rows[1]["error"] == "too large" and "1 of 3 turns" in err
    model("one")
    status, rows, err = run("chat", "--json", "--turn", "1", "--image", "no.png", "--turn", "2")
    assert status == 1 and "no.png" in rows[1]["error"] and "stopped after 1 of 2 turns" in err


def test_a_saved_conversation_goes_on(model, run, files):
    backend = model("A cat.", "Yes.")
    saved = files / "talk.json"
    run("chat", "--image", files / "a.png", "--turn", "What?", "--save", saved)
    status, out, _ = run("chat", "--history", saved, "--turn", "Sure?", "--save", saved)
    assert (status, out) == (0, "Yes.\n") and len(backend.requests[-1].images) == 1
    values = json.loads(saved.read_text())
    assert [turn["answer"] for turn in values["turns"]] == ["A cat.", "Yes."]
    shown = values["turns"][0]["media"][0]
    assert shown["path"] == str(files / "a.png")
    shown["path"] = "a.png"  # beside the history
    saved.write_text(json.dumps(values))
    assert run("chat", "--history", saved, "--turn", "Sure?")[0] == 0
    shown["folder"] = "output"
    saved.write_text(json.dumps(values))
    status, _, err = run("chat", "--history", saved, "--turn", "Sure?")
    assert status == 2 and "ComfyUI's folder 'output'" in err


def test_a_history_with_paths_beside_it_is_saved_elsewhere(model, run, files):
    model("Yes.")
    old, new = files / "talk.json", files / "other" / "talk.json"
    new.parent.mkdir()
    media = [{"type": "image", "path": "a.png"}]
    old.write_text(json.dumps({"turns": [{"text": "What?", "answer": "?", "media": media}]}))
    assert run("chat", "--history", old, "--turn", "Sure?", "--save", new)[0] == 0
    assert run("chat", "--history", new, "--turn", "Sure?")[0] == 0


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode there")
def test_words_and_paths_that_are_not_utf_8_are_saved(model, run, files):
    backend = model("Yes.")
    saved, odd = files / "talk.json", files / "\udcff.png"
    odd.write_bytes((files / "a.png").read_bytes())
    status, *_ = run("chat", "--image", odd, "--turn", "What\udcff?", "--save", saved)
    assert status == 0 and run("chat", "--history", saved, "--turn", "Sure?")[0] == 0
    assert len(backend.requests[-1].images) == 1 and not list(files.glob(".*"))
    forged = saved.read_text().replace("\\udcff", "\\ud800")
    saved.write_text(forged)
    status, _, err = run("chat", "--history", saved, "--turn", "Sure?")
    assert status == 2 and "is no path of a file" in err


def test_a_video_is_heard_and_seen_as_that_is_asked_for_and_so_it_stays(model, run, files):
    loud = videos.write(files / "loud.mp4", frames=48, rate=12, sound=True)
    backend = model("A tone.", "Yes.", family="qwen2_5_omni")
    saved = files / "talk.json"
    asked = ("--video", loud, "--turn", "What?", "--save", saved)
    assert run("chat", *asked, "--video-sound", "--fps", "1")[0] == 0
    assert run("chat", "--history", saved, "--turn", "Sure?", "--save", saved)[0] == 0
    for request in backend.requests:
        assert len(request.videos[0].frames) == 4 and len(request.sounds) == 1
    shown = json.loads(saved.read_text())["turns"][0]["media"][0]
    assert (shown["fps"], shown["sound"]) == (1.0, True)
    assert run("chat", *asked)[0] == 0 and not backend.requests[-1].sounds
    assert len(backend.requests[-1].videos[0].frames) == 8
    status, _, err = run("chat", *asked, "--fps", "0")
    assert status != 0 and "fps of a video is 0" in err


def test_mistakes_are_said_before_a_model_is_loaded(model, run, files):
    backend = model("no")
    status, _, err = run("chat", "--turn", "1", "--image", files / "a.png")
    assert status == 2 and "No --turn follows" in err
    status, _, err = run("chat", "--turn", "1", "--history", files / "none.json")
    assert status == 2 and "cannot be read" in err
    status, _, err = run("chat", "--turn", "1", "--save", files / "none" / "talk.json")
    assert status == 2 and "there is no folder" in err
    status, _, err = run("chat", "--turn", "1", "--save", files)
    assert status == 2 and "it is a folder" in err
    assert not backend.specs
