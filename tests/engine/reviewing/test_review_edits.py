"""Edits of captions under review, in the trainers' forms, and their undoing."""

from __future__ import annotations

import threading

import pytest
from caption_folders import jsonl, names, picture, run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadImage
from qwen_vl_suite.qwenvl.folders import files, trainer
from qwen_vl_suite.qwenvl.reviewing import Conflict
from review_rows import change, opened, row


def test_an_edit_has_the_trainers_form_and_is_undone_byte_by_byte(folder):
    first = b"\xef\xbb\xbfA red cat.\r\nAnother line\n"
    (folder / "a.txt").write_bytes(first)
    collection = opened(folder)
    change(collection, 0, "A blue\ncat. ")
    change(collection, 1, "A dog.")
    assert (folder / "a.txt").read_bytes() == b"A blue cat.\n"
    assert (folder / ".qwenvl-captions" / "backup" / "a.txt.bak").read_bytes() == first
    assert collection.undo() == 1 and not (folder / "b.txt").exists()
    assert collection.undo() == 0 and (folder / "a.txt").read_bytes() == first
    assert collection.undo() is None
    assert collection.redo() == 0 and collection.redo() == 1 and collection.redo() is None
    assert (folder / "b.txt").read_text() == "A dog.\n" and collection.counts()["captioned"] == 3
    change(collection, 0, " \n")
    assert "a.txt" not in names(folder) and collection.find(only="without") == [0]
    assert (folder / ".qwenvl-captions" / "backup" / "a.txt.bak").read_bytes() == first


def test_each_line_stays_a_caption_of_its_own_for_onetrainer(folder):
    (folder / "a.txt").write_text("One red cat.\nA cat, red.\n")
    collection = opened(folder, "onetrainer")
    change(collection, 0, row(collection, 0)["text"].replace("One ", "A \t") + "\r\n\n Cat. \r")
    assert (folder / "a.txt").read_text() == "A red cat.\nA cat, red.\nCat.\n"


def test_of_edits_at_once_on_the_same_version_one_is_written(folder):
    collection = opened(folder)
    version, outcomes = row(collection, 0)["version"], []

    def edit(number):
        try:
            collection.edit(0, f"Number {number}.", version)
            outcomes.append(number)
        except Conflict:
            outcomes.append(None)

    threads = [threading.Thread(target=edit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (number,) = [one for one in outcomes if one is not None]
    assert (folder / "a.txt").read_text() == f"Number {number}.\n"


@pytest.mark.parametrize("name", ["diffusers", "csv", "musubi-jsonl"])
def test_rows_of_tables_are_edited_taken_away_and_undone(folder, name):
    run(ScriptedBackend(["One.", "Two.", "Three."]), folder, trainer=name)
    table = folder / trainer(name).table
    first = table.read_bytes()
    collection = opened(folder, name)
    assert collection.find("two") == [1]
    change(collection, 1, "A dog.")
    assert collection.find("dog") == [1] and b"A dog." in table.read_bytes()
    assert (folder / ".qwenvl-captions" / "backup" / f"{table.name}.bak").read_bytes() == first
    change(collection, 2, "")
    assert b"Three." not in table.read_bytes() and b"c.png" not in table.read_bytes()
    assert collection.undo() == 2 and collection.undo() == 1
    assert table.read_bytes() == first
    table.write_bytes(first.replace(b"One.", b"Eins."))
    assert row(collection, 0)["text"] == "Eins."


def test_a_row_with_other_columns_stays_when_its_caption_goes(folder):
    table = folder / "metadata.jsonl"
    table.write_text('{"file_name": "a.png", "text": "A cat.", "artist": "me"}\n')
    collection = opened(folder, "diffusers")
    change(collection, 0, "")
    assert jsonl(table) == [{"file_name": "a.png", "text": "", "artist": "me"}]


def test_no_caption_is_written_again_for_a_picture_that_is_gone(folder):
    collection = opened(folder)
    change(collection, 1, "A dog.")
    collection.undo()
    (folder / "b.jpg").unlink()
    collection.load()
    with pytest.raises(BadImage, match=r"b\.jpg is gone"):
        collection.redo()
    assert not (folder / "b.txt").exists() and collection.redo() is None


def test_an_edit_that_can_no_longer_be_undone_is_passed_over_and_said(folder):
    collection = opened(folder)
    change(collection, 1, "A dog.")
    change(collection, 0, "A blue cat.")
    picture(folder / "a.jpg")
    collection.load()
    with pytest.raises(BadImage, match=r"a\.jpg lies beside a\.png.*passed over"):
        collection.undo()
    assert collection.undo() == 1 and not (folder / "b.txt").exists()


def test_an_edit_is_undone_when_the_disk_can_be_written_to_again(folder, monkeypatch):
    collection = opened(folder)
    change(collection, 0, "A blue cat.")
    with monkeypatch.context() as full:
        full.setattr(files, "write", raises(OSError(28, "No space left on device")))
        with pytest.raises(BadImage, match="No space left"):
            collection.undo()
    assert collection.undo() == 0 and (folder / "a.txt").read_text() == "A red cat.\n"


def raises(error):
    def call(*args, **kwargs):
        raise error

    return call
