"""Asking again about files under review."""

from __future__ import annotations

from contextlib import nullcontext

from caption_folders import job, picture
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.reviewing import Asker
from review_rows import opened, row


def asked(folder, backend, indices, **fields):
    collection = opened(folder)
    asker = Asker(collection, job(folder, existing="overwrite", **fields),
                  lambda: nullcontext(backend))  # fmt: skip
    asker.ask(indices)
    assert asker.wait(20)
    return collection, asker


def test_asking_again_writes_edits_that_can_be_undone(folder):
    picture(folder / "broken.png").write_bytes(b"no picture")
    backend = ScriptedBackend(["A dog.", "I'm sorry, but I can't help with that."])
    collection, asker = asked(folder, backend, [0, 1, 2], template="{text} Really.")
    assert (folder / "a.txt").read_text() == "A dog. Really.\n"
    assert "refused" in row(collection, 1)["failure"] and not (folder / "b.txt").exists()
    assert "cannot be read" in row(collection, 2)["failure"]
    assert collection.undo() == 0 and (folder / "a.txt").read_text() == "A red cat.\n"
    assert asker.state() == {"now": {}, "waiting": 0, "error": ""}
    asker.ask([1])
    assert asker.wait(20) and len(backend.requests) == 3


def test_a_caption_edited_while_its_file_is_asked_about_stays(folder):
    def reply(request):
        (folder / "a.txt").write_text("By hand.")
        return "By the model."

    collection, _ = asked(folder, ScriptedBackend(reply), [0])
    assert (folder / "a.txt").read_text() == "By hand."
    assert "edited meanwhile" in row(collection, 0)["failure"]


def test_asking_is_stopped_and_its_errors_are_told(folder):
    collection = opened(folder)
    asker = None

    def reply(request):
        asker.stop()
        return "Too late, and too long to be written at once."

    asker = Asker(collection, job(folder), lambda: nullcontext(ScriptedBackend(reply)))
    asker.ask([0, 1])
    assert asker.wait(20) and (folder / "a.txt").read_text() == "A red cat.\n"

    def lease():
        raise BadOption("There is no such model.")

    asker = Asker(collection, job(folder), lease)
    asker.ask([0])
    assert asker.wait(20) and asker.state()["error"] == "There is no such model."
