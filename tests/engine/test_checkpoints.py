from __future__ import annotations

import json
import os

import pytest
from qwen_vl_suite.qwenvl import checkpoints, completeness
from qwen_vl_suite.qwenvl.errors import (
    CheckpointNotFound,
    IncompleteCheckpoint,
    UnsupportedModel,
)
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.shards import readable_size, tensor_names

from .disk import CONFIG, files, safetensors, write

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


def without(*names):
    return {name: content for name, content in files().items() if name not in names}


def index(**weight_map):
    return json.dumps({"weight_map": weight_map}).encode()


@pytest.mark.parametrize("sharded", [True, False])
def test_a_whole_checkpoint_has_no_problem(tmp_path, sharded):
    contents = files(sharded=sharded)
    folder = write(tmp_path / "Qwen3-VL", contents)
    found = checkpoints.require_complete(folder)
    assert (found.problem, found.missing, found.name) == ("", (), "Qwen3-VL")
    assert found.family == FAMILIES["qwen3_vl"]
    assert found.nbytes == sum(len(c) for f, c in contents.items() if f.endswith(".safetensors"))


CUT = files()[SECOND][:-1]
DAMAGES = {
    "shard absent": (without(FIRST), {FIRST: "is missing"}),
    "shard cut by a byte": ({**files(), SECOND: CUT}, {SECOND: "is cut off"}),
    "shard cut in its header": ({**files(), SECOND: CUT[:20]}, {SECOND: "is cut off after 20 B"}),
    "shard empty": ({**files(), SECOND: b""}, {SECOND: "is cut off after 0 B"}),
    "shard too long": ({**files(), SECOND: files()[SECOND] + b"x"}, {SECOND: "is damaged"}),
    "shard is a web page": ({**files(), SECOND: b"<!DOCTYPE html>" * 9}, {SECOND: "is damaged"}),
    "shard with a broken header": (
        {**files(), SECOND: (4).to_bytes(8, "little") + b"{]{]"},
        {SECOND: "its header is unreadable"},
    ),
    "header that is no table": (
        {**files(), SECOND: (4).to_bytes(8, "little") + b"[1] "},
        {SECOND: "its header is unreadable"},
    ),
    "shard is a pointer": ({**files(), FIRST: POINTER}, {FIRST: "Git LFS pointer"}),
    "shard of another checkpoint": (
        {**files(), FIRST: safetensors({"a.weight": 64})},
        {FIRST: "lacks 1 tensors of the index, such as b.weight"},
    ),
    "both shards": (without(FIRST, SECOND), {FIRST: "is missing", SECOND: "is missing"}),
    "half a shard beside": (
        {**without(FIRST), FIRST + ".part": b"x" * 2_000_000},
        {FIRST: f"is only partly downloaded (2.0 MB in {FIRST}.part)"},
    ),
    "another tool's half": (
        {**without(FIRST), FIRST + ".incomplete": b"x"},
        {FIRST: "is only partly downloaded"},
    ),
    "index absent": (without(INDEX), {INDEX: "is missing"}),
    "index cut": ({**files(), INDEX: files()[INDEX][:-9]}, {INDEX: "is unreadable"}),
    "index of another form": ({**files(), INDEX: b"[]"}, {INDEX: "is unreadable"}),
    "index leads outside": (
        {**files(), INDEX: index(a="../other/model.safetensors")},
        {INDEX: "names a file outside the folder"},
    ),
    "no weights": (without(FIRST, SECOND, INDEX), {"model.safetensors": "is missing"}),
    "no tokenizer": (without("tokenizer.json"), {"tokenizer.json": "is missing"}),
    "half a tokenizer": (
        {**without("tokenizer.json"), "vocab.json": b"{}"},
        {"tokenizer.json": "is missing"},
    ),
    "tokenizer cut": (
        {**files(), "tokenizer.json": b'{"model": {"vocab'},
        {"tokenizer.json": "is cut off"},
    ),
    "tokenizer is a pointer": ({**files(), "tokenizer.json": POINTER}, {"tokenizer.json": "LFS"}),
    "no processor": (
        without("preprocessor_config.json"),
        {"preprocessor_config.json": "is missing"},
    ),
    "config cut": ({**files(), "config.json": b'{"model_'}, {"config.json": "is unreadable"}),
    "config is a list": ({**files(), "config.json": b"[]"}, {"config.json": "no JSON object"}),
    "no config": (without("config.json"), {"config.json": "is missing"}),
}


@pytest.mark.parametrize(("contents", "faults"), DAMAGES.values(), ids=DAMAGES)
def test_every_fault_is_named_with_its_file(tmp_path, contents, faults):
    folder = write(tmp_path / "m", contents)
    with pytest.raises(IncompleteCheckpoint) as caught:
        checkpoints.require_complete(folder)
    assert set(caught.value.missing) == set(faults)
    for file, what in faults.items():
        assert file in str(caught.value) and what in str(caught.value)
    assert "only these files are fetched" in str(caught.value)


def test_a_damage_that_is_mended_is_seen_at_once(tmp_path):
    folder = write(tmp_path, {**files(), SECOND: CUT})
    assert SECOND in checkpoints.inspect(folder).problem
    write(folder, {SECOND: files()[SECOND]})
    assert checkpoints.inspect(folder).problem == ""


ALTERNATIVES = {
    "slow tokenizer": {**without("tokenizer.json"), "vocab.json": b"{}", "merges.txt": b""},
    "processor_config": {**without("preprocessor_config.json"), "processor_config.json": b"{}"},
    "first generation": {
        **{k: v for k, v in files().items() if "token" not in k and "proc" not in k},
        "config.json": b'{"model_type": "qwen", "visual": {}}',
        "qwen.tiktoken": b"",
    },
}


@pytest.mark.parametrize("contents", ALTERNATIVES.values(), ids=ALTERNATIVES)
def test_other_complete_forms(tmp_path, contents):
    assert checkpoints.require_complete(write(tmp_path, contents)).problem == ""


FOREIGN = {
    "pickle": ({"pytorch_model.bin": b"\x80"}, "only safetensors"),
    "gguf": ({"Qwen3-VL-Q4_K_M.gguf": b"GGUF"}, "GGUF"),
}


@pytest.mark.parametrize(("weights", "word"), FOREIGN.values(), ids=FOREIGN)
def test_weights_of_another_form_are_refused_by_name(tmp_path, weights, word):
    folder = write(tmp_path / "root" / "m", {**without(FIRST, SECOND, INDEX), **weights})
    with pytest.raises(UnsupportedModel, match=word):
        checkpoints.require_complete(folder)
    assert [word in c.problem for c in checkpoints.scan([tmp_path / "root"])] == [True]


def test_a_lone_gguf_says_gguf_rather_than_missing_files(tmp_path):
    with pytest.raises(UnsupportedModel, match="GGUF"):
        checkpoints.require_complete(write(tmp_path, {"model.gguf": b"GGUF"}))


def test_pickles_beside_safetensors_do_no_harm(tmp_path):
    folder = write(tmp_path, {**files(), "pytorch_model.bin": b"\x80"})
    assert checkpoints.require_complete(folder).problem == ""


def test_a_text_model_is_refused_and_not_listed(tmp_path):
    contents = {**files(), "config.json": b'{"model_type": "llama"}'}
    folder = write(tmp_path / "llama", contents)
    assert checkpoints.scan([tmp_path]) == []
    with pytest.raises(UnsupportedModel, match="llama"):
        checkpoints.require_complete(folder)


@pytest.mark.parametrize("path", ["Qwen/Qwen3-VL-4B-Instruct", "nothing", ""])
def test_no_folder_is_not_taken_for_anything_else(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    if path == "":
        path = tmp_path / "file.safetensors"
        path.write_bytes(b"")
    with pytest.raises(CheckpointNotFound, match="download"):
        checkpoints.require_complete(path)


def test_scan_finds_both_depths_of_all_roots(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write(one / "Qwen-VL" / "Qwen3-VL-4B", files())
    write(one / "olmocr", files({**CONFIG, "model_type": "qwen2_5_vl"}, sharded=False))
    vision = {"vision_config": {"spatial_merge_size": 2}, "vision_start_token_id": 1}
    write(one / "new", files({"model_type": "seer", **vision}))
    write(one / "clip", files({"model_type": "clip", "vision_config": {}}))
    write(two / "olmocr", files())
    write(two / "half", without(FIRST))
    write(two / "broken", {"config.json": b"{"})
    write(two / ".hidden", files())
    write(two / "a" / "b" / "too-deep", files())
    (two / "file.txt").write_text("")
    found = {c.name: c for c in checkpoints.scan([one, two, tmp_path / "absent"])}
    assert list(found) == ["broken", "half", "new", "olmocr", "Qwen-VL/Qwen3-VL-4B"]
    assert found["olmocr"].family == FAMILIES["qwen2_5_vl"]
    assert found["new"].family.model_type == "seer"
    assert found["half"].missing == (FIRST,)
    assert found["broken"].family is None and "config.json" in found["broken"].problem


def test_scan_survives_links(tmp_path):
    root = tmp_path / "root"
    real = write(tmp_path / "elsewhere" / "model", files())
    root.mkdir()
    (root / "linked").symlink_to(real)
    (root / "again").symlink_to(real)
    (root / "loop").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    assert [c.name for c in checkpoints.scan([root])] == ["again"]
    assert checkpoints.scan([root])[0].problem == ""


def test_a_blob_that_is_gone_is_missing(tmp_path):
    folder = write(tmp_path / "m", without(FIRST))
    (folder / FIRST).symlink_to(tmp_path / "blob")
    assert checkpoints.inspect(folder).missing == (FIRST,)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_folder_is_passed_over(tmp_path):
    closed = write(tmp_path / "closed" / "m", files()).parent
    closed.chmod(0)
    write(tmp_path / "open", files())
    assert [c.name for c in checkpoints.scan([tmp_path])] == ["open"]
    closed.chmod(0o700)


def test_a_folder_that_did_not_change_is_not_read_again(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        completeness, "tensor_names", lambda path: read.append(path.name) or tensor_names(path)
    )
    folder = write(tmp_path / "m", files())
    first = checkpoints.scan([tmp_path])
    assert sorted(read) == [FIRST, SECOND]
    assert checkpoints.scan([tmp_path]) == first
    assert len(read) == 2
    os.utime(folder / FIRST, ns=(1, 1))
    checkpoints.scan([tmp_path])
    assert len(read) == 4


def test_tensor_names_leaves_metadata_out(tmp_path):
    path = write(tmp_path, {"m.safetensors": safetensors({"a": 1, "b": 2})}) / "m.safetensors"
    assert tensor_names(path) == {"a", "b"}


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (812, "812 B"), (999_499, "999.5 kB"), (8.9e9, "8.9 GB"), (2e12, "2.0 TB")],
)
def test_sizes_for_people(nbytes, text):
    assert readable_size(nbytes) == text


def test_the_catalogue_is_sound():
    rows = checkpoints.CATALOGUE
    assert len(rows) == len({entry.name for entry in rows.values()})
    for repo_id, entry in rows.items():
        assert repo_id == entry.repo_id and repo_id.startswith("Qwen/")
        assert entry.model_type in FAMILIES
        assert 10**9 < entry.nbytes < 10**12
        if repo_id.endswith("-FP8"):
            assert entry.nbytes < rows[repo_id.removesuffix("-FP8")].nbytes
