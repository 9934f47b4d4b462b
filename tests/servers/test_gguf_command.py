"""A command that is given a GGUF file, with a real llama-server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import running
import tiny_real
from PIL import Image

NEEDED = ("QVL_LLAMA_SERVER", "QVL_LLAMA_CONVERTER", "QVL_QWEN_TOKENIZER")


def users_of(model: Path) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    return [one for one in found if str(model) in (one.info["cmdline"] or ())]


@pytest.mark.skipif(not all(map(os.environ.get, NEEDED)), reason=f"needs {', '.join(NEEDED)}")
def test_a_command_starts_a_server_for_a_file_and_leaves_none(tmp_path: Path) -> None:
    made = tiny_real.make("qwen3_vl", tmp_path / "tiny", Path(os.environ["QVL_QWEN_TOKENIZER"]))
    model, _ = tiny_real.convert(made, Path(os.environ["QVL_LLAMA_CONVERTER"]))
    settings = tmp_path / "config" / "qwenvl" / "llama_server.yaml"
    settings.parent.mkdir(parents=True)
    settings.write_text(f'program: {os.environ["QVL_LLAMA_SERVER"]}\noptions: ["-t", "1"]\n')
    pictures = [tmp_path / f"{colour}.png" for colour in ("red", "blue")]
    for path in pictures:
        Image.new("RGB", (96, 64), path.stem).save(path)
    asked = ["describe", *pictures, "--model", model, "--context", "2048", "--choices", "red,blue"]
    done = subprocess.run(
        [sys.executable, "-m", "qwenvl", *map(str, asked), "--json"],
        cwd=running.ROOT,
        env={**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(row["text"] in ("red", "blue") for row in rows) and len(rows) == 2
    assert len(list((settings.parent / "logs").iterdir())) == 1
    assert not users_of(model)
