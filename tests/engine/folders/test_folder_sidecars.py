"""Sidecars: written as each trainer reads them, over what is there, and again after a crash."""

from __future__ import annotations

import os

import pytest
from caption_folders import ai_toolkit, kohya, names, onetrainer, picture, run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption, QwenVLError
from qwen_vl_suite.qwenvl.folders import Sizes, files, trainer, trainers

ODD = "\ufeffA cat,\n\n  two\tdogs \x00 and\u2028a \x1b[31mbi\x9b\x80rd\r\n\u0085{x|y}  \ud800é 猫"
LINE = "A cat, two dogs and a [31mbi rd {x|y} \ufffdé 猫"


@pytest.mark.parametrize("name", [name for name, one in trainers().items() if one.has_sidecars])
def test_sidecars_are_one_line_of_utf_8_without_a_mark(name):
    assert trainer(name).caption(ODD) == LINE
    assert trainer(name).caption(" \n\x00\ufeff ") == ""


@pytest.mark.parametrize("name", ["kohya", "onetrainer", "ai-toolkit", "musubi"])
def test_trainers_read_what_was_written(tmp_path, name):
    path = picture(tmp_path / "5_ohwx cat" / "a.b.png")
    run(ScriptedBackend(ODD), tmp_path, trainer=name)
    assert path.with_name("a.b.txt").read_bytes().rstrip(b"\n") == LINE.encode()
    assert kohya(path) == LINE and onetrainer(path) == [LINE]
    assert name != "ai-toolkit" or ai_toolkit(path) == LINE


def test_an_extension_of_ones_own(tmp_path):
    path = picture(tmp_path / "a.png")
    run(ScriptedBackend("A cat"), tmp_path, trainer=trainer("ai-toolkit", ".caption"))
    assert ai_toolkit(path, "caption") == "A cat" and names(tmp_path) == ["a.caption", "a.png"]
    with pytest.raises(BadOption, match=r"'onetrainer' reads captions in \.txt files alone"):
        trainer("onetrainer", "caption")
    assert trainer("onetrainer", "txt").extension == ".txt"
    for bad in ("png", "MP4", "", "../x", "tar.webp"):
        with pytest.raises(BadOption):
            trainer("kohya").with_extension(bad)


def test_what_is_written_over_is_kept_once(tmp_path):
    path = picture(tmp_path / "sub" / "a.png").with_suffix(".txt")
    path.write_bytes("première\n".encode("cp1252"))  # not UTF-8, and kept as it is
    for word in ("second", "third"):
        run(ScriptedBackend(word), tmp_path, existing="overwrite")
        assert path.read_text() == f"{word}\n"
    (kept,) = (tmp_path / ".qwenvl-captions").rglob("*.bak")
    assert kept.read_bytes() == "première\n".encode("cp1252")
    assert not list((tmp_path / ".qwenvl-captions").glob("*.journal"))


def test_captions_go_behind_those_that_are_there(tmp_path):
    for name, old in {"a": "1girl, solo\n", "b": None, "c": b"caf\xe9"}.items():
        path = picture(tmp_path / f"{name}.png").with_suffix(".txt")
        if old:
            path.write_bytes(old if isinstance(old, bytes) else old.encode())
    summary, told = run(ScriptedBackend("smile"), tmp_path, existing="append")
    assert (
        kohya(tmp_path / "a.png") == "1girl, solo, smile" and kohya(tmp_path / "b.png") == "smile"
    )
    assert "cannot be read as UTF-8" in told.failures["c.png"] and summary.failed == 1
    assert (tmp_path / "c.txt").read_bytes() == b"caf\xe9"


def test_what_is_put_behind_several_lines_is_read(tmp_path):
    path = picture(tmp_path / "a.png")
    for name in ("kohya", "onetrainer", "ai-toolkit"):
        path.with_suffix(".txt").write_bytes(b"1girl,\r\n solo\r\n")
        run(ScriptedBackend("smile"), tmp_path, existing="append", trainer=name)
        if name == "onetrainer":
            assert onetrainer(path) == ["1girl,", "solo", "smile"]
        else:
            assert {"kohya": kohya, "ai-toolkit": ai_toolkit}[name](path) == "1girl, solo, smile"
    with pytest.raises(BadOption, match="behind which nothing can stand"):
        run(ScriptedBackend("smile"), tmp_path, existing="append", trainer="ideogram")


@pytest.mark.parametrize("existing", ["skip", "overwrite", "append"])
def test_what_is_in_the_way_of_a_caption_is_named(tmp_path, existing):
    for name in ("a", "b", "c"):
        picture(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "b.txt")  # nobody writes into it: to read it would last for ever
    else:
        (tmp_path / "b.txt").mkdir()
    summary, told = run(ScriptedBackend("x"), tmp_path, existing=existing)
    assert list(told.failures) == ["a.png", "b.png"] and summary.captioned == 1
    assert all("is in the way" in reason for reason in told.failures.values())


def test_names_as_long_as_a_disk_has_them(tmp_path):
    path = picture(tmp_path / f"{'n' * 251}.png").with_suffix(".txt")
    for word in ("first", "second"):
        summary, _ = run(ScriptedBackend(word), tmp_path, existing="overwrite")
        assert summary.captioned == 1 and path.read_text() == f"{word}\n"
    (kept,) = (tmp_path / ".qwenvl-captions").rglob("*.bak")
    assert kept.read_text() == "first\n"


def test_a_name_that_is_too_long_with_the_suffix_of_a_caption_is_an_error(tmp_path):
    picture(tmp_path / f"{'n' * 250}.png")
    backend = ScriptedBackend("x")
    summary, told = run(backend, tmp_path, trainer=trainer("kohya", "caption"))
    assert (summary.captioned, summary.skipped, summary.failed) == (0, 0, 1)
    assert "would be too long" in next(iter(told.failures.values())) and not backend.requests


class Stop(BaseException):
    pass


@pytest.mark.parametrize("existing", ["skip", "overwrite", "append"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_crash_at_any_write_costs_no_caption_and_doubles_none(
    tmp_path, monkeypatch, existing, moment
):
    """The process ends at the first replacement, then at the second one of the next run, ..."""
    for number in range(6):
        path = picture(tmp_path / f"{number}.png").with_suffix(".txt")
        if existing != "skip":
            path.write_text("old")
    replace, allowed, runs = os.replace, 0, 0
    left = [0]

    def ending(partial, path):
        if left[0] == 0 and moment == "before":
            raise Stop
        replace(partial, path)
        left[0] -= 1
        if left[0] < 0:
            raise Stop

    monkeypatch.setattr(os, "replace", ending)
    backend, is_done = ScriptedBackend("new"), False
    while not is_done:
        left[0] = allowed
        try:
            run(backend, tmp_path, existing=existing)
            is_done = True
        except Stop:
            allowed, runs = allowed + 1, runs + 1
    assert runs > 2
    wanted = "old, new" if existing == "append" else "new"
    assert [kohya(tmp_path / f"{number}.png") for number in range(6)] == [wanted] * 6
    assert all(name.endswith((".png", ".txt")) for name in names(tmp_path))
    for kept in (tmp_path / ".qwenvl-captions").rglob("*.bak"):
        assert kept.read_text() == "old"


def test_a_run_with_other_settings_does_not_go_on_with_one_that_was_broken_off(tmp_path):
    for name in "abc":
        picture(tmp_path / f"{name}.png").with_suffix(".txt").write_text("old")
    replies = iter(["first", Stop("ended")])

    def reply(request):
        found = next(replies)
        if isinstance(found, BaseException):
            raise found
        return found

    with pytest.raises(Stop):
        run(ScriptedBackend(reply), tmp_path, existing="overwrite", sizes=Sizes(1, 1))
    again = ScriptedBackend("other")
    run(again, tmp_path, existing="overwrite", model="another")
    assert len(again.requests) == 3
    assert {kohya(tmp_path / f"{name}.png") for name in "abc"} == {"other"}


def test_a_replacement_is_tried_again_while_windows_refuses_it(tmp_path, monkeypatch):
    refusals, replace = [1, 2], os.replace

    def busy(partial, path):
        if refusals:
            refusals.pop()
            raise PermissionError(13, "in use")
        replace(partial, path)

    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(files, "FIRST_WAIT", 0)
    files.write(tmp_path / "a.txt", b"new")
    assert (tmp_path / "a.txt").read_bytes() == b"new" and os.listdir(tmp_path) == ["a.txt"]
    refusals[:] = [1] * files.TRIES
    with pytest.raises(PermissionError):
        files.write(tmp_path / "a.txt", b"newer")
    assert (tmp_path / "a.txt").read_bytes() == b"new" and os.listdir(tmp_path) == ["a.txt"]


def test_a_full_disk_ends_the_run_and_one_folder_that_cannot_be_written_does_not(
    tmp_path, monkeypatch
):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png")
    (tmp_path / "a.txt").mkdir()  # no file can take its place
    (tmp_path / "a.txt" / "x").touch()
    summary, _ = run(ScriptedBackend("new"), tmp_path, existing="overwrite")
    assert summary.failed == 1 and kohya(tmp_path / "b.png") == "new"

    def full(*_args, **_kinds):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(QwenVLError, match=r"b\.png.*No space left"):
        run(ScriptedBackend("newer"), tmp_path, existing="overwrite", model="another")
