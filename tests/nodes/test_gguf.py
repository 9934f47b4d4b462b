"""The GGUF node: which files are offered, and which llama-server is started for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from gguf_files import model, projector
from qwen_vl_suite.nodes import host
from qwen_vl_suite.nodes.gguf import AUTO, NONE_HERE, forecast
from qwen_vl_suite.qwenvl.errors import BadOption, CheckpointNotFound, Unavailable
from qwen_vl_suite.qwenvl.servers.llama_settings import NAME as SETTINGS

NAME = "Qwen/Qwen3-VL-4B-Q4_K_M.gguf"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of models, and a llama-server on PATH."""
    monkeypatch.setattr(host, "model_roots", lambda: [tmp_path / "LLM"])
    monkeypatch.setattr(host, "private_folder", lambda: tmp_path / "private")
    (tmp_path / "private").mkdir()
    for name in ("llama-server", "other-server"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    model(tmp_path / "LLM" / NAME)
    projector(tmp_path / "LLM/Qwen/mmproj-Qwen3-VL-4B-F16.gguf")
    return tmp_path


def options(nodes: Any, name: str) -> list[str]:
    inputs = {item.id: item for item in nodes["QVL_GGUF"].define_schema().inputs}
    return list(inputs[name].options)


def test_models_that_can_be_served_are_offered_first(root: Path, nodes: Any) -> None:
    model(root / "LLM/alone/Alone.gguf")
    model(root / "LLM/llama.gguf", "llama")
    assert options(nodes, "model") == [NAME, "alone/Alone.gguf (cannot be served)"]
    assert options(nodes, "mmproj") == [AUTO, "Qwen/mmproj-Qwen3-VL-4B-F16.gguf"]
    validate = nodes["QVL_GGUF"].validate_inputs
    assert validate(model=NAME) is True and validate() is True
    assert validate(model="elsewhere\\Qwen3-VL-4B-Q4_K_M.gguf") is True
    assert "no projector" in validate(model="alone/Alone.gguf (cannot be served)")
    assert "no GGUF model 'gone.gguf'" in validate(model="gone.gguf")
    assert "mmproj-" in validate(model=NONE_HERE)


def test_a_model_is_served_by_the_program_on_the_path(root: Path, run_node: Any) -> None:
    (found,) = run_node(
        "QVL_GGUF", model=NAME, context=4096, after_use="unload", max_pixels=90_000
    )  # fmt: skip
    spec = found.spec
    assert found.name == "Qwen3-VL-4B-Q4_K_M"
    assert Path(spec.model) == root / "LLM" / NAME
    assert Path(spec.mmproj).name == "mmproj-Qwen3-VL-4B-F16.gguf"
    assert (spec.family, spec.context, spec.options) == ("qwen3_vl", 4096, ())
    assert Path(spec.program) == root / "llama-server"
    assert (found.after_use, found.max_pixels) == ("unload", 90_000)
    with pytest.raises(BadOption, match="after_use"):
        run_node("QVL_GGUF", model=NAME, after_use="offload to RAM")


def test_its_panel_tells_what_the_server_will_take(root: Path) -> None:
    files = [root / "LLM" / NAME, root / "LLM/Qwen/mmproj-Qwen3-VL-4B-F16.gguf"]
    small, large = (
        forecast({"model": NAME, "context": "1024", "concurrency": str(count)}) for count in (1, 3)
    )
    weights = sum(path.stat().st_size for path in files)
    assert (small["availability"], small["loaded"], small["fits"]) == ("here", "", "now")
    assert large["weights"] - weights == 3 * (small["weights"] - weights) > 0
    assert forecast({"model": NAME, "context": str(1 << 40)})["fits"] == "no"
    for widgets, words in (
        ({"model": "gone.gguf"}, "no GGUF model 'gone.gguf'"),
        ({"model": NAME, "context": "long"}, "whole numbers"),
        ({"model": NAME, "context": "0"}, "context is 0"),
    ):
        with pytest.raises(BadOption, match=words):
            forecast(widgets)


def test_only_a_file_names_another_program(root: Path, run_node: Any) -> None:
    settings = root / "private" / SETTINGS
    settings.write_text(f'program: {root / "other-server"}\noptions: ["-ngl", "20"]\n')
    (found,) = run_node("QVL_GGUF", model=NAME)
    assert Path(found.spec.program) == root / "other-server"
    assert found.spec.options == ("-ngl", "20")
    for wrong in ("options: -ngl 20", "program: [a]", "programme: a", "options: [1]"):
        settings.write_text(wrong)
        with pytest.raises(BadOption, match="write program:"):
            run_node("QVL_GGUF", model=NAME)


def test_what_lacks_is_said(root: Path, run_node: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointNotFound, match="no GGUF model here"):
        run_node("QVL_GGUF", model=NONE_HERE)
    monkeypatch.setenv("PATH", str(root / "nowhere"))
    with pytest.raises(Unavailable, match=r"github\.com/ggml-org/llama\.cpp/releases"):
        run_node("QVL_GGUF", model=NAME)


def test_the_settings_lie_where_no_page_can_write() -> None:
    """ComfyUI reads and writes files of its users' folders over HTTP; a name that begins with two
    underscores is no user's."""
    assert host.private_folder().name.startswith("__")


def test_new_files_and_settings_run_the_graph_anew(root: Path, nodes: Any) -> None:
    def fingerprint() -> str:
        found: str = nodes["QVL_GGUF"].fingerprint_inputs(model=NAME, mmproj=AUTO, context=4096)
        return found

    seen = [fingerprint()]
    assert fingerprint() == seen[0]
    (root / "private" / SETTINGS).write_text('options: ["-ngl", "20"]')
    seen.append(fingerprint())
    with (root / "LLM" / NAME).open("ab") as file:
        file.write(b"more")
    seen.append(fingerprint())
    assert len(set(seen)) == 3
    assert nodes["QVL_GGUF"].fingerprint_inputs(model="gone.gguf") == ""
