"""Captions under review: search, changes by others, failures, in sidecars and tables."""

from __future__ import annotations

import json
import threading

import pytest
from caption_folders import picture, run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption
from qwen_vl_suite.qwenvl.folders import trainer
from qwen_vl_suite.qwenvl.folders.tables import TableStore
from qwen_vl_suite.qwenvl.reviewing import Collection, Conflict
from qwen_vl_suite.qwenvl.reviewing import collection as collections
from qwen_vl_suite.qwenvl.reviewing.pictures import Thumbnails
from review_rows import change, opened, row


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
    assert "a.jpg lies beside a.png" in twin["problem"]
    with pytest.raises(BadImage, match=r"a\.jpg lies beside a\.png"):
        collection.edit(by_name["a.png"], "Mine", "")
    assert "UTF-8" in row(collection, by_name["b.jpg"])["problem"]
    ideogram = opened(folder, "ideogram")
    for text in ("no JSON", "5", '["A cat"]', "[" * 100_000):
        with pytest.raises(BadImage, match=r"reads (JSON|a JSON object)"):
            change(ideogram, by_name["10_cat/c.png"], text)
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
    assert "a.jpg lies beside a.png" in row(collection, 0)["problem"]
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


def test_a_failed_file_that_is_captioned_by_hand_has_not_failed_any_more(folder):
    refusal = "I'm sorry, but I can't help with that."
    run(ScriptedBackend([refusal]), folder)
    collection = opened(folder)
    collection.fail(0, "The model gave no answer.")
    change(collection, 1, "A dog.")
    collection.refresh()
    assert collection.find(only="failed") == [0]  # one that was asked again on the page
    assert opened(folder).find(only="failed") == []
    (folder / "b.txt").unlink()
    run(ScriptedBackend([refusal]), folder)
    collection.refresh()
    assert collection.find(only="failed") == [0, 1]


def test_thumbnails_are_kept_within_their_bound(folder):
    collection, thumbnails = opened(folder), Thumbnails(max_bytes=1500)
    for index in range(3):
        made = thumbnails.get(collection.item(index))
        assert made.startswith(b"\xff\xd8") and thumbnails.nbytes <= 1500
    assert thumbnails.get(collection.item(2)) is made
    (folder / "a.png").write_bytes(b"no picture")
    with pytest.raises(BadImage):
        thumbnails.get(collection.item(0))
