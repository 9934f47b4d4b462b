from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from qwen_vl_suite.qwenvl import cache, checkpoints, cli
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.types import Response

from .disk import files, write
from .hub import Hub

ROOT = Path(__file__).resolve().parents[2]
BOXES = '```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]\n```'


class Scripted:
    """Answers with ``replies`` in turn and keeps what it was asked."""

    nbytes = 0

    def __init__(self, *replies, family="qwen3_vl", finish="stop"):
        self.family = FAMILIES[family]
        self.replies, self.finish = replies, finish
        self.requests, self.specs = [], []

    def thinks(self, wish=None):
        if wish:
            raise BadOption("This model does not think.")
        return False

    def generate(self, requests, watch=None):
        self.requests += requests
        return [
            Response(
                self.replies[index % len(self.replies)],
                thinking="hm",
                finish_reason=self.finish,
                input_sizes=(tuple(request.images[0].shape[-2:]),),
            )
            for index, request in enumerate(requests)
        ]

    def close(self):
        pass


@pytest.fixture
def model(monkeypatch):
    """``model("reply")`` is what every command then asks."""

    def use(*replies, **how):
        backend = Scripted(*replies, **how)

        def load(spec):
            backend.specs.append(spec)
            return backend

        monkeypatch.setattr(cache, "CACHE", cache.ModelCache(load))
        return backend

    return use


@pytest.fixture
def pictures(tmp_path):
    from PIL import Image

    paths = []
    for number, size in enumerate([(200, 100), (50, 80)]):
        paths.append(str(tmp_path / f"{number}.png"))
        Image.new("RGB", size, (number, 0, 0)).save(paths[-1])
    return paths


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("parse", ..., stdin="...")``: exit status, objects on stdout, text on stderr."""

    def call(*argv, stdin=""):
        text = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="ascii")
        monkeypatch.setattr(sys, "stdin", text)
        try:
            status = cli.main([str(word) for word in argv])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return status, rows if rows else out, err

    return call


def parse(family, task, *more):
    return ("parse", "--family", family, "--image-size", "2000x1000", "--task", task, *more)


def box(x, y, width, height, label):
    expected = {"x": x, "y": y, "width": width, "height": height}
    return {k: pytest.approx(v, abs=1) for k, v in expected.items()} | {
        "label": label,
        "score": None,
    }


ABSOLUTE = '[{"bbox_2d": [280, 140, 560, 280], "label": "cat"}]'
PARSED = {
    "relative": (
        parse("qwen3_vl", "boxes"), BOXES, [box(200, 200, 400, 200, "cat")], [],
    ),
    "relative, the input size does not matter": (
        parse("qwen3_vl", "boxes", "--input-size", "320x320"),
        BOXES, [box(200, 200, 400, 200, "cat")], [],
    ),
    "absolute, at the size given": (
        parse("qwen2_5_vl", "boxes", "--input-size", "1400x700"),
        ABSOLUTE, [box(400, 200, 400, 200, "cat")], [],
    ),
    "absolute, at the size the processor makes (1988x1008)": (
        parse("qwen2_5_vl", "boxes"),
        '[{"bbox_2d": [994, 504, 1988, 1008], "label": "cat"}]',
        [box(1000, 500, 1000, 500, "cat")], [],
    ),
    "points": (
        parse("qwen3_vl", "points"),
        '[{"point_2d": [500, 250], "label": "eye"}]',
        [], [{"x": pytest.approx(1000, abs=1), "y": pytest.approx(250, abs=1), "label": "eye"}],
    ),
    "a thought before": (
        parse("qwen3_vl", "boxes"), "so, [1, 2, 3]...</think>\n\n" + BOXES,
        [box(200, 200, 400, 200, "cat")], [],
    ),
    "tags of the first generation": (
        parse("qwen", "boxes"), "<ref>cat</ref><box>(100,200),(300,400)</box>",
        [box(200, 200, 400, 200, "cat")], [],
    ),
    "none": (parse("qwen3_vl", "boxes"), "[]", [], []),
    "a family by its title": (
        parse("Qwen2.5-VL", "boxes", "--input-size", "1400x700"),
        ABSOLUTE, [box(400, 200, 400, 200, "cat")], [],
    ),
    "Chinese, whatever the console's encoding": (
        parse("qwen3_vl", "boxes"), BOXES.replace("cat", "猫"),
        [box(200, 200, 400, 200, "猫")], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("argv", "reply", "boxes", "points"), PARSED.values(), ids=PARSED)
def test_parse(run, argv, reply, boxes, points):
    status, rows, err = run(*argv, stdin=reply)
    assert (status, err) == (0, "")
    assert len(rows) == 1 and list(rows[0]) == ["boxes", "points", "text"]
    assert (rows[0]["boxes"], rows[0]["points"]) == (boxes, points)


def test_parse_ocr_gives_text_and_where_it_stands(run):
    reply = '[{"bbox_2d": [0, 0, 500, 100], "text_content": "Hello"}]'
    status, rows, _ = run(*parse("qwen3_vl", "ocr"), stdin=reply)
    assert status == 0
    assert rows[0]["text"] == "Hello"
    assert rows[0]["boxes"] == [box(0, 0, 1000, 100, "Hello")]


@pytest.mark.parametrize("task", ["boxes", "points"])
def test_an_unreadable_reply_exits_with_3(run, task):
    status, out, err = run(*parse("qwen3_vl", task), stdin="I like the picture, it is blue.")
    assert (status, out) == (3, "")
    assert err.startswith("error: ") and "Traceback" not in err


BAD = {
    "family": (*parse("gpt", "boxes"),),
    "task": (*parse("qwen3_vl", "masks"),),
    "size": ("parse", "--family", "qwen3_vl", "--image-size", "12", "--task", "boxes"),
    "zero": ("parse", "--family", "qwen3_vl", "--image-size", "0x9", "--task", "boxes"),
    "no command": (),
}


@pytest.mark.parametrize("argv", BAD.values(), ids=BAD)
def test_bad_options_exit_with_2_and_say_what_is_possible(run, argv):
    status, out, err = run(*argv, stdin="[]")
    assert (status, out) == (2, "")
    assert "error: " in err and "Traceback" not in err


def test_a_picture_each_gets_an_object_in_one_run(run, model, pictures):
    backend = model("a", "b")
    status, rows, _ = run("describe", *pictures, "--json", "--style", "short")
    assert status == 0
    assert [(row["image"], row["text"]) for row in rows] == list(zip(pictures, "ab", strict=True))
    assert {"boxes", "points", "data", "thinking", "finish_reason"} <= set(rows[0])
    assert "error" not in rows[0]
    assert [tuple(r.images[0].shape) for r in backend.requests] == [(3, 100, 200), (3, 80, 50)]


def test_people_read_text(run, model, pictures):
    model("a cat")
    assert run("describe", pictures[0])[1] == "a cat\n"
    assert run("describe", *pictures)[1] == f"{pictures[0]}:\na cat\n\n{pictures[1]}:\na cat\n\n"


def test_boxes_are_in_pixels_of_the_picture(run, model, pictures):
    model(BOXES)
    _, rows, _ = run("ground", pictures[0], "--find", "cat", "--json")
    assert rows[0]["boxes"] == [box(20, 20, 40, 20, "cat")]


def test_points_can_be_asked_for(run, model, pictures):
    backend = model('[{"point_2d": [500, 500], "label": "cat"}]')
    _, rows, _ = run("ground", pictures[0], "--find", "cat", "--kind", "points", "--json")
    assert rows[0]["points"] == [{"x": 100.0, "y": 50.0, "label": "cat"}]
    assert "cat" in backend.requests[0].prompt


def test_what_could_be_read_is_shown_though_some_could_not(run, model, pictures):
    model("nonsense, I am afraid", BOXES)
    status, rows, err = run("ground", *pictures, "--find", "cat", "--json")
    assert status == 3
    assert rows[0]["error"] and rows[0]["text"] == "nonsense, I am afraid"
    assert "error" not in rows[1] and len(rows[1]["boxes"]) == 1
    assert pictures[0] in err and pictures[1] not in err


def test_a_cut_reply_is_said(run, model, pictures):
    model("a cat and", finish="length")
    _, rows, err = run("describe", pictures[0], "--json")
    assert rows[0]["finish_reason"] == "length"
    assert "length" in err


def test_ocr_options_reach_the_task(run, model, pictures):
    backend = model("Hello")
    run("ocr", pictures[0], "--output", "markdown")
    run("ocr", pictures[0], "--output", "plain", "--language", "Finnish")
    assert len({r.prompt for r in backend.requests}) == 2
    assert "Finnish" in backend.requests[1].prompt


def test_sampling_options_change_single_fields(run, model, pictures):
    backend = model("a cat")
    run("describe", pictures[0], "--temperature", "0.1", "--seed", "7", "--max-new-tokens", "9")
    run("describe", pictures[0])
    changed, own = (request.sampling for request in backend.requests)
    assert (changed.temperature, changed.seed, changed.max_new_tokens) == (0.1, 7, 9)
    assert changed.top_p == own.top_p == FAMILIES["qwen3_vl"].sampling.top_p
    assert own.temperature == FAMILIES["qwen3_vl"].sampling.temperature


def test_the_request_carries_the_rest(run, model, pictures):
    backend = model("a cat")
    run(
        "describe", pictures[0], "--prompt", "What now?", "--system", "Be kind.",
        "--max-pixels", "4096", "--no-thinking",
    )  # fmt: skip
    request = backend.requests[0]
    assert (request.prompt, request.system, request.max_pixels, request.thinking) == (
        "What now?", "Be kind.", 4096, False,
    )  # fmt: skip


def test_the_model_is_the_demo_or_a_folder(run, model, pictures, tmp_path):
    backend = model("a cat")
    run("describe", pictures[0])
    run("describe", pictures[0], "--model", "demo")
    run("describe", pictures[0], "--model", tmp_path, "--quantization", "4bit", "--device", "cpu")
    bundled, other = backend.specs
    assert bundled.checkpoint == str(checkpoints.BUNDLED)
    assert (other.checkpoint, other.quantization, other.device) == (str(tmp_path), "4bit", "cpu")


FAILURES = {
    "no such picture": ("describe", "absent.png"),
    "no such model": ("describe", "PICTURE", "--model", "absent"),
    "a wish that cannot be met": ("describe", "PICTURE", "--thinking"),
    "no such repository": ("download", "nonsense"),
}


@pytest.mark.parametrize("argv", FAILURES.values(), ids=FAILURES)
def test_errors_are_sentences(run, model, pictures, monkeypatch, argv):
    if "absent" not in argv:
        model("a cat")
    status, out, err = run(*(pictures[0] if word == "PICTURE" else word for word in argv))
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1


def test_models_lists_what_is_there(run, tmp_path):
    whole = files()
    write(tmp_path / "Qwen-VL" / "whole", whole)
    write(tmp_path / "half", {k: v for k, v in whole.items() if "00001" not in k})
    status, rows, _ = run("models", "--root", tmp_path, "--json")
    assert status == 0
    found = {row["name"]: row for row in rows}
    assert set(found) == {"demo", "half", "Qwen-VL/whole"}
    assert found["Qwen-VL/whole"]["problem"] == ""
    assert found["Qwen-VL/whole"]["family"] == "qwen3_vl"
    assert found["half"]["missing"] == ["model-00001-of-00002.safetensors"]
    _, text, _ = run("models", "--root", tmp_path)
    assert "half  qwen3_vl" in text and "is missing" in text


def test_models_can_list_the_catalogue(run, tmp_path):
    _, rows, _ = run("models", "--root", tmp_path, "--catalogue", "--json")
    assert {row.get("repo_id") for row in rows} >= set(checkpoints.CATALOGUE)


def test_download(run, tmp_path):
    with Hub({"Qwen/Tiny": files()}) as hub:
        argv = ("download", "Qwen/Tiny", "--root", tmp_path, "--endpoint", hub.url)
        status, out, err = run(*argv)
        assert (status, out) == (0, f"{tmp_path / 'Tiny'}\n")
        size = sum(map(len, files().values()))
        assert err.splitlines()[-1].startswith(f"{size} B of {size} B  model-0000")
        (row,) = run(*argv, "--source", "modelscope", "--json")[1]
        assert row == {"path": f"{tmp_path}/Tiny", "revision": "master"}


def test_in_its_own_process_parse_needs_no_torch():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "qwenvl", *parse("qwen3_vl", "boxes")],
        cwd=ROOT,
        input=BOXES.replace("cat", "猫").encode(),
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))["boxes"][0]["label"] == "猫"
    imported = {line.split(b"|")[-1].strip() for line in done.stderr.splitlines()}
    assert b"json" in imported
    assert not imported & {b"torch", b"transformers", b"PIL.Image", b"numpy"}
