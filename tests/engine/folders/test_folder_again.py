"""Runs that are given again: after an end, an edit or a failure, in other shards, on other ways."""

from __future__ import annotations

import errno
import os
import re

import pytest
from caption_folders import Told, job, kohya, names, picture, run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.folders import (
    Shard,
    Sizes,
    caption_folder,
    files,
    journals,
    model_of,
    tables,
)
from qwen_vl_suite.qwenvl.folders.state import State
from qwen_vl_suite.qwenvl.types import LocalSpec, ServerSpec

REFUSAL = "I'm sorry, but I can't help with that."


class Stop(BaseException):
    pass


class Ending(Told):
    """Ends the run behind so many captions."""

    def __init__(self, after: int):
        super().__init__()
        self._after = after

    def captioned(self, item, caption):
        super().captioned(item, caption)
        if len(self.captions) == self._after:
            raise Stop


def broken_off(word, folder, after=2, **fields):
    with pytest.raises(Stop):
        caption_folder(ScriptedBackend(word), job(folder, **fields), Ending(after))


@pytest.fixture
def folder(tmp_path):
    for number in range(8):
        picture(tmp_path / f"{number}.png")
    return tmp_path


@pytest.mark.parametrize("existing", ["skip", "overwrite"])
@pytest.mark.parametrize("is_killed", [False, True])
def test_what_was_done_to_a_table_since_stays(folder, monkeypatch, existing, is_killed):
    table = folder / "captions.csv"
    if existing == "overwrite":
        rows = "".join(f"{number}.png,old\n" for number in range(3))
        table.write_text(f"file_name,text\n{rows}")
    fields = {"trainer": "csv", "existing": existing}
    with monkeypatch.context() as patched:
        if is_killed:
            patched.setattr(tables.TableStore, "close", lambda self: self._journal.close())
        broken_off("first", folder, **fields)
    assert ("first" in table.read_text() if table.exists() else False) is not is_killed
    table.write_text("file_name,text\n0.png,mine\n")  # the others are taken away
    run(ScriptedBackend("second"), folder, trainer="csv")
    found = dict(line.split(",") for line in table.read_text().splitlines()[1:])
    assert found.pop("0.png") == "mine" and len(found) == 7
    if not (is_killed and existing == "skip"):  # then nobody has seen the row that is taken away
        assert set(found.values()) == {"second"}


def test_an_overwriting_run_goes_on_and_leaves_what_was_changed_since(folder):
    fields = {"trainer": "csv", "existing": "overwrite", "sizes": Sizes(1, 1)}
    broken_off("first", folder, after=3, **fields)
    table = folder / "captions.csv"
    text = table.read_text().replace("0.png,first", "0.png,mine")
    table.write_text(text.replace("2.png,first\n", ""))
    summary, _ = run(ScriptedBackend("second"), folder, **fields)
    assert summary.captioned == 6
    assert table.read_text().splitlines()[1:4] == ["0.png,mine", "1.png,first", "2.png,second"]


def test_a_run_goes_on_with_other_shards(folder):
    for number in range(8):
        (folder / f"{number}.txt").write_text("base\n")
    fields = {"existing": "append"}
    broken_off("x", folder, after=1, shard=Shard(1, 2), **fields)
    broken_off("x", folder, after=1, shard=Shard(2, 3), **fields)
    summary, _ = run(ScriptedBackend("x"), folder, shard=Shard(2, 2), **fields)
    assert summary.found == 4  # and the next begins anew with these
    run(ScriptedBackend("x"), folder, shard=Shard(1, 2), **fields)
    assert {kohya(folder / f"{number}.png") for number in range(8)} == {"base, x"}
    assert not list((folder / ".qwenvl-captions").glob("*.journal"))


def test_old_journals_of_other_shards_are_not_merged_over_newer_rows(folder, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(tables.TableStore, "close", lambda self: self._journal.close())
        broken_off("old", folder, trainer="csv", shard=Shard(1, 2))
    run(ScriptedBackend("new"), folder, trainer="csv", existing="overwrite")
    run(ScriptedBackend("third"), folder, trainer="csv", shard=Shard(1, 2))
    words = [line.split(",")[1] for line in (folder / "captions.csv").read_text().splitlines()[1:]]
    assert words == ["new"] * 8


def test_a_model_is_the_same_wherever_it_answers():
    one = model_of(ServerSpec(("http://127.0.0.1:8000/v1",), "m", concurrency=8))
    assert one == model_of(ServerSpec(("https://other.example/v1",), "m", concurrency=1))
    assert one != model_of(ServerSpec(("http://127.0.0.1:8000/v1",), "n"))
    assert model_of(LocalSpec("a/b", device="cuda:1")) == model_of(LocalSpec("a/b", device="cpu"))
    assert model_of(LocalSpec("a/b")) != model_of(LocalSpec("a/b", quantization="4bit"))


@pytest.mark.parametrize(
    ("trainer", "existing"), [("kohya", "overwrite"), ("kohya", "append"), ("csv", "overwrite")]
)
def test_after_failures_only_those_are_asked_about_again(tmp_path, trainer, existing):
    for name, colour in {"a": "black", "b": "red", "c": "red"}.items():
        picture(tmp_path / f"{name}.png", colour).with_suffix(".txt").write_text("base\n")
    fields = {"trainer": trainer, "existing": existing}

    def reply(request):
        return "x" if request.images[0][0, 0, 0] else REFUSAL

    assert run(ScriptedBackend(reply), tmp_path, **fields)[0].failed == 1
    again = ScriptedBackend("x")
    summary, _ = run(again, tmp_path, **fields)
    assert len(again.requests) == 1 and summary.skipped == 2
    if trainer == "kohya":
        wanted = "base, x" if existing == "append" else "x"
        assert {kohya(tmp_path / f"{name}.png") for name in "abc"} == {wanted}
    anew = ScriptedBackend("x")
    run(anew, tmp_path, **fields)
    assert len(anew.requests) == 3  # nothing failed, so that it begins anew


def test_a_caption_that_is_taken_away_is_written_anew(folder):
    fields = {"existing": "overwrite", "sizes": Sizes(1, 1)}
    broken_off("first", folder, **fields)
    (folder / "0.txt").unlink()
    assert run(ScriptedBackend("second"), folder, **fields)[0].captioned == 7
    assert kohya(folder / "0.png") == "second" and kohya(folder / "1.png") == "first"


def test_a_journal_line_that_a_full_disk_cuts_costs_no_other(folder, monkeypatch):
    write, calls = os.write, iter(range(100))

    def cutting(file, data):
        if next(calls) == 0:
            write(file, bytes(data)[:20])
            raise OSError(5, "Input/output error")
        return write(file, data)

    with monkeypatch.context() as patched:
        patched.setattr(journals.os, "write", cutting)
        summary, told = run(ScriptedBackend("x"), folder, trainer="csv")
    assert list(told.failures) == ["0.png"] and summary.captioned == 7
    assert len((folder / "captions.csv").read_text().splitlines()) == 8


@pytest.mark.parametrize("trainer", ["kohya", "csv"])
def test_links_in_the_place_of_partial_files_are_not_written_through(tmp_path, trainer):
    root, outside = tmp_path / "in", tmp_path / "out"
    outside.mkdir()
    picture(root / "a.png")
    for name in (".a.txt.qwenvl-part", ".captions.csv.qwenvl-part"):
        (root / name).symlink_to(outside / name)
    run(ScriptedBackend("new"), root, trainer=trainer, within=root.resolve())
    assert os.listdir(outside) == [] and not (root / "a.txt").is_symlink()


def test_no_link_leads_backups_or_journals_out(tmp_path):
    root, outside = tmp_path / "in", tmp_path / "out"
    outside.mkdir()
    picture(root / "sub" / "a.png").with_suffix(".txt").write_text("old")
    fields = {"existing": "overwrite", "within": root.resolve()}
    kept = root / ".qwenvl-captions" / "backup"
    kept.parent.mkdir()
    kept.symlink_to(outside)
    with pytest.raises(BadOption, match="backup is a link that leads out"):
        run(ScriptedBackend("new"), root, **fields)
    state = State(root, Shard(), root.resolve())
    with pytest.raises(BadOption, match="backup is a link that leads out"), state.merging():
        raise AssertionError("a table may be written")
    kept.unlink()
    kept.mkdir()
    (kept / "sub").symlink_to(outside)
    _, told = run(ScriptedBackend("new"), root, **fields)
    assert "leads out" in told.failures["sub/a.png"] and os.listdir(outside) == []
    assert (root / "sub" / "a.txt").read_text() == "old"


def test_folders_inside_one_another_are_locked_against_each_other(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "sub" / "b.png")
    inner, outer = State(tmp_path / "sub", Shard(1, 2)), State(tmp_path, Shard(2, 3))
    inner.acquire()
    _, told = run(ScriptedBackend("x"), tmp_path)
    assert "Another run" in told.failures["sub"] and names(tmp_path / "sub") == ["b.png"]
    inner.release()
    outer.acquire()
    with pytest.raises(BadOption, match=f"captioning {re.escape(str(tmp_path))}, which"):
        run(ScriptedBackend("x"), tmp_path / "sub")
    outer.release()
    assert run(ScriptedBackend("x"), tmp_path)[0].captioned == 1
    assert run(ScriptedBackend("x"), tmp_path / "sub")[0].skipped == 1


def test_a_run_that_comes_in_by_a_link_is_locked_out(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    picture(one / "own" / "a.png")
    picture(other / "sub" / "b.png")
    (one / "link").symlink_to(other / "sub")
    (one / "z").symlink_to(one / "own")  # its own lock holds nothing up
    held = State(other, Shard())
    held.acquire()
    summary, told = run(ScriptedBackend("x"), one)
    held.release()
    assert list(told.failures) == ["link"] and "Another run" in told.failures["link"]
    assert summary.captioned == 1 and names(other) == ["sub/b.png"]


def test_what_a_later_run_captions_is_on_no_list_of_failures(tmp_path):
    for number in range(8):
        picture(tmp_path / f"{number}.png")
    for number in (1, 2):
        run(ScriptedBackend(REFUSAL), tmp_path, shard=Shard(number, 2))
    lists = tmp_path / ".qwenvl-captions"
    run(ScriptedBackend("x"), tmp_path, shard=Shard(1, 2))
    assert [path.name for path in lists.glob("*.failed")] == ["2-of-2.failed"]
    run(ScriptedBackend("x"), tmp_path)
    assert not list(lists.glob("*.failed"))


@pytest.mark.parametrize("trainer", ["kohya", "diffusers"])
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EPERM])
def test_on_a_disk_without_locks_a_run_warns_and_writes(
    tmp_path, monkeypatch, caplog, trainer, number
):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    picture(tmp_path / "a.png")
    assert run(ScriptedBackend("x"), tmp_path, trainer=trainer)[0].captioned == 1
    assert names(tmp_path) == ["a.png", {"kohya": "a.txt"}.get(trainer, "metadata.jsonl")]
    assert caplog.text.count("has no locks") == 1


def test_a_file_that_another_process_writes_meanwhile_is_left_to_it(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(OSError, match="Another program"), files.replacing(path) as file:
        file.write(b"half")
        files.partial_name(path).unlink()
        files.partial_name(path).write_bytes(b"the other's")
    assert not path.exists() and files.partial_name(path).read_bytes() == b"the other's"
