"""The listen command, with a scripted model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from qwen_vl_suite.qwenvl import model_cache
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.cli.main import main
from qwen_vl_suite.qwenvl.media import audio
from qwen_vl_suite.qwenvl.media.audio import read, write_wav
from qwen_vl_suite.qwenvl.model_cache import ModelCache
from qwen_vl_suite.qwenvl.types import Audio, Response


def scripted(monkeypatch: pytest.MonkeyPatch, replies: Sequence[Any]) -> ScriptedBackend:
    backend = ScriptedBackend(replies, family="qwen2_5_omni")
    monkeypatch.setattr(model_cache, "CACHE", ModelCache(lambda _: backend))
    return backend


def test_a_line_a_sound_in_order_with_what_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    backend = scripted(monkeypatch, ["first", "last"])
    write_wav(Audio(torch.rand(2, 24_000) - 0.5, 8_000), tmp_path / "a.wav")
    names = [str(tmp_path / name) for name in ("a.wav", "none.wav", "a.wav")]
    assert main(["listen", *names, "--start", "1", "--end", "2.5", "--json"]) == 1
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["sound"] for row in rows] == names
    assert [row["text"] for row in rows] == ["first", "", "last"]
    assert "There is no file" in rows[1]["error"] and "error" not in rows[0]
    assert "a.wav: 1.5 s, 38 tokens" in err or "a.wav: 1.5 s, 37 tokens" in err
    assert [request.media[0].samples.shape for request in backend.requests] == [(1, 24_000)] * 2


def test_answers_are_spoken_into_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    spoken = Response("Hello.", speech=Audio(torch.rand(1, 24_000) - 0.5, 24_000))
    backend = scripted(monkeypatch, [spoken])
    out = tmp_path / "out.wav"
    assert main(["listen", "--ask", "Greet me.", "--speak", str(out), "--voice", "Ethan"]) == 0
    assert capsys.readouterr().out == "Hello.\n"
    assert read(out).samples.shape == (1, 16_000)
    assert backend.requests[0].voice == "Ethan" and backend.requests[0].media == ()
    sound = str(out)
    assert main(["listen", sound, sound, "--ask", "--speak", str(out), "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["speech"]).name for row in rows] == ["out-1.wav", "out-2.wav"]

    def full(*_: Any) -> None:
        raise OSError("No space left")

    monkeypatch.setattr(audio, "write_wav", full)
    assert main(["listen", sound, "--speak", str(out)]) != 0
    kept = capsys.readouterr()
    assert kept.out == "Hello.\n" and "cannot be written" in kept.err
    asked = len(backend.requests)
    for wrong, problem in [("out.mp3", "name it .wav"), ("none/out.wav", "there is no folder")]:
        assert main(["listen", sound, "--speak", str(tmp_path / wrong)]) == 2
        assert problem in capsys.readouterr().err
    assert len(backend.requests) == asked
    assert main(["listen", sound, "--reasoning-effort", "low"]) == 0
    assert backend.requests[-1].reasoning_effort == "low"
    with pytest.raises(SystemExit):
        main(["listen", sound, "--min-pixels", "9"])
    assert "--min-pixels" in capsys.readouterr().err
    assert main(["listen", sound, "--voice", "Ethan"]) == 2
    assert "only with --speak" in capsys.readouterr().err
