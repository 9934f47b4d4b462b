"""What ``load_dataset`` makes of a folder whose captions stand in metadata.jsonl."""

from __future__ import annotations

import pytest
from caption_folders import picture, run
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.errors import BadOption


def notes(folder, trainer="diffusers"):
    return run(ScriptedBackend("new"), folder, trainer=trainer)[0].notes


@pytest.mark.parametrize(
    "name", ["10_train/a.png", "steam train.png", "my_test.png", "val/deep/a.png", "eval-1.png"]
)
def test_words_that_part_a_dataset_are_told(tmp_path, name):
    """As datasets 5.2 was seen to part folders with such names."""
    picture(tmp_path / "c.png")
    picture(tmp_path / name)
    (note,) = notes(tmp_path)
    assert note.startswith(f'"{name}" has the word') and 'Give it data_files="**"' in note
    assert notes(tmp_path, "csv") == []


def test_words_that_only_hold_such_a_word_part_nothing(tmp_path):
    for name in ("trains/a.png", "atest.png", "Test.png", "evaluate.png"):
        picture(tmp_path / name)
    assert notes(tmp_path) == []


def test_a_table_of_another_kind_is_refused_before_anything_is_asked(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,Old\n")
    backend = ScriptedBackend("new")
    with pytest.raises(BadOption, match=r"metadata\.csv lies beside metadata\.jsonl"):
        run(backend, tmp_path, trainer="diffusers")
    assert not backend.requests and not (tmp_path / "metadata.jsonl").exists()
    assert run(backend, tmp_path, trainer="csv")[0].captioned == 1


def test_a_table_below_is_told(tmp_path):
    picture(tmp_path / "sub" / "deep" / "a.png")
    run(ScriptedBackend("x"), tmp_path / "sub", trainer="diffusers")
    (note,) = notes(tmp_path)
    assert note.startswith('"sub/metadata.jsonl" is read by load_dataset, too')


@pytest.mark.parametrize("trainer", ["diffusers", "musubi-jsonl", "csv"])
def test_rows_of_files_that_are_gone_are_counted(tmp_path, trainer):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    assert notes(tmp_path, trainer) == []
    for name in "bc":
        (tmp_path / f"{name}.png").unlink()
    (note,) = notes(tmp_path, trainer)
    assert 'has rows of files that are gone (2), such as "b.png"' in note
    table = next(path for path in tmp_path.iterdir() if path.suffix in (".jsonl", ".csv"))
    assert "b.png" in table.read_text()  # whose they are is not known here
