"""Captions under review: search, edits, undo and changes by others, in sidecars and tables."""

from __future__ import annotations

import json
import threading
from contextlib import nullcontext

import pytest
from caption_folders import job, jsonl, names, picture, run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption
from qwen_vl_suite.qwenvl.folders import trainer
from qwen_vl_suite.qwenvl.folders.tables import TableStore
from qwen_vl_suite.qwenvl.reviewing import Asker, Collection, Conflict
from qwen_vl_suite.qwenvl.reviewing import collection as collections
from qwen_vl_suite.qwenvl.reviewing.pictures import Thumbnails


@pytest.fixture
def folder(tmp_path):
    for name in ("a.png", "b.jpg", "10_cat/c.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "in" / "a.txt").write_text("A red cat.\n")
    (tmp_path / "in" / "10_cat" / "c.txt").write_text("Ein Straßenkater\n")
    return tmp_path / "in"


def opened(folder, name="kohya"):
    collection = Collection(folder, trainer(name))
    collection.load()
    return collection


def row(collection, index):
    return collection.rows([index])[0]


def change(collection, index, text):
    collection.edit(index, text, row(collection, index)["version"])


def test_search_looks_for_all_words_in_captions_and_names(folder):
    collection = opened(folder)
    assert [row(collection, index)["file"] for index in collection.find()] == [
        "a.png", "b.jpg", "10_cat/c.png",
    ]  # fmt: skip
    assert collection.find("CAT") == [0, 2] and collection.find("cat red") == [0]
    assert collection.find("STRASSENKATER") == [2] and collection.find("dog") == []
    assert collection.find(only="without") == [1] and collection.find("a", "captioned") == [0, 2]
    counts = collection.counts()
    assert (counts["total"], counts["captioned"], counts["listed"]) == (3, 2, True)
    with pytest.raises(BadOption, match="no filter 'some'"):
        collection.find(only="some")


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


def test_what_others_have_changed_is_noticed_and_not_written_over(folder):
    collection = opened(folder)
    seen = row(collection, 0)
    (folder / "a.txt").write_text("By another program.")
    with pytest.raises(Conflict) as conflict:
        collection.edit(0, "Mine.", seen["version"])
    assert conflict.value.index == 0 and (folder / "a.txt").read_text() == "By another program."
    assert row(collection, 0)["text"] == "By another program."
    change(collection, 0, "Mine.")
    (folder / "a.txt").write_text("By another program again.")
    with pytest.raises(Conflict):
        collection.undo()
    assert (folder / "a.txt").read_text() == "By another program again."
    assert collection.undo() is None
    (folder / "b.txt").write_text("New.")
    collection.refresh()
    assert collection.find("new") == [1]


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


def test_each_line_stays_a_caption_of_its_own_for_onetrainer(folder):
    (folder / "a.txt").write_text("One red cat.\nA cat, red.\n")
    collection = opened(folder, "onetrainer")
    change(collection, 0, row(collection, 0)["text"].replace("One ", "A \t") + "\r\n\n Cat. \r")
    assert (folder / "a.txt").read_text() == "A red cat.\nA cat, red.\nCat.\n"


def test_a_table_that_is_not_utf8_is_read_once_and_its_line_named(folder, monkeypatch):
    table, reads = folder / "captions.csv", []
    collection = opened(folder, "csv")
    of_store = TableStore.captions
    monkeypatch.setattr(TableStore, "captions", lambda self: reads.append(1) or of_store(self))
    table.write_bytes(b"file_name,text\n" + b"a.png,A cat.\n" * 2000 + b"b.jpg,caf\xe9\n")
    collection.refresh()
    problems = {row(collection, index)["problem"] for index in collection.find()}
    assert problems == {f"{table} is not in UTF-8: see line 2002. Save it as UTF-8."}
    assert len(reads) == 1
    with pytest.raises(BadOption, match="Save it as UTF-8"):
        change(collection, 0, "A dog.")
    table.write_text("file_name,text\na.png,A caf\u00e9.\n")
    collection.refresh()
    assert row(collection, 0)["text"] == "A caf\u00e9."


def test_links_out_of_the_folder_are_neither_shown_nor_written(folder, tmp_path):
    picture(tmp_path / "outside.png")
    (tmp_path / "secret.txt").write_text("Secret")
    (folder / "d.png").symlink_to(tmp_path / "outside.png")
    (folder / "b.txt").symlink_to(tmp_path / "secret.txt")
    collection = opened(folder)
    assert len(collection) == 3 and collection.counts()["outside"] == 1
    assert "link out of the folder" in row(collection, 1)["problem"]
    assert collection.find("secret") == []
    with pytest.raises(BadImage, match="link out of the folder"):
        collection.edit(1, "Mine", row(collection, 1)["version"])
    assert (tmp_path / "secret.txt").read_text() == "Secret"
    (folder / ".qwenvl-captions").symlink_to(tmp_path)
    with pytest.raises(BadOption, match="link out of the folder"):
        opened(folder)


def test_what_cannot_be_edited_says_why(folder):
    picture(folder / "a.jpg")
    (folder / "b.txt").write_bytes(b"\xff\xfe\xff")
    collection = opened(folder)
    by_name = {row(collection, index)["file"]: index for index in collection.find()}
    twin = row(collection, by_name["a.png"])
    assert "a.jpg lies beside it" in twin["problem"]
    with pytest.raises(BadImage, match=r"a\.jpg lies beside it"):
        collection.edit(by_name["a.png"], "Mine", "")
    assert "UTF-8" in row(collection, by_name["b.jpg"])["problem"]
    ideogram = opened(folder, "ideogram")
    with pytest.raises(BadImage, match="reads JSON"):
        change(ideogram, by_name["10_cat/c.png"], "no JSON")
    change(ideogram, by_name["10_cat/c.png"], json.dumps({"high_level_description": "A cat"}))


def shown(collection):
    return [one["file"] for one in collection.rows(collection.find())]


def test_what_comes_and_goes_meanwhile_is_found_in_order(folder):
    collection = opened(folder)
    picture(folder / "aa.png")
    (folder / "aa.txt").write_text("New.")
    picture(folder / "a.jpg")
    (folder / "b.jpg").unlink()
    collection.load()
    assert shown(collection) == ["a.jpg", "a.png", "aa.png", "10_cat/c.png"]
    assert collection.item(1).relative == "b.jpg"  # numbers stay as they are
    assert "a.jpg lies beside it" in row(collection, 0)["problem"]
    counts = collection.counts()
    assert (counts["total"], counts["captioned"], counts["listings"]) == (4, 3, 1)
    with pytest.raises(BadImage, match=r"b\.jpg is gone"):
        change(collection, 1, "A dog.")
    picture(folder / "b.jpg")
    (folder / "a.jpg").unlink()
    collection.load()
    change(collection, 1, "A dog.")
    assert shown(collection) == ["a.png", "aa.png", "b.jpg", "10_cat/c.png"]
    assert row(collection, 0)["text"] == "A red cat."
    counts = collection.counts()
    collection.load()
    assert counts["captioned"] == 4 and collection.counts() == counts


def test_no_caption_is_written_again_for_a_picture_that_is_gone(folder):
    collection = opened(folder)
    change(collection, 1, "A dog.")
    collection.undo()
    (folder / "b.jpg").unlink()
    collection.load()
    with pytest.raises(BadImage, match=r"b\.jpg is gone"):
        collection.redo()
    assert not (folder / "b.txt").exists() and collection.redo() is None


def test_a_page_that_is_loaded_again_has_new_pictures_looked_for(folder, monkeypatch):
    monkeypatch.setattr(collections, "PAUSE", 3600)
    collection, listed = Collection(folder, trainer()), threading.Event()
    monkeypatch.setattr(collection, "refresh", listed.set)
    collection.start()
    assert listed.wait(20)
    picture(folder / "new.png")
    listed.clear()
    collection.look_soon()
    assert listed.wait(20) and "new.png" in shown(collection)
    collection.close()


def test_failures_of_the_last_run_are_found(folder):
    (folder / "broken.png").write_bytes(b"no picture")
    run(ScriptedBackend(["I'm sorry, but I can't help with that."]), folder)
    collection = opened(folder)
    failed = {row(collection, index)["file"]: row(collection, index)["failure"]
              for index in collection.find(only="failed")}  # fmt: skip
    assert set(failed) == {"b.jpg", "broken.png"} and "refused" in failed["b.jpg"]
    run(ScriptedBackend(["A dog."]), folder)
    collection.refresh()
    assert [row(collection, index)["file"] for index in collection.find(only="failed")] == [
        "broken.png"
    ]
    assert collection.find("dog") == [1]


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


def test_thumbnails_are_kept_within_their_bound(folder):
    collection, thumbnails = opened(folder), Thumbnails(max_bytes=1500)
    for index in range(3):
        made = thumbnails.get(collection.item(index))
        assert made.startswith(b"\xff\xd8") and thumbnails.nbytes <= 1500
    assert thumbnails.get(collection.item(2)) is made
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadImage):
        thumbnails.get(collection.item(0))
