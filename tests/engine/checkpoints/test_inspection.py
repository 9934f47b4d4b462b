"""Inspection: damaged, incomplete and unsupported checkpoints are reported, and nothing else is."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import socket
import tempfile
from pathlib import Path

import pytest
from disk import CONFIG, PROCESSOR, files, safetensors, write
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.checkpoints import inspection, integrity
from qwen_vl_suite.qwenvl.checkpoints.files import readable_size
from qwen_vl_suite.qwenvl.checkpoints.safetensors_header import read_header, tensor_names
from qwen_vl_suite.qwenvl.errors import (
    CheckpointError,
    CheckpointNotFound,
    IncompleteCheckpoint,
    UnsupportedModel,
)
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.models import footprint

FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"


def without(*names):
    return {name: content for name, content in files().items() if name not in names}


def index(**weight_map):
    return json.dumps({"metadata": {}, "weight_map": weight_map}).encode()


@pytest.mark.parametrize("sharded", [True, False])
def test_a_whole_checkpoint_has_no_problem(tmp_path, sharded):
    contents = files(sharded=sharded)
    folder = write(tmp_path / "Qwen3-VL", contents)
    found = inspection.require_complete(folder)
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
    "index without metadata": (
        {**files(), INDEX: json.dumps({"weight_map": {"a.weight": FIRST}}).encode()},
        {INDEX: "lacks"},
    ),
    "index of nothing": ({**files(), INDEX: index()}, {INDEX: "names no tensors"}),
    "single of another name": (
        {**without(FIRST, SECOND, INDEX), "qwen.safetensors": safetensors({"a.weight": 8})},
        {"model.safetensors": "if qwen.safetensors is the whole model, rename it"},
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
def test_every_fault_is_reported_with_its_file(tmp_path, contents, faults):
    folder = write(tmp_path / "m", contents)
    with pytest.raises(IncompleteCheckpoint) as caught:
        inspection.require_complete(folder)
    assert set(caught.value.missing) == set(faults)
    for file, what in faults.items():
        assert file in str(caught.value) and what in str(caught.value)
    assert "only these files are fetched" in str(caught.value)


def test_a_repaired_file_is_noticed_at_once(tmp_path):
    folder = write(tmp_path, {**files(), SECOND: CUT})
    assert SECOND in inspection.inspect(folder).problem
    write(folder, {SECOND: files()[SECOND]})
    assert inspection.inspect(folder).problem == ""


ALTERNATIVES = {
    "slow tokenizer": {**without("tokenizer.json"), "vocab.json": b"{}", "merges.txt": b""},
    "processor_config": {
        **without("preprocessor_config.json"),
        "processor_config.json": json.dumps({"image_processor": PROCESSOR}).encode(),
    },
    "first generation": {
        **{k: v for k, v in files().items() if "token" not in k and "proc" not in k},
        "config.json": b'{"model_type": "qwen", "visual": {}}',
        "qwen.tiktoken": b"",
    },
}


@pytest.mark.parametrize("contents", ALTERNATIVES.values(), ids=ALTERNATIVES)
def test_other_forms_of_complete_checkpoints(tmp_path, contents):
    assert inspection.require_complete(write(tmp_path, contents)).problem == ""


LORA = json.dumps({"peft_type": "LORA", "base_model_name_or_path": "Qwen/Base-7B"}).encode()
ADAPTER = {"adapter_config.json": LORA, "adapter_model.safetensors": safetensors({"lora_A": 8})}
OTHER_FORMATS = {
    "pickle": ({"pytorch_model.bin": b"\x80"}, "only safetensors"),
    "gguf": ({"Qwen3-VL-Q4_K_M.gguf": b"GGUF"}, "GGUF"),
    "onnx": ({"model.onnx": b""}, "ONNX"),
    "adapter": (ADAPTER, "an adapter .LORA. for Qwen/Base-7B"),
    "adapter without settings": (
        {"adapter_model.safetensors": safetensors({"lora_A": 8})},
        "an adapter .LoRA. for another model",
    ),
    "mlx": ({"model.safetensors": safetensors({"a.weight": 8}, "mlx")}, "MLX"),
}


@pytest.mark.parametrize(("weights", "word"), OTHER_FORMATS.values(), ids=OTHER_FORMATS)
def test_weights_of_another_format_are_refused_by_name(tmp_path, weights, word):
    folder = write(tmp_path / "root" / "m", {**without(FIRST, SECOND, INDEX), **weights})
    with pytest.raises(UnsupportedModel, match=word):
        inspection.require_complete(folder)
    (listed,) = inspection.scan([tmp_path / "root"])
    assert re.search(word, listed.problem)


def with_settings(file, **changes):
    """A whole checkpoint with changed settings in one of its JSON files."""
    contents = files()
    found = json.loads(contents.get(file, b"{}"))
    return {**contents, file: json.dumps({**found, **changes}).encode()}


def quantised(**config):
    return with_settings("config.json", quantization_config=config)


def of_type(dtype, more=()):
    header = {"a.weight": {"dtype": dtype, "shape": [4], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    weights = len(text).to_bytes(8, "little") + text + bytes(4)
    whole = {**without(FIRST, SECOND, INDEX), "model.safetensors": weights}
    return {**whole, **dict(more)}


VISION = {"patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2}
PROCESSOR_SETTINGS = {**PROCESSOR, "size": {"shortest_edge": 4096, "longest_edge": 65536}}


def with_processor(**changes):
    """A whole checkpoint with other settings of the image processor."""
    contents = with_settings("config.json", vision_config=VISION)
    return {
        **contents,
        "preprocessor_config.json": json.dumps({**PROCESSOR_SETTINGS, **changes}).encode(),
    }


INVALID = {
    "whole weights and an adapter": ({**files(), **ADAPTER}, "a model and an adapter"),
    "MLX by config": (with_settings("config.json", quantization={"bits": 4}), "MLX"),
    "ModelOpt": (quantised(quant_method="modelopt"), "NVIDIA ModelOpt"),
    "ModelOpt's own file": ({**files(), "hf_quant_config.json": b"{}"}, "NVIDIA ModelOpt"),
    "EXL2": (quantised(quant_method="exl2"), "ExLlamaV2"),
    "GPTQ on plain weights": (quantised(quant_method="gptq"), "gptq.*plain numbers"),
    "FP8 on plain weights": (quantised(quant_method="fp8"), "fp8.*plain numbers"),
    "int8 alone": (of_type("I8"), "type I8"),
    "bool alone": (of_type("BOOL"), "type BOOL"),
    "fp8 alone": (of_type("F8_E4M3"), "type F8_E4M3"),
    "vision config is a list": (with_settings("config.json", vision_config=[1]), "vision_config"),
    "text config is a word": (with_settings("config.json", text_config="x"), "text_config"),
    "quantization is a word": (with_settings("config.json", quantization_config="x"), "quantiz"),
    "patches of no size": (with_settings("config.json", vision_config={"patch_size": 0}), "is 0"),
    "eos is a word": (with_settings("generation_config.json", eos_token_id="x"), "eos_token_id"),
    "eos is half": (with_settings("generation_config.json", eos_token_id=[1.5]), "eos_token_id"),
    "eos below zero": (with_settings("generation_config.json", eos_token_id=-1), "eos_token_id"),
    "eos is true": (with_settings("generation_config.json", eos_token_id=[True]), "eos_token_id"),
    "eos is nested": (with_settings("generation_config.json", eos_token_id=[[1]]), "eos_token_id"),
    "generation is a list": ({**files(), "generation_config.json": b"[]"}, "generation_config"),
    "preprocessor is empty": ({**files(), "preprocessor_config.json": b"{}"}, "does not say how"),
    "preprocessor is a list": ({**files(), "preprocessor_config.json": b"[{}]"}, "preprocessor"),
    "no part for pictures": (
        {**without("preprocessor_config.json"), "processor_config.json": b"{}"},
        "no part for pictures",
    ),
    "patch_size 0": (with_processor(patch_size=0), "patch_size is 0"),
    "patch_size is text": (with_processor(patch_size="16"), "patch_size is '16'"),
    "patch_size of another": (with_processor(patch_size=14), "is 14.*is 16.*another model"),
    "patch_size is endless": (with_processor(patch_size=10**30), "patch_size is 1000"),
    "patch_size of another than its family": (
        with_settings("preprocessor_config.json", patch_size=14),
        "is 14.*is 16.*another model",
    ),
    "merge_size 0": (with_processor(merge_size=0), "merge_size is 0"),
    "merge_size of another": (with_processor(merge_size=4), "another model"),
    "temporal_patch_size of another": (with_processor(temporal_patch_size=1), "another model"),
    "size is a number": (with_processor(size=5), "size is 5"),
    "pixels are text": (with_processor(max_pixels="many"), "max_pixels is 'many'"),
    "pixels below zero": (with_processor(min_pixels=-1), "min_pixels is -1"),
    "pixels in no order": (with_processor(min_pixels=9999, max_pixels=99), "smallest picture"),
    "mean of two": (with_processor(image_mean=[0, 0]), "image_mean"),
    "std of zero": (with_processor(image_std=[1, 0, 1]), "image_std"),
    "mean is text": (with_processor(image_mean="abc"), "image_mean"),
}


@pytest.mark.parametrize(("contents", "words"), INVALID.values(), ids=INVALID)
def test_inconsistent_checkpoints_are_refused(tmp_path, contents, words):
    folder = write(tmp_path / "root" / "m", contents)
    (listed,) = inspection.scan([tmp_path / "root"])
    assert re.search(words, listed.problem)
    with pytest.raises(CheckpointError, match=words):
        inspection.require_complete(folder)


VALID = {
    "processor and vision tower agree": with_processor(),
    "older spelling": with_processor(size=None, min_pixels=3136, max_pixels=50176),
    "int8 that is told": of_type(
        "I8", [("config.json", quantised(quant_method="bitsandbytes")["config.json"])]
    ),
    "several ends": with_settings("generation_config.json", eos_token_id=[1, 2]),
    "no end": with_settings("generation_config.json", eos_token_id=None),
    "another program's files": {
        **files(),
        "._model.safetensors": b"\0\5",
        "consolidated.safetensors": safetensors({"x": 2}),
    },
}


@pytest.mark.parametrize("contents", VALID.values(), ids=VALID)
def test_valid_checkpoints_are_not_refused(tmp_path, contents):
    assert inspection.require_complete(write(tmp_path / "m", contents)).problem == ""


SINGLE_FILE = {"model.safetensors": safetensors({"a.weight": 64, "b.weight": 16, "c.weight": 128})}
WEIGHT_FILES = {
    "shards alone": (files(), INDEX, ""),
    "single alone": (files(sharded=False), "model.safetensors", ""),
    "a leftover index": ({**without(FIRST, SECOND), **SINGLE_FILE}, "model.safetensors", ""),
    "a cut leftover index": (
        {**without(FIRST, SECOND), **SINGLE_FILE, INDEX: b'{"weight_map'},
        "model.safetensors",
        "",
    ),
    "a cut single": ({**files(), "model.safetensors": b"\x09"}, INDEX, ""),
    "an index of the single": (
        {**files(sharded=False), INDEX: index(**{"a.weight": "model.safetensors"})},
        INDEX,
        "",
    ),
    "both whole": ({**files(), **SINGLE_FILE}, INDEX, "which of the two is meant"),
    "shards without index": (
        {**without(INDEX), **SINGLE_FILE},
        "model.safetensors",
        "which of the two",
    ),
    "shards with a cut index": (
        {**files(), **SINGLE_FILE, INDEX: b"{"},
        INDEX,
        "index.json is unread",
    ),
    "half of the shards": (
        {**without(FIRST), **SINGLE_FILE},
        INDEX,
        f"{FIRST} is missing .if model",
    ),
    "a cut shard": ({**files(), **SINGLE_FILE, SECOND: CUT}, INDEX, f"{SECOND} is cut off"),
}


@pytest.mark.parametrize(("contents", "entry", "words"), WEIGHT_FILES.values(), ids=WEIGHT_FILES)
def test_the_weights_that_are_checked_are_those_that_are_loaded(tmp_path, contents, entry, words):
    folder = write(tmp_path / "m", contents)
    chosen = integrity.find_weight_files(folder, {file: len(c) for file, c in contents.items()})
    assert chosen.entry == entry
    assert re.search(words, inspection.inspect(folder).problem)
    if words:
        with pytest.raises(CheckpointError, match=words):
            inspection.require_complete(folder)
        with pytest.raises(CheckpointError, match=words):
            list(footprint.weights(folder))
    else:
        assert {weight.name for weight in footprint.weights(folder)} == set(chosen.tensors)


def test_a_text_encoder_is_recognised(tmp_path):
    contents = without("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
    found = inspection.inspect(write(tmp_path, contents))
    assert "text encoders of image generators" in found.problem
    assert "tokenizer.json" in found.missing


def test_adapters_and_ggufs_without_config_are_listed(tmp_path):
    write(tmp_path / "lora", ADAPTER)
    write(tmp_path / "group" / "quants", {"model.gguf": b"GGUF"})
    write(tmp_path / "nothing", {"readme.txt": b""})
    found = {c.name: c.problem for c in inspection.scan([tmp_path])}
    assert "adapter" in found["lora"] and "GGUF" in found["group/quants"]
    assert len(found) == 2


def test_a_lone_gguf_is_reported_as_such_and_not_as_incomplete(tmp_path):
    with pytest.raises(UnsupportedModel, match="GGUF"):
        inspection.require_complete(write(tmp_path, {"model.gguf": b"GGUF"}))


def test_pickles_beside_safetensors_are_ignored(tmp_path):
    folder = write(tmp_path, {**files(), "pytorch_model.bin": b"\x80"})
    assert inspection.require_complete(folder).problem == ""


def test_a_text_model_is_refused_and_not_listed(tmp_path):
    contents = {**files(), "config.json": b'{"model_type": "llama"}'}
    folder = write(tmp_path / "llama", contents)
    assert inspection.scan([tmp_path]) == []
    with pytest.raises(UnsupportedModel, match="llama"):
        inspection.require_complete(folder)


@pytest.mark.parametrize("path", ["Qwen/Qwen3-VL-4B-Instruct", "nothing", ""])
def test_a_path_that_is_no_folder_is_not_found(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    if path == "":
        path = tmp_path / "file.safetensors"
        path.write_bytes(b"")
    with pytest.raises(CheckpointNotFound, match="download"):
        inspection.require_complete(path)


def test_scan_finds_both_depths_of_all_roots(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write(one / "Qwen-VL" / "Qwen3-VL-4B", files())
    write(one / "olmocr", files({**CONFIG, "model_type": "qwen2_5_vl"}, sharded=False))
    vision = {"vision_config": {"spatial_merge_size": 2}, "vision_start_token_id": 1}
    write(one / "new", files({"model_type": "qwen9_vl", **vision}))
    write(one / "clip", files({"model_type": "clip", "vision_config": {}}))
    write(two / "olmocr", files())
    write(two / "half", without(FIRST))
    write(two / "broken", {"config.json": b"{"})
    write(two / ".hidden", files())
    write(two / "a" / "b" / "too-deep", files())
    (two / "file.txt").write_text("")
    found = {c.name: c for c in inspection.scan([one, two, tmp_path / "absent"])}
    assert list(found) == ["broken", "half", "new", "olmocr", "Qwen-VL/Qwen3-VL-4B"]
    assert found["olmocr"].family == FAMILIES["qwen2_5_vl"]
    assert found["new"].family.model_type == "qwen9_vl"
    assert found["half"].missing == (FIRST,)
    assert found["broken"].family is None and "config.json" in found["broken"].problem


def test_scan_survives_symlinks(tmp_path):
    root = tmp_path / "root"
    real = write(tmp_path / "elsewhere" / "model", files())
    root.mkdir()
    (root / "linked").symlink_to(real)
    (root / "again").symlink_to(real)
    (root / "loop").symlink_to(root)
    (root / "gone").symlink_to(tmp_path / "nowhere")
    assert [c.name for c in inspection.scan([root])] == ["again"]
    assert inspection.scan([root])[0].problem == ""


def test_a_dangling_symlink_is_a_missing_file(tmp_path):
    folder = write(tmp_path / "m", without(FIRST))
    (folder / FIRST).symlink_to(tmp_path / "blob")
    assert inspection.inspect(folder).missing == (FIRST,)


@pytest.mark.parametrize("depth", ["m", "group/m"])
def test_a_folder_that_may_not_be_read_is_listed_with_the_reason(tmp_path, monkeypatch, depth):
    closed = write(tmp_path / depth, files())
    write(tmp_path / "open", files())

    def denied(real):
        def guarded(path="."):
            if os.fspath(path) == str(closed):
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
            return real(path)

        return guarded

    for name in ("scandir", "listdir"):
        monkeypatch.setattr(os, name, denied(getattr(os, name)))
    found = {c.name: c.problem for c in inspection.scan([tmp_path])}
    assert found == {depth: "It cannot be read (Permission denied).", "open": ""}


def make_pipe(path):
    os.mkfifo(path)


def make_socket(path):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))  # names of sockets are short


def link_to_itself(path):
    path.symlink_to(path)


def link_to_device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.skipif(os.name == "nt", reason="no such files there")
@pytest.mark.parametrize(
    "put", [make_pipe, make_socket, link_to_itself, link_to_device, Path.mkdir]
)
@pytest.mark.parametrize("name", [*sorted(files()), "model.safetensors", "adapter_config.json"])
def test_only_regular_files_are_opened(tmp_path, monkeypatch, name, put):
    monkeypatch.chdir(tmp_path)
    folder = write(tmp_path / "m", without(name))
    put(folder / name)
    write(tmp_path / "whole", files())
    found = {c.name: c.problem for c in inspection.scan([tmp_path])}
    assert found.pop("whole") == ""
    if name != "model.safetensors":  # whole shards stand beside it
        assert found["m"] and (name in found["m"] or name == "adapter_config.json")


DEEP = b"[" * 100_000
HEADERS = {
    "nested": DEEP + b"]" * 100_000,
    "offsets are text": b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]}}',
    "offsets are huge": b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1%s]}}'
    % (b"0" * 400),
    "offsets are halves": b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0.0, 4.0]}}',
    "three offsets": b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 8]}}',
    "no dtype": b'{"a": {"shape": [1], "data_offsets": [0, 4]}}',
    "no shape": b'{"a": {"dtype": "F32", "data_offsets": [0, 4]}}',
    "unknown dtype": b'{"a": {"dtype": "F7", "shape": [1], "data_offsets": [0, 4]}}',
    "shape below zero": b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
    "shape of text": b'{"a": {"dtype": "F32", "shape": "4", "data_offsets": [0, 4]}}',
    "other bytes than its shape": b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
    "many dimensions": b'{"a": {"dtype": "F32", "shape": [%s9], "data_offsets": [0, 4]}}'
    % (b"9," * 99_999),
    "a gap": b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}',
    "tensor is a number": b'{"a": 1}',
    "no UTF-8": b'{"\xff": 1}',
    "half a character": b'{"\\ud800": {"dtype": "F32"}}',
}


@pytest.mark.parametrize("header", HEADERS.values(), ids=HEADERS)
def test_an_impossible_header_is_damage(tmp_path, header):
    weights = len(header).to_bytes(8, "little") + header + bytes(8)
    write(tmp_path / "m", {**files(sharded=False), "model.safetensors": weights})
    (found,) = inspection.scan([tmp_path])
    assert found.problem.startswith("model.safetensors is damaged")
    assert found.problem.isprintable()


ODD_JSON = {
    "nested": DEEP,
    "nested whole": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "no UTF-8": b'{"model_type": "\xff\xfe"}',
    "UTF-16": '{"model_type": "qwen3_vl"}'.encode("utf-16"),
    "endless number": b'{"a": 1' + b"0" * 100_000 + b"}",
    "too long": b'{"a": "' + b" " * 10_000_001 + b'"}',
    "empty": b"",
}


@pytest.mark.parametrize("content", ODD_JSON.values(), ids=ODD_JSON)
@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", INDEX])
def test_unreadable_json_is_reported(tmp_path, name, content):
    write(tmp_path / "m", {**files(), name: content})
    write(tmp_path / "whole", files())
    found = {c.name: c for c in inspection.scan([tmp_path])}
    assert found["whole"].problem == ""
    if name != INDEX or content != ODD_JSON["too long"]:  # an index may be long
        assert name in found["m"].missing


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    ["model_type", "vision_config", "text_config", "thinker_config", "quantization_config",
     "quantization", "quant_method", "patch_size", "merge_size", "size", "min_pixels",
     "image_mean", "image_std", "image_processor", "eos_token_id", "weight_map", "metadata",
     "a.weight", "__metadata__", "dtype", "shape", "data_offsets", "transformers_version",
     "tie_word_embeddings", "base_model_name_or_path", "peft_type", "vocab_size"]
)  # fmt: skip


@st.composite
def mutated(draw):
    """A whole checkpoint in which one file is anything, or a JSON object with odd values."""
    contents = files(sharded=draw(st.booleans()))
    name = draw(st.sampled_from([*sorted(contents), "generation_config.json", *ADAPTER]))
    odd = draw(
        st.dictionaries(KEYS, anything | st.dictionaries(KEYS, anything, max_size=3), max_size=4)
    )
    if draw(st.booleans()):
        content = draw(st.binary(max_size=40))
    elif name.endswith(".safetensors"):
        text = json.dumps(odd).encode()
        length = draw(st.sampled_from([len(text), len(text) - 1, 0, 2**62, 2**64 - 1]))
        content = max(0, length).to_bytes(8, "little") + text + draw(st.binary(max_size=9))
    else:
        content = json.dumps({**json.loads(contents.get(name, b"{}")), **odd}).encode()
    return {**contents, name: content}


@given(contents=mutated(), name=st.sampled_from(["m", "g/m", os.fsdecode(b"m\xff")]))
@settings(max_examples=150)
def test_a_scan_survives_anything(contents, name):
    with tempfile.TemporaryDirectory() as root:
        write(Path(root) / name, contents)
        write(Path(root) / "whole", files())
        found = {c.name: c for c in inspection.scan([root])}
        assert found["whole"].problem == ""
        json.dumps([c.name + c.problem for c in found.values()]).encode()
        for checkpoint in found.values():
            f"{checkpoint.name} {checkpoint.problem} {checkpoint.missing}".encode()
            assert len(checkpoint.problem) < 2000
        assert "cannot be read" not in "".join(c.problem for c in found.values())


def test_only_headers_are_read(tmp_path, monkeypatch):
    folder = write(tmp_path / "m", files(sharded=False))
    read = []

    class Counted(io.FileIO):
        def readinto(self, buffer):
            read.append(super().readinto(buffer) or 0)
            return read[-1]

    def opened(path, mode):
        assert mode == "rb"
        return io.BufferedReader(Counted(path), 1024)

    weights = folder / "model.safetensors"
    text = weights.read_bytes()[:-256].replace(b"128", b"999999").replace(b"256]", b"1999998]")
    text = (len(text) - 8).to_bytes(8, "little") + text[8:]
    weights.write_bytes(text + bytes(1_999_998))
    monkeypatch.setattr(Path, "open", opened)
    assert inspection.inspect(folder).problem == ""
    assert sum(read) < 20_000


def test_an_unchanged_folder_is_not_read_again(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        integrity,
        "read_header",
        lambda path: read.append(path.name) or read_header(path),
    )
    folder = write(tmp_path / "m", files())
    first = inspection.scan([tmp_path])
    assert sorted(read) == [FIRST, SECOND]
    assert inspection.scan([tmp_path]) == first
    assert len(read) == 2
    os.utime(folder / FIRST, ns=(1, 1))
    inspection.scan([tmp_path])
    assert len(read) == 4


def test_tensor_names_leave_metadata_out(tmp_path):
    path = write(tmp_path, {"m.safetensors": safetensors({"a": 2, "b": 4})}) / "m.safetensors"
    assert tensor_names(path) == {"a", "b"}


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [(0, "0 B"), (812, "812 B"), (999_499, "999.5 kB"), (8.9e9, "8.9 GB"), (2e12, "2.0 TB")],
)
def test_readable_sizes(nbytes, text):
    assert readable_size(nbytes) == text
