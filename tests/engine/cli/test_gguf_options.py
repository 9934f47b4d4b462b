"""GGUF models on the command line: a stand-in for llama-server is started for a file, and ended
with the command."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from gguf_files import model, projector
from PIL import Image
from qwen_vl_suite.qwenvl import model_cache
from qwen_vl_suite.qwenvl.cli import doctor, gguf_options
from qwen_vl_suite.qwenvl.cli.model_options import spec_of
from qwen_vl_suite.qwenvl.cli.parser import make_parser
from qwen_vl_suite.qwenvl.errors import BadOption, UnsupportedModel
from qwen_vl_suite.qwenvl.types import GgufSpec

ROOT = Path(__file__).resolve().parents[3]
FAKE = Path(__file__).resolve().parents[1] / "servers" / "fake_llama_server.py"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in is started by a shell")


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "bin" / "llama-server"
    path.parent.mkdir()
    path.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture
def files(own_folder, program, tmp_path):
    """A model with its vision tower and a picture; the user's settings name the program."""
    model(tmp_path / "LLM/Qwen/Qwen3-VL-4B.gguf")
    projector(tmp_path / "LLM/Qwen/mmproj-F16.gguf")
    projector(tmp_path / "elsewhere.gguf")
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    own_folder.mkdir()
    (own_folder / "llama_server.yaml").write_text(f'program: {program}\noptions: ["-t", "1"]\n')
    return tmp_path


def spec(*words):
    return spec_of(make_parser(None).parse_args(["describe", "a.png", *map(str, words)]))


def test_a_file_is_a_model_with_the_tower_beside_it(files, own_folder, program):
    path = files / "LLM/Qwen/Qwen3-VL-4B.gguf"
    found = spec("--model", path)
    tower = str(path.with_name("mmproj-F16.gguf"))
    assert found == GgufSpec(
        str(path), tower, "qwen3_vl",
        program=str(program), options=("-t", "1"), log_folder=str(own_folder / "logs"),
    )  # fmt: skip
    assert spec("--model", "qwen3-vl-4b.gguf", "--root", files / "LLM") == found
    more = ("--mmproj", files / "elsewhere.gguf", "--context", "4096", "--concurrency", "3")
    other = spec("--model", path, *more)
    changed = {"mmproj": str(files / "elsewhere.gguf"), "context": 4096, "concurrency": 3}
    assert other == dataclasses.replace(found, **changed)


def test_a_tower_may_lie_elsewhere_whether_the_model_is_named_by_its_file_or_not(files):
    path = files / "LLM/Qwen/Qwen3-VL-4B.gguf"
    path.with_name("mmproj-F16.gguf").unlink()
    tower = files / "elsewhere.gguf"
    for named in ((path,), (path.name, "--root", files / "LLM")):
        assert spec("--model", *named, "--mmproj", tower).mmproj == str(tower)
        with pytest.raises(UnsupportedModel, match="There is no projector"):
            spec("--model", *named)


def test_a_command_asks_it_and_without_settings_the_one_on_path(
    files, run, own_folder, program, monkeypatch
):
    asked = ("describe", files / "a.png", "--model", files / "LLM/Qwen/Qwen3-VL-4B.gguf")
    status, out, _ = run(*asked)
    assert status == 0 and out.startswith("I am ")
    assert (own_folder / "logs").is_dir()
    model_cache.CACHE.clear()
    assert not psutil.pid_exists(int(out.strip().removeprefix("I am ").removesuffix(".")))
    (own_folder / "llama_server.yaml").unlink()
    monkeypatch.setenv("PATH", str(program.parent))
    assert spec(*asked[2:]).program == str(program)
    monkeypatch.setenv("PATH", "")
    status, _, err = run(*asked)
    assert status == 2
    assert f"write program: and where it is into {own_folder / 'llama_server.yaml'}" in err


def test_reading_a_large_one_is_said_first(files, run, monkeypatch):
    asked = ("describe", files / "a.png", "--model", files / "LLM/Qwen/Qwen3-VL-4B.gguf")
    assert "is started" not in run(*asked)[2]
    monkeypatch.setattr(gguf_options, "_LARGE", 1)
    status, out, err = run(*asked, "--json")
    assert status == 0 and len(out) == 1
    assert re.match(r"llama-server is started, and reads [\d.]+ k?B first\.\n", err)


REFUSED = {
    "how to load it": (("--quantization", "4bit"), "--quantization.*llama-server"),
    "an adapter": (("--lora", "mine"), "--lora.*llama-server"),
    "a family": (("--family", "qwen3_vl"), "--family has a use only with --server"),
    "no context": (("--context", "0"), "context is 0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_about_other_models_are_refused(files, case):
    options, words = REFUSED[case]
    with pytest.raises(BadOption, match=words):
        spec("--model", files / "LLM/Qwen/Qwen3-VL-4B.gguf", *options)


def test_options_about_gguf_models_are_refused_of_others(files):
    for other in ((), ("--server", "http://127.0.0.1:8000/v1")):
        for option in (("--mmproj", "a.gguf"), ("--context", "4096")):
            with pytest.raises(BadOption, match=rf"{option[0]} has a use only with a \.gguf file"):
                spec(*other, *option)


def test_what_cannot_be_served_is_said(files, run):
    for name, words in (
        ("gone.gguf", "no file gone.gguf, and no GGUF model of that name below models/LLM"),
        (files / "elsewhere.gguf", "is a vision tower"),
    ):
        status, _, err = run("describe", files / "a.png", "--model", name)
        assert status == 2 and words in err


def test_they_are_listed_with_the_models_of_this_machine(files, run):
    _, rows, _ = run("models", "--root", files / "LLM", "--json")
    found = {row["name"]: (row["family"], row["problem"]) for row in rows[1:]}
    assert found == {"Qwen/Qwen3-VL-4B.gguf": ("qwen3_vl", "")}


def test_a_report_names_neither_the_file_nor_its_folder(tmp_path):
    path = tmp_path / "my-secret-folder" / "my-secret-model.gguf"
    options = ("--model", str(path), "--mmproj", str(path.with_name("my-secret-tower.gguf")))
    redact = doctor._redactor(make_parser(None).parse_args(["doctor", *options]))
    for said in (path, path.name, path.stem, f"llama-server-{path.stem}-12-1.log", *options):
        assert "my-secret" not in redact(f"error: {said} is broken")


def test_ctrl_c_ends_it_with_the_command(files, program, tmp_path, heeded_ctrl_c):
    path = files / "LLM/Qwen/Qwen3-VL-4B.gguf"
    with path.open("ab") as file:
        file.write(b"<never ready>")
    environ = {**os.environ, "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}"}
    environ |= {"XDG_CONFIG_HOME": str(tmp_path / "config"), "HOME": str(tmp_path)}
    words = ["describe", str(files / "a.png"), "--model", str(path)]
    command = [sys.executable, "-m", "qwenvl", *words]
    with subprocess.Popen(
        command, cwd=ROOT, env=environ, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        try:
            began = time.monotonic()
            while len(family := psutil.Process(process.pid).children(recursive=True)) < 2:
                assert time.monotonic() < began + 120 and process.poll() is None
                time.sleep(0.05)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()
    _, alive = psutil.wait_procs(family, timeout=20)
    assert not alive
