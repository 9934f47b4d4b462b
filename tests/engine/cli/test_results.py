"""What a command says of its inputs as a whole: how far it came, and why some have no answer."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from PIL import Image
from qwen_vl_suite.qwenvl.cli import portions
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption, NumericalError
from qwen_vl_suite.qwenvl.media.audio import write_wav
from qwen_vl_suite.qwenvl.types import Audio


@pytest.fixture
def pictures(tmp_path):
    """Of widths that differ."""
    paths = [str(tmp_path / f"{number}.png") for number in range(4)]
    for number, path in enumerate(paths):
        Image.new("RGB", (40 + number, 40)).save(path)
    return paths


def refusing(backend, kind, why, count=2):
    """``backend`` refuses the first ``count`` of the ``pictures``."""
    real = backend._replay_of

    def replay_of(request):
        width = request.images[0].shape[-1]
        return kind(why.format(width)) if width < 40 + count else real(request)

    backend._replay_of = replay_of


@pytest.mark.parametrize(
    ("kind", "why"),
    [(BadOption, "The prompt is {} tokens long"), (BadImage, "It is too large")],
)
@pytest.mark.parametrize("command", ["describe", "prompt"])
def test_inputs_that_are_each_refused_for_what_they_are_end_no_run(
    run, model, pictures, monkeypatch, kind, why, command
):
    monkeypatch.setattr(portions, "MAX_IMAGES", 2)
    refusing(model("a cat"), kind, why)
    shown = [word for path in pictures for word in ("--image", path)]
    status, rows, err = run(command, *(pictures if command == "describe" else shown), "--json")
    assert status == 1 and "stopped after" not in err
    assert [row.get("error") for row in rows] == [why.format(40), why.format(41), None, None]


def test_options_that_are_refused_with_any_input_end_the_run(run, model, pictures, monkeypatch):
    monkeypatch.setattr(portions, "MAX_IMAGES", 2)
    refusing(model("a cat"), BadOption, "It cannot think", count=4)
    status, rows, err = run("describe", *pictures, "--json")
    assert (status, len(rows)) == (2, 2) and err.endswith("stopped after 2 of 4\n")


def test_a_sound_that_cannot_be_read_is_told_beside_a_model_that_hears_none(run, model, tmp_path):
    model("Never.")
    names = [str(tmp_path / name) for name in ("a.wav", "b.wav")]
    Path(names[0]).write_bytes(b"no sound")
    write_wav(Audio(torch.rand(1, 16_000) - 0.5, 16_000), names[1])
    status, rows, _ = run("listen", *names, "--json")
    assert status == 2 and "cannot be opened" in rows[0]["error"] and rows[1]["error"]
    assert rows[0]["error"] != rows[1]["error"]


def test_a_model_that_breaks_behind_a_reply_that_cannot_be_read_tells_how_far_it_came(
    run, model, pictures, monkeypatch
):
    monkeypatch.setattr(portions, "MAX_IMAGES", 1)
    replies = iter(["I like it, it is blue."])

    def reply(request):
        if (text := next(replies, None)) is None:
            raise NumericalError("NaN")
        return text

    model(reply)
    status, rows, err = run("ground", *pictures, "--find", "cat", "--json")
    assert (status, len(rows)) == (1, 1)
    assert err.endswith("error: NaN\nstopped after 1 of 4\n")


@pytest.mark.parametrize("top", [(), ("--top", "1")])
def test_scores_that_end_early_tell_how_far_they_came(run, model, pictures, monkeypatch, top):
    monkeypatch.setattr(portions, "MAX_IMAGES", 1)
    backend = model("", scores=[[1, 0, 3, 0]])
    real = backend.score

    def score(requests, *more):
        if backend.requests:
            raise NumericalError("NaN")
        return real(requests, *more)

    backend.score = score
    status, rows, err = run("score", *pictures, "--text", "a cat", "--json", *top)
    assert status == 1 and [row["score"] for row in rows] == [0.25]
    assert err == "error: NaN\nstopped after 1 of 4\n"


def test_a_second_ctrl_c_while_the_next_portion_is_read_is_heard(monkeypatch):
    """The generator that reads it runs in its thread then, and cannot be closed from another."""

    class Impatient(ThreadPoolExecutor):
        def __exit__(self, *args):
            raise KeyboardInterrupt

    monkeypatch.setattr(portions, "ThreadPoolExecutor", Impatient)
    reads, closed = threading.Event(), threading.Event()

    def two(stopped):
        try:
            yield 1
            reads.set()
            stopped.wait(20)
            threading.Event().wait(0.2)
            yield 2
        finally:
            closed.set()

    ahead = portions.read_ahead(two)
    assert next(ahead) == 1 and reads.wait(20)
    with pytest.raises(KeyboardInterrupt):
        ahead.close()
    assert closed.wait(20)
