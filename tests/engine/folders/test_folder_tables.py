"""Tables of captions, their journals, shards and locks."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import videos
from caption_folders import job, jsonl, names, picture, run
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.folders import Shard, Sizes, tables
from qwen_vl_suite.qwenvl.folders.journals import Journal, Keys
from qwen_vl_suite.qwenvl.folders.state import State

TABLES = ("diffusers", "musubi-jsonl", "csv")


class Stop(BaseException):
    pass


def rows(folder, trainer):
    """Relative paths and captions, as the trainer reads them."""
    if trainer == "csv":
        with open(folder / "captions.csv", encoding="utf-8", newline="") as file:
            return [(row["file_name"], row["text"]) for row in csv.DictReader(file)]
    if trainer == "diffusers":
        return [(row["file_name"], row["text"]) for row in jsonl(folder / "metadata.jsonl")]
    found = []
    for row in jsonl(folder / "images.jsonl"):
        assert row["image_path"].startswith(f"{folder}/")  # read from any folder
        found.append((row["image_path"].removeprefix(f"{folder}/"), row["caption"]))
    return found


@pytest.mark.parametrize("trainer", TABLES)
def test_trainers_read_each_pictures_row(tmp_path, trainer):
    for name in ("a, b.png", "10_cat/é.jpg", "10_cat/a.png"):
        picture(tmp_path / name)
    run(ScriptedBackend('Say "hi",\n\nor not.'), tmp_path, trainer=trainer)
    text = 'Say "hi", or not.'  # the style is of one line
    assert rows(tmp_path, trainer) == [
        (name, text) for name in ("a, b.png", "10_cat/a.png", "10_cat/é.jpg")
    ]
    raw = next(path for path in tmp_path.iterdir() if path.suffix in (".jsonl", ".csv"))
    assert not raw.read_bytes().startswith(b"\xef\xbb\xbf") and b"\r" not in raw.read_bytes()


def test_clips_have_a_table_of_their_own_where_the_trainer_wants_it(tmp_path):
    picture(tmp_path / "a.png")
    videos.write(tmp_path / "b.mp4", frames=8, rate=4)
    summary, _ = run(ScriptedBackend("new"), tmp_path, trainer="musubi-jsonl")
    assert summary.captioned == 2
    assert jsonl(tmp_path / "videos.jsonl") == [
        {"video_path": str(tmp_path / "b.mp4"), "caption": "new"}
    ]
    assert [name for name, _ in rows(tmp_path, "musubi-jsonl")] == ["a.png"]


@pytest.mark.parametrize("trainer", TABLES)
def test_rows_that_are_there_stay_and_are_written_over_only_if_asked(tmp_path, trainer):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    if trainer == "csv":
        (tmp_path / "captions.csv").write_text(
            "\ufefffile_name,score,text\nb.png,7,mine\nzip/x.png,8,other\n", encoding="utf-8"
        )
    elif trainer == "diffusers":
        (tmp_path / "metadata.jsonl").write_text(
            '{"file_name": "./b.png", "score": 7, "text": "mine"}\nnot json\n'
        )
    else:
        row = {"image_path": str(tmp_path / "b.png"), "score": 7, "caption": "mine"}
        (tmp_path / "images.jsonl").write_text(json.dumps(row) + "\n")
    summary, _ = run(ScriptedBackend("new"), tmp_path, trainer=trainer)
    assert summary.skipped == 1 and summary.captioned == 2
    table = next(path for path in tmp_path.iterdir() if path.suffix in (".jsonl", ".csv"))
    assert "mine" in table.read_text() and table.read_text().count("new") == 2
    summary, _ = run(ScriptedBackend("newer"), tmp_path, trainer=trainer, existing="overwrite")
    text = table.read_text()
    assert text.count("newer") == 3 and "mine" not in text and "7" in text
    assert text.index("b.png") < text.index("a.png")  # where it was
    if trainer == "csv":
        assert "zip/x.png,8,other" in text
    if trainer == "diffusers":
        assert "not json\n" in text
    with pytest.raises(BadOption, match="nothing can be appended"):
        run(ScriptedBackend("x"), tmp_path, trainer=trainer, existing="append")


def test_a_csv_without_the_columns_is_refused_and_left_as_it_is(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("name,words\na.png,x\n")
    with pytest.raises(BadOption, match="no column 'file_name'"):
        run(ScriptedBackend("new"), tmp_path, trainer="csv")
    assert (tmp_path / "captions.csv").read_text() == "name,words\na.png,x\n"


def test_what_a_spreadsheet_has_made_of_a_csv_stays(tmp_path):
    picture(tmp_path / "a.png")
    odd = "\ufefffile_name,text,note\r\nz.png,t,n,more\r\n".encode()
    (tmp_path / "captions.csv").write_bytes(odd)
    run(ScriptedBackend("new"), tmp_path, trainer="csv")
    assert (tmp_path / "captions.csv").read_bytes() == odd + b"a.png,new,\r\n"


def test_a_very_long_caption_costs_no_table(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text(f"file_name,text\na.png,{'x' * 200_000}\n")
    picture(tmp_path / "b.png")
    summary, _ = run(ScriptedBackend("new"), tmp_path, trainer="csv")
    assert (summary.captioned, summary.skipped) == (1, 1)
    assert len(rows(tmp_path, "csv")) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_carriage_return_in_a_name_ends_no_row(tmp_path):
    picture(tmp_path / "a\rb.png")
    for trainer in ("csv", "diffusers"):
        for word in ("new", "newer"):
            run(ScriptedBackend(word), tmp_path, trainer=trainer, existing="overwrite")
            assert rows(tmp_path, trainer) == [("a\rb.png", word)]


def test_a_folder_by_another_name_has_the_same_rows(tmp_path):
    picture(tmp_path / "set" / "sub" / "a.png")
    (tmp_path / "alias").symlink_to(tmp_path / "set")
    run(ScriptedBackend("old"), tmp_path / "alias", trainer="musubi-jsonl")
    summary, _ = run(ScriptedBackend("new"), tmp_path / "set", trainer="musubi-jsonl")
    assert summary.skipped == 1 and len(jsonl(tmp_path / "set" / "images.jsonl")) == 1


def test_a_path_that_another_program_joined_with_one_slash_more_is_the_same(tmp_path):
    picture(tmp_path / "a.png")
    row = {"image_path": f"{tmp_path}//a.png", "caption": "old"}
    (tmp_path / "images.jsonl").write_text(f"{json.dumps(row)}\n")
    summary, _ = run(ScriptedBackend("new"), tmp_path, trainer="musubi-jsonl")
    assert summary.skipped == 1 and jsonl(tmp_path / "images.jsonl") == [row]


def test_what_is_in_a_table_is_refined(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "1girl, hat"}\n')
    backend = ScriptedBackend("1girl, cap")
    run(backend, tmp_path, trainer="diffusers", existing="overwrite", words={"refine": True})
    assert "1girl, hat" in backend.requests[0].prompt
    assert rows(tmp_path, "diffusers") == [("a.png", "1girl, cap")]


@pytest.mark.parametrize("existing", ["skip", "overwrite"])
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_run_that_ends_early_is_gone_on_with(tmp_path, monkeypatch, existing, is_killed):
    for name in "abcd":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "b.png", "text": "old"}\n')
    count = iter(range(100))

    def reply(request):
        if (number := next(count)) == 2:
            raise Stop
        return f"caption {number}"

    fields = {"trainer": "diffusers", "existing": existing, "sizes": Sizes(1, 1)}
    with monkeypatch.context() as patched:
        if is_killed:  # nothing is done behind the last caption
            patched.setattr(tables.TableStore, "close", lambda self: self._journal.close())
        with pytest.raises(Stop):
            run(ScriptedBackend(reply), tmp_path, **fields)
    if is_killed:
        (journal,) = (tmp_path / ".qwenvl-captions").glob("*.journal")
        with journal.open("ab") as file:
            file.write(b'{"file": "c.png", "clip": fal')  # the line that it was in
    summary, _ = run(ScriptedBackend(reply), tmp_path, **fields)
    found = rows(tmp_path, "diffusers")
    assert sorted(name for name, _ in found) == [f"{name}.png" for name in "abcd"]
    assert len({text for _, text in found}) == 4 and summary.failed == 0
    assert next(count) == (4 if existing == "skip" else 5)  # one was asked twice
    assert not list((tmp_path / ".qwenvl-captions").glob("*.journal"))


def test_shards_write_one_table_between_them(tmp_path):
    for number in range(12):
        picture(tmp_path / f"{number}.png")
    for number in (1, 2, 3):
        summary, _ = run(
            ScriptedBackend(f"by {number}"), tmp_path, trainer="diffusers", shard=Shard(number, 3)
        )
        assert 0 < summary.found < 12
    found = rows(tmp_path, "diffusers")
    assert len(found) == 12 == len({name for name, _ in found})
    assert {text for _, text in found} == {"by 1", "by 2", "by 3"}


@settings(max_examples=25)
@given(st.lists(st.tuples(st.text(min_size=1), st.text()), max_size=6), st.binary(max_size=12))
def test_a_journal_gives_back_its_whole_lines(tmp_path_factory, lines, torn):
    path = tmp_path_factory.mktemp("journal") / "x.journal"
    torn = torn.replace(b"\n", b"")
    journal = Journal(path)
    for file, text in lines:
        journal.add(file=file, text=text)
    journal.close()
    with path.open("ab") as file:
        file.write(torn)
    again = Journal(path)
    again.add(file="next", text="")
    again.close()
    found = [(row["file"], row["text"]) for row in Journal(path).rows()]
    assert found == [*lines, ("next", "")]


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 99)), max_size=8))
@settings(max_examples=25)
def test_keys_are_a_mapping(pairs):
    keys, wanted = Keys(pairs), dict(pairs)
    assert {key: keys.find(key) for key, _ in pairs} == wanted
    assert 5 in wanted or 5 not in keys


HOLD = """
import sys
import filelock
held = filelock.FileLock(sys.argv[1])
held.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_two_runs_do_not_share_files_and_a_dead_one_holds_nothing(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / ".qwenvl-captions").mkdir()
    lock = tmp_path / ".qwenvl-captions" / "1-of-2.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as other:  # fmt: skip
        assert other.stdout.readline() == "held\n"
        for shard in (Shard(1, 1), Shard(1, 2), Shard(1, 3)):
            with pytest.raises(BadOption, match=r"Another run .*shard 1/2"):
                run(ScriptedBackend("new"), tmp_path, shard=shard)
        run(ScriptedBackend("new"), tmp_path, shard=Shard(2, 2))
        other.kill()
    summary, _ = run(ScriptedBackend("new"), tmp_path)
    assert summary.found == 1 and (tmp_path / "a.txt").exists()


def test_a_look_at_a_lock_is_not_taken_for_a_run(tmp_path):
    """As others take that start at the same time; they hold it for an instant."""
    state = State(tmp_path, Shard(1, 2))
    state.acquire()
    state.release()
    looking = FileLock(tmp_path / ".qwenvl-captions" / "1-of-2.lock", thread_local=False)
    looking.acquire()
    threading.Timer(0.05, looking.release).start()
    state.acquire()
    state.release()


def test_locks_are_given_back_whatever_happens(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(BadOption):
        run(ScriptedBackend("x"), tmp_path, words={"fields": {"thinking": True}})
    state = State(job(tmp_path).folder, Shard())
    state.acquire()
    with pytest.raises(BadOption, match="Another run"):
        run(ScriptedBackend("x"), tmp_path)
    state.release()
    run(ScriptedBackend("x"), tmp_path)
    hidden = [path.name for path in (tmp_path / ".qwenvl-captions").rglob("*")]
    assert all(name.endswith((".lock", ".journal", ".bak")) for name in hidden)
    assert names(tmp_path) == ["a.png", "a.txt"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="runs are forked")
def test_runs_that_are_killed_lose_nothing_and_double_nothing():
    script = Path(__file__).with_name("kill_runs.py")
    found = subprocess.run(
        [sys.executable, script, "--pictures", "24", "--kills", "4"], capture_output=True, text=True
    )
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("each captioned once") == 4
