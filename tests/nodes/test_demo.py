"""The demo as a person runs it: the bundled model, through the nodes, on the shipped pictures."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_the_demo_tells_what_is_in_the_pictures() -> None:
    done = subprocess.run(
        [sys.executable, "demo.py"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    answers = {
        part.split()[0]: part
        for part in done.stdout.split("\n\n")
        if part.startswith(("shapes", "words", "both"))
    }
    assert set(answers) == {"shapes.png", "words.png", "both.png"}
    # What is sure; how often nano is wrong is measured elsewhere, on many more pictures.
    assert "orange triangle" in answers["shapes.png"]
    assert "COLD" in answers["words.png"] and "BREAD" in answers["words.png"]
    assert "SNAKE" in answers["both.png"]
    folder = Path(done.stdout.rsplit("Annotated pictures: ", 1)[1].strip())
    drawn = {path.name for path in folder.glob("*.png")}
    assert {"shapes-found.png", "both-found.png", "words-read.png"} <= drawn
