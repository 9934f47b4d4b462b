"""Model library: which models are offered, and how a name becomes a folder or a download."""

from __future__ import annotations

from pathlib import Path

import pytest
from disk import files, write
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.checkpoints.catalogue import CATALOGUE
from qwen_vl_suite.qwenvl.checkpoints.library import BUNDLED, Download, ModelLibrary
from qwen_vl_suite.qwenvl.errors import CheckpointNotFound, IncompleteCheckpoint
from qwen_vl_suite.qwenvl.families import FAMILIES

NAME = "Qwen3-VL-4B-Instruct"
REPO = f"Qwen/{NAME}"
SHARD = "model-00001-of-00002.safetensors"


def incomplete():
    return {file: content for file, content in files().items() if file != SHARD}


@pytest.fixture
def models(tmp_path):
    return ModelLibrary((tmp_path / "one", tmp_path / "two"), tmp_path / "one" / "new")


def test_choices_are_in_the_order_of_a_menu(models, tmp_path):
    write(tmp_path / "one" / "group" / "whole", files())
    write(tmp_path / "two" / "half", incomplete())
    write(tmp_path / "two" / "quants", {"model.gguf": b"GGUF"})
    write(tmp_path / "two" / NAME, files())
    offered = models.choices()
    assert offered[:5] == [
        "group/whole",
        NAME,
        "nano (bundled demo)",
        "half (incomplete)",
        "quants (cannot be loaded)",
    ]
    assert f"{REPO} (download, 8.9 GB)" not in offered
    assert f"{REPO}-FP8 (download, 5.2 GB)" in offered[5:]
    assert len(offered) == 4 + len(CATALOGUE)


def test_every_choice_can_be_located(models, tmp_path):
    write(tmp_path / "one" / "group" / "whole", files())
    write(tmp_path / "two" / "half", incomplete())
    for choice in models.choices():
        place = models.locate(choice)
        assert isinstance(place, Download) == ("(download" in choice)


@pytest.mark.parametrize(
    "choice",
    [f"group/{NAME}", f"group\\{NAME}", NAME, NAME.lower(), REPO, f"{REPO} (download, 8.9 GB)",
     f"group/{NAME} (incomplete)", f"elsewhere/{NAME} (cannot be loaded)", f" {NAME} "],
)  # fmt: skip
def test_a_name_is_found_by_its_path_or_its_last_part(models, tmp_path, choice):
    folder = write(tmp_path / "two" / "group" / NAME, files())
    assert models.locate(choice) == folder


def test_the_whole_path_is_preferred_and_a_whole_checkpoint_before_that(models, tmp_path):
    first = write(tmp_path / "one" / "a" / "m", files())
    second = write(tmp_path / "one" / "b" / "m", files())
    assert (models.locate("a/m"), models.locate("b/m")) == (first, second)
    (second / SHARD).unlink()
    assert models.locate("b/m") == first


def test_downloads_go_to_the_download_root_or_complete_what_is_there(models, tmp_path):
    assert models.locate(REPO) == Download(REPO, tmp_path / "one" / "new")
    folder = write(tmp_path / "two" / NAME, incomplete())
    place = models.locate(NAME)
    assert place == Download(REPO, tmp_path / "two") and place.folder == folder


def test_a_download_knows_how_much_of_it_is_here(tmp_path):
    place = Download(REPO, tmp_path)
    assert place.bytes_here == 0
    sizes = {"a.safetensors": 3000, "b.safetensors.part": 500, "tokenizer.json": 7}
    write(tmp_path / NAME, {file: bytes(size) for file, size in sizes.items()})
    assert place.bytes_here == 3500


def test_an_unknown_name_is_answered_with_the_nearest_or_all_there_are(models, tmp_path):
    write(tmp_path / "one" / "mine", files())
    with pytest.raises(CheckpointNotFound, match=f"Did you mean {REPO}"):
        models.locate("Qwen/Qwen3-VL-4B-Instrukt")
    with pytest.raises(CheckpointNotFound, match=r"'zzz' in .*one, .*two\. Those here: nano, mine"):
        models.locate("zzz")
    for number in range(30):
        write(tmp_path / "one" / f"m{number}", files())
    with pytest.raises(CheckpointNotFound, match=r"m1, .*, \.\.\.\. Others") as caught:
        models.locate("zzz")
    assert str(caught.value).count(", m") < 20
    advised = ModelLibrary((), Path("x"), advice="Ask somebody.")
    with pytest.raises(CheckpointNotFound, match=r"'zzz' in no model folder\. Ask somebody\."):
        advised.locate("zzz")


def test_a_model_is_downloaded_only_where_it_must_be(models, tmp_path, monkeypatch):
    calls = []

    def download(repo_id, root, **options):
        options["progress"](1, 2, "model.safetensors")
        options["check"]()
        calls.append((repo_id, root, options["source"]))
        return root / "there"

    monkeypatch.setattr(library, "download", download)
    heard = []

    def obtain(name):
        return models.obtain(
            name,
            source="modelscope",
            progress_for=lambda repo_id: lambda *counts: heard.append((repo_id, *counts)),
            check=lambda: heard.append("check"),
        )

    folder = write(tmp_path / "one" / "mine", files())
    assert obtain("mine") == folder and obtain("nano (bundled demo)") == BUNDLED
    assert (calls, heard) == ([], [])
    assert obtain(REPO) == tmp_path / "one" / "new" / "there"
    assert calls == [(REPO, tmp_path / "one" / "new", "modelscope")]
    assert heard == [(REPO, 1, 2, "model.safetensors"), "check"]
    write(tmp_path / "two" / "half", incomplete())
    with pytest.raises(IncompleteCheckpoint, match=SHARD):
        obtain("half (incomplete)")


def test_texts_can_be_shown_without_folders(models, tmp_path):
    text = f"{tmp_path}/one/group/m is not whole, {tmp_path}/two, {BUNDLED}"
    shown = models.without_folders(text)
    assert shown.startswith("group/m is not whole, two, ") and str(tmp_path) not in shown
    assert str(BUNDLED.parents[1]) not in shown


def test_a_model_has_a_name_without_its_folder():
    assert library.name_of(BUNDLED) == "nano"
    assert library.name_of(Path("/home/me/models/LLM/Qwen3-VL-4B")) == "Qwen3-VL-4B"


def test_the_catalogue_is_sound():
    assert len(CATALOGUE) == len({entry.name for entry in CATALOGUE.values()})
    for repo_id, entry in CATALOGUE.items():
        assert repo_id == entry.repo_id and repo_id.startswith("Qwen/")
        assert entry.model_type in FAMILIES
        assert 10**9 < entry.nbytes < 10**12
        if repo_id.endswith("-FP8"):
            assert entry.nbytes < CATALOGUE[repo_id.removesuffix("-FP8")].nbytes
