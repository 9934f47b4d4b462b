"""Listing of folders: what is found, in which order, once."""

from __future__ import annotations

import os
import pathlib
import tracemalloc
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.folders import Item, Shard, listing
from qwen_vl_suite.qwenvl.folders import listing as listing_function
from qwen_vl_suite.qwenvl.folders.listing import key_of

listing_module = __import__(listing_function.__module__, fromlist=["listing"])


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(folder, on_error=None):
    return [item.relative for item in listing(folder, on_error)]


def test_pictures_and_clips_are_found_and_all_else_is_passed_over(tmp_path):
    touch(
        tmp_path, "b.PNG", "a.jpeg", "notes.txt", "10_cat/x.WebP", "10_cat/x-masklabel.png",
        "y-condlabel.PNG", "clip.MP4", ".hidden.png", ".git/x.png", "._a.jpg", "z/__MACOSX/x.png",
        "z/@eaDir/x.jpg", "z/w.avif", "noext", "model.safetensors", "sub.png/inside.tiff",
    )  # fmt: skip
    assert found(tmp_path) == [
        "a.jpeg", "b.PNG", "clip.MP4", "10_cat/x.WebP", "sub.png/inside.tiff", "z/w.avif",
    ]  # fmt: skip
    assert [item.is_clip for item in listing(tmp_path)][2] is True
    (cat,) = [item for item in listing(tmp_path) if item.relative.startswith("10_cat")]
    assert cat.folder == "cat" and cat.path == tmp_path / "10_cat" / "x.WebP"


@pytest.mark.parametrize("most_sorted", [100_000, 0])
def test_of_twins_the_first_name_has_the_sidecar(tmp_path, monkeypatch, most_sorted):
    monkeypatch.setattr(listing_module, "SORTED", most_sorted)
    touch(tmp_path, "a.png", "a.jpg", "a.mp4", "b.png", "b.c.png", "sub/a.png", "a-masklabel.png")
    assert {item.relative: item.twin for item in listing(tmp_path)} == {
        "a.jpg": "", "a.mp4": "a.jpg", "a.png": "a.jpg", "b.png": "", "b.c.png": "",
        "sub/a.png": "",
    }  # fmt: skip


def test_no_clip_takes_the_caption_of_a_picture(tmp_path):
    touch(tmp_path, "a.avi", "a.jpg", "IMG_1.MOV", "IMG_1.PNG")
    twins = {item.relative: item.twin for item in listing(tmp_path)}
    assert twins == {"a.avi": "a.jpg", "a.jpg": "", "IMG_1.MOV": "IMG_1.PNG", "IMG_1.PNG": ""}


def test_of_folders_whose_names_differ_in_their_form_alone_the_first_is_gone_into(tmp_path):
    forms = [unicodedata.normalize(form, "caf\u00e9") for form in ("NFD", "NFC")]
    touch(tmp_path, *(f"{form}/{number}.png" for number, form in enumerate(forms)))
    if len(os.listdir(tmp_path)) < 2:
        pytest.skip("one folder on this system")
    told = []
    assert found(tmp_path, lambda *one: told.append(one)) == [f"{forms[0]}/0.png"]
    ((folder, why),) = told
    assert folder == forms[1] and why.startswith(f"{forms[0]} lies beside it")


def test_the_folder_that_one_stands_in_has_its_name(tmp_path, monkeypatch):
    touch(tmp_path, "10_cat/a.png", "10_cat/sub/b.png")
    for place, root in (("10_cat", "."), ("10_cat/sub", "..")):
        monkeypatch.chdir(tmp_path / place)
        first = next(listing(pathlib.Path(root)))
        assert (first.relative, first.folder) == ("a.png", "cat")


def test_twins_are_told_as_systems_see_them_that_tell_no_case_apart(tmp_path):
    names = [
        "A.png",
        "a.jpg",
        *(unicodedata.normalize(f, "\u00e9") + ".png" for f in ("NFD", "NFC")),
    ]
    touch(tmp_path, *names)
    if len(found(tmp_path)) < 4:
        pytest.skip("this file system tells them apart no more")
    items = {item.relative: item for item in listing(tmp_path)}
    assert [items[name].twin for name in names] == ["", "A.png", "", names[2]]
    assert [items[name].double for name in names] == ["", "", "", names[2]]


def test_links_lead_to_no_folder_twice(tmp_path):
    touch(tmp_path, "in/a.png", "out/b.png")
    root = tmp_path / "in"
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "other").symlink_to(tmp_path / "out", target_is_directory=True)
    (root / "again").symlink_to(tmp_path / "out", target_is_directory=True)
    (tmp_path / "out" / "back").symlink_to(root, target_is_directory=True)
    assert found(root) == ["a.png", "again/b.png"]


def test_a_folder_that_cannot_be_read_is_told_and_the_others_are_gone_through(
    tmp_path, monkeypatch
):
    touch(tmp_path, "a/x.png", "b/x.png")
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("a"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    told = []
    assert found(tmp_path, lambda *one: told.append(one)) == ["b/x.png"]
    assert told == [("a", "This folder cannot be read: Permission denied.")]
    with pytest.raises(BadOption, match="is no folder"):
        next(listing(tmp_path / "nowhere"))


class Entry:
    def __init__(self, number):
        self.name = f"{number:07}.png"

    def is_dir(self):
        return False


class Many:
    """A folder of many files that is on no disk."""

    count = 0

    def __init__(self, path):
        pass

    def __enter__(self):
        return map(Entry, range(Many.count))

    def __exit__(self, *_):
        pass


def test_memory_is_flat_in_a_folder_of_very_many(tmp_path, monkeypatch):
    monkeypatch.setattr(listing_module, "SORTED", 100)
    monkeypatch.setattr(listing_module, "_PART", 100)
    monkeypatch.setattr(os, "scandir", Many)

    def peak(count):
        Many.count = count
        tracemalloc.start()
        try:
            assert sum(1 for _ in listing(tmp_path)) == count
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    few, many = peak(500), peak(3_500)
    assert (many - few) / 3_000 < 40  # bytes a file: 8 of its key, and what sorting them takes


NAMES = st.text(st.characters(blacklist_characters="/\0", blacklist_categories=["Cs"]), min_size=1)


@settings(max_examples=40)
@given(st.lists(NAMES, min_size=1, max_size=4).map("/".join), st.integers(1, 9))
def test_a_file_is_in_one_shard_whatever_the_system_calls_it(relative, count):
    owners = []
    for form in ("NFC", "NFD"):
        item = Item(None, unicodedata.normalize(form, relative))
        owners.append([n for n in range(1, count + 1) if Shard(n, count).has(item)])
    assert len(owners[0]) == 1 and owners[0] == owners[1]


def test_shards_are_the_same_for_ever_and_share_the_work():
    assert key_of("10_cat/a.png") == 17819924746347881316
    parts = [
        sum(Shard(n, 4).has(Item(None, f"{i}.png")) for i in range(4000)) for n in (1, 2, 3, 4)
    ]
    assert sum(parts) == 4000 and min(parts) > 900


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(BadOption, match="shard"):
        Shard.of(text)
