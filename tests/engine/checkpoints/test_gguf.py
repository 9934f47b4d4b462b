"""GGUF files: which make a model, and which of them go together."""

from __future__ import annotations

import struct

import pytest
from gguf_files import model, projector, text
from qwen_vl_suite.qwenvl.checkpoints import gguf
from qwen_vl_suite.qwenvl.errors import CheckpointNotFound, IncompleteCheckpoint, UnsupportedModel
from qwen_vl_suite.qwenvl.families import FAMILIES, GGUF


def only(root):
    (found,) = gguf.scan([root])
    return found


def test_a_model_is_listed_once_with_its_projector(tmp_path):
    folder = tmp_path / "Qwen" / "Qwen3-VL-4B-Instruct-GGUF"
    model(folder / "Qwen3VL-4B-Instruct-Q4_K_M.gguf")
    projector(folder / "mmproj-Qwen3VL-4B-Instruct-F16.gguf")
    found = only(tmp_path)
    assert found.name == "Qwen/Qwen3-VL-4B-Instruct-GGUF/Qwen3VL-4B-Instruct-Q4_K_M.gguf"
    assert found.mmproj == folder / "mmproj-Qwen3VL-4B-Instruct-F16.gguf"
    assert (found.family, found.problem) == ("qwen3_vl", "")
    assert found.nbytes == sum(path.stat().st_size for path in folder.iterdir())
    assert found.cache_bytes == 2 * 2 * 36 * 8 * 128


@pytest.mark.parametrize(("kinds", "family"), GGUF.items())
def test_the_family_is_read_from_both_files(tmp_path, kinds, family):
    architecture, kind = kinds
    model(tmp_path / "a.gguf", architecture)
    projector(tmp_path / "a.mmproj.gguf", kind)
    assert only(tmp_path).family == family
    assert FAMILIES[family].sees


def test_of_several_projectors_the_one_that_was_made_for_it_is_taken(tmp_path):
    for size, width in (("4B", 2560), ("8B", 4096)):
        model(tmp_path / f"Qwen3VL-{size}-Q4_K_M.gguf", width=width)
        for precision in ("F16", "BF16", "Q8_0"):
            projector(tmp_path / f"mmproj-Qwen3VL-{size}-{precision}.gguf", width=width)
    # Another model of the same width: the names tell.
    model(tmp_path / "Qwen3VL-4B-Thinking-Q4_K_M.gguf")
    projector(tmp_path / "mmproj-Qwen3VL-4B-Thinking-BF16.gguf")
    assert {found.path.name: found.mmproj.name for found in gguf.scan([tmp_path])} == {
        "Qwen3VL-4B-Q4_K_M.gguf": "mmproj-Qwen3VL-4B-BF16.gguf",
        "Qwen3VL-8B-Q4_K_M.gguf": "mmproj-Qwen3VL-8B-BF16.gguf",
        "Qwen3VL-4B-Thinking-Q4_K_M.gguf": "mmproj-Qwen3VL-4B-Thinking-BF16.gguf",
    }
    assert gguf.locate("qwen3vl-4b-q4_k_m.gguf", [tmp_path], "mmproj-Qwen3VL-4B-F16.gguf").mmproj


def test_parts_are_one_model_and_missing_ones_are_named(tmp_path):
    names = [f"big-{number:05}-of-00003.gguf" for number in (1, 2, 3)]
    for name in names:
        model(tmp_path / name)
    projector(tmp_path / "mmproj-big.gguf")
    found = only(tmp_path)
    assert found.path.name == names[0]
    assert found.nbytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    (tmp_path / names[2]).unlink()
    with pytest.raises(IncompleteCheckpoint, match=names[2]) as raised:
        gguf.locate(names[0], [tmp_path])
    assert raised.value.missing == (names[2],)


def test_what_cannot_be_served_says_why(tmp_path):
    def refused(name):
        with pytest.raises(UnsupportedModel) as raised:
            gguf.locate(name, [tmp_path])
        return str(raised.value)

    model(tmp_path / "alone.gguf")
    assert "no projector (mmproj-….gguf) beside it" in refused("alone.gguf")
    projector(tmp_path / "mmproj-other.gguf", width=4096)
    assert "(mmproj-other.gguf) was made for it" in refused("alone.gguf")
    model(tmp_path / "other.gguf", "llama")
    assert "architecture is llama" in refused("other.gguf")
    (tmp_path / "page.gguf").write_text("<html>not found</html>")
    assert "no whole GGUF file" in refused("page.gguf")
    (tmp_path / "short.gguf").write_bytes((tmp_path / "alone.gguf").read_bytes()[:60])
    assert "no whole GGUF file" in refused("short.gguf")
    listed = {found.path.name: (found.choice, found.is_foreign) for found in gguf.scan([tmp_path])}
    assert listed["alone.gguf"] == ("alone.gguf (cannot be served)", False)
    assert refused(listed["alone.gguf"][0]) == refused("alone.gguf")
    assert listed["other.gguf"][1]
    with pytest.raises(CheckpointNotFound, match=r"gone\.gguf"):
        gguf.locate("gone.gguf", [tmp_path])


def test_a_projector_is_no_model_whatever_it_is_called(tmp_path):
    model(tmp_path / "a.gguf")
    projector(tmp_path / "vision-tower.gguf")
    assert [found.path.name for found in gguf.scan([tmp_path])] == ["a.gguf"]
    assert list(gguf.projectors([tmp_path])) == ["vision-tower.gguf"]
    assert only(tmp_path).mmproj == tmp_path / "vision-tower.gguf"


HOSTILE = {
    "endless keys": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1 << 40),
    "an endless text": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 1 << 60),
    "a key that is no text": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + struct.pack("<Q", 2)
    + b"\xff\xff",
    "arrays of arrays": struct.pack("<4sIQQ", b"GGUF", 3, 0, 1) + text("a")
    + struct.pack("<IIQ", 9, 9, 5),
    "empty": b"",
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_header_is_refused_at_once(tmp_path, case):
    (tmp_path / "a.gguf").write_bytes(HOSTILE[case])
    assert "no whole GGUF" in only(tmp_path).problem
