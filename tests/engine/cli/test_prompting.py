"""The prompt command, with a scripted model."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from qwen_vl_suite.qwenvl.cli import portions, prompting
from qwen_vl_suite.qwenvl.cli.main import Stopped, main
from qwen_vl_suite.qwenvl.errors import UnsuitableModel
from qwen_vl_suite.qwenvl.media import images

PICTURES = Path(__file__).resolve().parents[3] / "example_workflows" / "pictures"


def rows(capsys: pytest.CaptureFixture[str]) -> list[dict]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_line_an_idea(model, capsys):
    backend = model("A cat.", "A dog.")
    assert main(["prompt", "cat", "{dog}", "--target", "flux2", "--json", "--top-k", "7"]) == 0
    first, second = rows(capsys)
    assert (first["prompt"], second["prompt"], second["idea"]) == ("A cat.", "A dog.", "dog")
    assert backend.batches == [2] and backend.requests[0].sampling.top_k == 7


def test_pictures_pair_with_ideas_or_go_together(model, capsys):
    one, two = str(PICTURES / "shapes.png"), str(PICTURES / "sign.png")
    backend = model("Red.")
    assert main(["prompt", "red", "--image", one, "--image", two, "--json"]) == 0
    assert [row["images"] for row in rows(capsys)] == [[one], [two]]
    assert main(["prompt", "red", "--image", one, "--image", two, "--together"]) == 0
    assert capsys.readouterr().out == "Red.\n" and len(backend.requests[-1].images) == 2
    assert main(["prompt", "a", "b", "c", "--image", one, "--image", two]) == 2
    assert "3 ideas do not pair with 2 images" in capsys.readouterr().err


def test_one_picture_that_cannot_be_read_costs_only_its_own(model, capsys):
    model("Red.")
    paths = ["--image", str(PICTURES / "shapes.png"), "--image", "absent.png"]
    assert main(["prompt", *paths, "--json"]) == 1
    out, err = capsys.readouterr()
    good, bad = map(json.loads, out.splitlines())
    assert good["prompt"] == "Red." and "absent.png" in bad["error"]
    assert f"error: {bad['error']}\n" in err, "the picture is named once"


def test_an_idea_of_no_words_costs_only_its_own(model, capsys):
    backend = model("A cat.", "A dog.")
    assert main(["prompt", "cat", "", "dog", "{" * 99, "--json"]) == 1
    cat, empty, dog, deep = rows(capsys)
    assert (cat["prompt"], dog["prompt"], backend.batches) == ("A cat.", "A dog.", [2])
    assert "no idea" in empty["error"] and "50 deep" in deep["error"]
    assert main(["prompt", ""]) == 2
    assert "There is no idea" in capsys.readouterr().err and backend.batches == [2]


def test_what_is_written_is_there_when_it_is_stopped(model, capsys):
    """Also in a round that asks again; results come in order."""
    replies = iter(["A fox.", "A dog.", "A fox."])

    def reply(request):
        try:
            return next(replies)
        except StopIteration:
            raise Stopped(signal.SIGINT) from None

    model(reply)
    assert main(["prompt", "a", "b", "c", "--must", "fox", "--json"]) == 130
    out, err = capsys.readouterr()
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["A fox."]
    assert "stopped after 1 of 3\n" in err


def test_pictures_are_read_a_portion_at_a_time(model, capsys, monkeypatch):
    monkeypatch.setattr(portions, "MAX_IMAGES", 2)
    backend = model("Red.")
    one, two = str(PICTURES / "shapes.png"), "absent.png"
    paths = [word for path in (one, two, one, one, one) for word in ("--image", path)]
    assert main(["prompt", *paths, "--json"]) == 1
    assert ["error" in row for row in rows(capsys)] == [False, True, False, False, False]
    assert backend.batches == [1, 2, 1]


def test_pictures_shown_with_each_idea_are_read_once(model, capsys, monkeypatch):
    monkeypatch.setattr(portions, "MAX_BYTES", 1)
    read = []
    monkeypatch.setattr(prompting, "_read", lambda path: read.append(path) or images.read(path))
    backend = model("Red.")
    paths = [word for name in ("shapes", "sign") for word in ("--image", f"{PICTURES / name}.png")]
    assert main(["prompt", "a", "b", "c", *paths, "--together"]) == 0
    assert len(read) == 2 and backend.batches == [1, 2]


def test_a_model_that_breaks_leaves_what_was_written(model, capsys, monkeypatch):
    monkeypatch.setattr(portions, "MAX_IMAGES", 1)
    replies = iter(["A fox."])

    def reply(request):
        if (found := next(replies, None)) is None:
            raise UnsuitableModel("It writes no more.")
        return found

    model(reply)
    assert main(["prompt", "a", "b", "--json"]) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 1
    assert "error: It writes no more.\nstopped after 1 of 2\n" in err


def test_users_targets(model, capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("title: T\nsource: me\nsystem: Be brief.\n")
    backend = model("A cat.")
    folder = ["--targets-folder", str(tmp_path)]
    assert main(["prompt", "cat", "--target", "mine", *folder]) == 0
    assert backend.requests[0].system == "Be brief."
    assert main(["prompt", "--list-targets", *folder]) == 0
    assert "mine  T" in capsys.readouterr().out
    assert main(["prompt", "cat", "--megapixels", "nan"]) == 2
    assert "megapixels is nan; it may be 0, or 0.004096 to 100" in capsys.readouterr().err
    assert main(["prompt", "cat", "--target", "mime"]) == 2
    assert "no target 'mime'" in capsys.readouterr().err
    assert main(["prompt", "cat", "--targets-folder", str(tmp_path / "absent")]) == 2
    assert "which is no folder" in capsys.readouterr().err


def test_styles_of_users(model, capsys, tmp_path):
    (tmp_path / "mine.yaml").write_text("noir: As film noir.\n")
    backend = model("A man.")
    picture, folder = str(PICTURES / "shapes.png"), ["--styles-folder", str(tmp_path)]
    assert main(["describe", picture, "--style", "noir", *folder]) == 0
    assert backend.requests[0].prompt == "As film noir."
    assert main(["describe", picture, "--style", "noir"]) == 2
    assert "no style 'noir'" in capsys.readouterr().err
