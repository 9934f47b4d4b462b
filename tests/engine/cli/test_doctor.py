"""The doctor: its report, its exit status, and nothing of the user's in either."""

from __future__ import annotations

import getpass
import json
import logging
import platform
import shutil
import signal

import adapters
import pytest
from oracle import oracle
from qwen_vl_suite.qwenvl import model_cache
from qwen_vl_suite.qwenvl.backends import local_fast_paths
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.checkpoints import transformers_version
from qwen_vl_suite.qwenvl.checkpoints.library import BUNDLED
from qwen_vl_suite.qwenvl.cli import doctor, main
from qwen_vl_suite.qwenvl.doctor.fast_paths import FastPath
from qwen_vl_suite.qwenvl.doctor.report import Report
from qwen_vl_suite.qwenvl.doctor.text_questions import text_questions
from qwen_vl_suite.qwenvl.inference.fast_path_check import FastPathCheck

SECRET = "acme-merger-model"
TOKEN = "hf_doctorsSecretToken1234"


@pytest.fixture
def model(monkeypatch):
    """``model(backend)`` is what every command loads; an error is raised."""

    def use(backend):
        def load(spec):
            if isinstance(backend, Exception):
                raise backend
            return backend

        monkeypatch.setattr(model_cache, "CACHE", model_cache.ModelCache(load))

    return use


@pytest.fixture
def run(capsys):
    """``run("--scenes", 6)``: exit status, stdout, stderr."""

    def call(*argv):
        try:
            status = main.main(["doctor", *map(str, argv)])
        except SystemExit as stop:
            status = stop.code
        return status, *capsys.readouterr()

    return call


def test_the_bundled_model_is_well(run):
    status, out, err = run("--scenes", 9, "--device", "cpu", "--json")
    report = json.loads(out)
    assert (status, report["problems"], report["error"]) == (0, [], None), err
    assert (report["model"]["name"], report["model"]["attention"]) == ("nano", "sdpa")
    assert report["truth"]["scenes"] == 9
    assert all(task["recall"] > 0.7 for task in report["truth"]["tasks"].values())
    assert report["truth"]["coordinates"]["best"] == "0-1000"
    states = {path["name"]: path["state"] for path in report["fast_paths"]}
    assert "agrees with the plain path" in report["fast_paths"][0]["reason"]
    assert states["patch embedding"] == "on" and states["CUDA graphs"] == "not applicable"
    for name in ("prefill", "decode", "floor"):
        assert report["speed"][f"{name}_tokens_per_second"] > 0
    assert "9 of 9 scenes" in err and "Traceback" not in err


WRONG = {
    ("qwen3_vl", "0-1024"): "0-1024 along each side",
    ("qwen3_vl", "input_pixels"): "pixels of the resized picture",
    ("qwen3_vl", "picture_pixels"): "pixels of the original picture",
    ("qwen3_vl", "0-1"): "fractions",
    ("qwen2_5_vl", "0-1000"): "0-1000 along each side",
    ("qwen2_5_vl", "picture_pixels"): "pixels of the original picture",
}


@pytest.mark.parametrize(("family", "space"), WRONG)
def test_another_coordinate_space_is_a_problem(run, model, family, space):
    model(oracle(12, space, family))
    status, out, _ = run("--scenes", 12)
    (warning,) = [line for line in out.splitlines() if line.startswith("WARNING: Its boxes fit")]
    assert status == 1
    assert WRONG[family, space] in warning


@pytest.mark.parametrize(
    ("family", "space"), [("qwen3_vl", "0-1000"), ("qwen2_5_vl", "input_pixels")]
)
def test_the_space_of_the_family_is_none(run, model, family, space):
    model(oracle(12, space, family))
    status, out, _ = run("--scenes", 12)
    assert (status, "WARNING" in out) == (0, False)
    assert "Nothing is wrong" in out


def test_a_low_recall_is_a_problem(run, model):
    model(oracle(6, replace=lambda q: "No text found." if q.kind == "read" else None))
    status, out, _ = run("--scenes", 6, "--json")
    (problem,) = json.loads(out)["problems"]
    assert status == 1 and problem.startswith("Reading: 0 of ")


def test_a_model_that_reads_text_only_is_asked_in_words(run, model):
    answers = {q.task.prompt: q.expected for n in range(4) for q in text_questions(n)}
    told = ScriptedBackend(
        lambda request: answers.get(request.prompt, "Many boxes."), family="qwen3"
    )
    model(told)
    status, out, _ = run("--scenes", 4, "--json")
    report = json.loads(out)
    assert (status, report["problems"], report["error"]) == (0, [], None)
    truth = report["truth"]
    assert {kind: task["recall"] for kind, task in truth["tasks"].items()} == {
        "repeat": 1.0, "look up": 1.0, "add": 1.0,
    }  # fmt: skip
    assert truth["not_applicable"] == ["describe", "read", "boxes", "points", "coordinates"]
    assert truth["coordinates"] is None and report["speed"]["image_tokens"] == 0
    assert not any(request.images for request in told.requests)
    answers.clear()
    status, out, _ = run("--scenes", 2)
    assert status == 1 and "WARNING: Adding: 0 of 2 right" in out
    assert "since the model reads text only: describe; read; find boxes" in out


@pytest.mark.skipif(transformers_version.is_older("5"), reason="as with the newest")
def test_a_text_model_with_an_adapter_is_examined_to_the_end(run, checkpoint, tmp_path):
    folder = tmp_path / "clients" / SECRET
    adapters.make(folder, checkpoint("qwen3"), targets=("q_proj", "v_proj"))
    status, out, err = run(
        "--model", checkpoint("qwen3"), "--lora", f"{folder}:0.5", "--device", "cpu",
        "--scenes", 1, "--json",
    )  # fmt: skip
    report = json.loads(out)
    assert (status, report["error"]) == (1, None), "random weights know no answer"
    (adapter,) = report["model"]["adapters"]
    assert (adapter["rank"], adapter["strength"]) == (4, 0.5) and adapter["bytes"] > 0
    paths = {path["name"]: path for path in report["fast_paths"]}
    assert "agrees with the plain path" in paths["scheduler"]["reason"]
    assert paths["patch embedding"]["state"] == "not applicable"
    for name in ("prefill", "decode", "floor"):
        assert report["speed"][f"{name}_tokens_per_second"] > 0
    assert SECRET not in out + err and "clients" not in out + err


def test_a_scheduler_that_disagrees_is_told_on_every_device(run, checkpoint, monkeypatch):
    found = {"scheduler": "token 3 was 5 and not 6"}
    monkeypatch.setattr(FastPathCheck, "run", lambda self: found)
    monkeypatch.setattr(local_fast_paths, "_FOUND", {})
    options = ("--model", checkpoint("qwen3"), "--device", "cpu", "--scenes", 0, "--json")
    status, out, _ = run(*options)
    report = json.loads(out)
    assert (status, report["error"]) == (1, None)
    assert report["problems"] == ["scheduler disagreed with the plain way: token 3 was 5 and not 6"]
    assert report["speed"]["decode_tokens_per_second"] > 0


def test_a_fast_path_that_disagreed_is_a_problem():
    paths = [
        FastPath("CUDA graphs", "failed", "token 3 differs"),
        FastPath("MTP drafts", "off", ""),
    ]
    assert Report(fast_paths=paths).problems() == [
        "CUDA graphs disagreed with the plain way: token 3 differs"
    ]


BAD = (
    ("--scenes", -1), ("--scenes", 5000), ("--scenes", "many"), ("--seconds", 0),
    ("--seconds", "nan"), ("--model", "no/such-model"), ("--attention", "quick"),
    ("--device", "toaster"), ("picture.png",),
)  # fmt: skip


@pytest.mark.parametrize("argv", BAD, ids=lambda argv: " ".join(map(str, argv)))
def test_wrong_options_exit_with_2(run, argv):
    status, _, err = run(*argv)
    assert status == 2
    assert "error: " in err and "Traceback" not in err


def test_when_the_time_is_up_the_report_says_so(run, model):
    model(oracle(6))
    status, out, _ = run("--scenes", 6, "--seconds", 1e-9, "--json")
    report = json.loads(out)
    assert (status, report["time_is_up"], report["truth"]) == (0, True, None)
    assert report["environment"]["packages"]["torch"]


def test_ctrl_c_ends_it_at_once(run, model):
    asked = []
    # Whoever runs the tests may have it ignored, as shells do in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def on_request():
        asked.append(1)
        if len(asked) == 10:
            signal.raise_signal(signal.SIGINT)

    model(oracle(12, on_request=on_request))
    try:
        status, out, err = run("--scenes", 12, "--json")
    finally:
        signal.signal(signal.SIGINT, before)
    assert (status, out, len(asked)) == (130, "", 10)
    assert err.endswith("stopped before the report was complete\n")


def test_a_closed_pipe_is_told_as_by_every_command(run, model, monkeypatch):
    def closed(_):
        raise BrokenPipeError

    model(oracle(0))
    monkeypatch.setattr(doctor, "print_result", closed)
    monkeypatch.setattr(main, "discard_pipes", lambda: None)
    assert run("--scenes", 0)[0] == 141


def test_without_a_model_the_machine_is_examined(run, monkeypatch, tmp_path):
    monkeypatch.setattr(doctor, "BUNDLED", tmp_path / "nothing")
    status, out, err = run("--json")
    report = json.loads(out)
    assert (status, report["model"], report["truth"]) == (0, None, None)
    assert report["environment"]["python"] == platform.python_version()
    assert "no model is examined" in err


@pytest.fixture
def secret(tmp_path, monkeypatch):
    """A checkpoint in a folder whose name nobody is to know, and a login."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder = tmp_path / "confidential clients" / SECRET
    shutil.copytree(BUNDLED, folder)
    return folder


def assert_nothing_private(text, tmp_path):
    user, host = getpass.getuser(), platform.node()
    private = [SECRET, "confidential", TOKEN, str(tmp_path), str(BUNDLED)]
    private += [name for name in (user, host) if name not in ("root", "localhost", "")]
    assert not [word for word in private if word in text]


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_the_report_keeps_the_users_secrets(run, secret, tmp_path, form):
    status, out, err = run("--model", secret, "--scenes", 1, "--device", "cpu", *form)
    assert status == 0, err
    assert "Qwen3-VL" in out
    assert_nothing_private(out + err, tmp_path)


DAMAGE = {
    "cut off": lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100),
    "no config": lambda folder: (folder / "config.json").unlink(),
    "broken config": lambda folder: (folder / "config.json").write_text("{"),
    "unknown type": lambda folder: (folder / "config.json").write_text(
        (folder / "config.json").read_text().replace('"qwen3_vl"', '"qwen_of_acme_vl"')
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("relative", [False, True])
def test_errors_over_a_checkpoint_keep_them_too(
    run, secret, tmp_path, monkeypatch, damage, relative
):
    damage(secret)
    monkeypatch.chdir(tmp_path)
    status, out, err = run("--model", secret.relative_to(tmp_path) if relative else secret)
    assert status == 2
    assert "error: " in err
    assert_nothing_private(out + err, tmp_path)


def test_public_names_stay_in_errors(run, tmp_path):
    status, _, err = run("--model", "Qwen/Qwen3-VL-2B-Instruct", "--root", tmp_path / "acme")
    assert status == 2
    assert "Qwen/Qwen3-VL-2B-Instruct is not in <path>" in err
    assert_nothing_private(err, tmp_path)


def test_unexpected_errors_and_logs_keep_them_too(run, model, secret, tmp_path):
    def on_request():
        logging.getLogger("some.library").warning("reading %s as %s", secret, TOKEN)
        raise RuntimeError(f"cannot open '{secret}/x' with {TOKEN}")

    model(oracle(1, on_request=on_request))
    status, out, err = run("--model", secret, "--json")
    report = json.loads(out)
    assert status == 2
    assert report["error"] == "RuntimeError(\"cannot open '<path>' with <secret>\")"
    assert any(frame.endswith("in on_request") for frame in report["trace"])
    assert any(frame.startswith("qwenvl/doctor/speed.py:") for frame in report["trace"])
    assert_nothing_private(out + err, tmp_path)


def test_a_bug_of_the_doctors_own_keeps_them_too(run, model, secret, tmp_path):
    model(RuntimeError(f"cannot open {secret}"))
    status, out, err = run("--model", secret)
    assert (status, out) == (2, "")
    assert "Traceback" in err and "RuntimeError" in err
    assert_nothing_private(err, tmp_path)
