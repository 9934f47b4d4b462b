"""Report: the same in JSON and in text, and whole whatever is missing."""

from __future__ import annotations

import json

import pytest
from oracle import oracle
from qwen_vl_suite.qwenvl.doctor import model_facts, truth
from qwen_vl_suite.qwenvl.doctor.examination import examine, examine_machine
from qwen_vl_suite.qwenvl.doctor.report import Report
from qwen_vl_suite.qwenvl.doctor.speed import Floor, Speed
from qwen_vl_suite.qwenvl.doctor.text_report import text
from qwen_vl_suite.qwenvl.doctor.time_limit import TimeLimit
from qwen_vl_suite.qwenvl.errors import OutOfMemory
from qwen_vl_suite.qwenvl.types import LocalSpec

CARD = {"device": "cuda:0", "name": "Card", "capability": "8.9", "free": 2**30, "total": 2**31}

LOST = {"device": "cuda:1", "error": "lost"}


def lines_of(report):
    return text(json.loads(json.dumps(report.as_json()))).splitlines()


def test_the_machine_alone_is_a_report():
    lines = lines_of(examine_machine())
    assert lines[0] == "Environment" and "torch" in "".join(lines)
    assert lines[-1] == "Nothing is wrong with what was examined."


@pytest.mark.parametrize(
    ("torch", "line"),
    [
        ({"error": "OSError: no libcudart"}, "  torch cannot be imported: OSError: no libcudart"),
        (
            {"cuda": "12.8", "hip": None, "threads": 4, "devices": [CARD]},
            "  cuda:0: Card, compute capability 8.9, 1.1 GB free of 2.1 GB",
        ),
        (
            {"cuda": None, "hip": "6.4", "threads": 4, "devices": []},
            "  torch built for HIP 6.4, 4 threads",
        ),
        (
            {"cuda": None, "hip": None, "threads": 4, "devices": [LOST]},
            "  cuda:1: lost",
        ),
    ],
)  # fmt: skip
def test_torch_and_its_devices(torch, line):
    report = examine_machine()
    report.environment["torch"] = torch
    assert line in lines_of(report)


def test_speed_stands_beside_its_floor():
    measured = Speed(1000, 900, 64, 5000.4, 41.7, Floor(400e9, 8 * 10**9))
    report = examine_machine()
    report.speed = measured
    assert report.as_json()["speed"] == {
        "prompt_tokens": 1000, "image_tokens": 900, "new_tokens": 64,
        "prefill_tokens_per_second": 5000.4, "decode_tokens_per_second": 41.7,
        "floor_tokens_per_second": 50.0, "bandwidth_bytes_per_second": 400_000_000_000,
        "bytes_per_step": 8_000_000_000,
    }  # fmt: skip
    joined = "\n".join(lines_of(report))
    assert "decoding 42 tokens/s" in joined and "allow 50 tokens/s" in joined
    report.speed = Speed(1000, 900, 1, None, None)
    assert "  decoding not measured" in lines_of(report)


def examined(backend, scenes=3, checkpoint="x"):
    report = examine_machine()
    examine(report, backend, LocalSpec(checkpoint), scenes, TimeLimit(), lambda line: None)
    return report


def test_a_few_scenes_tell_no_coordinate_space():
    report = examined(oracle(3))
    assert "not enough boxes to tell" in "\n".join(lines_of(report))
    assert report.as_json()["truth"]["coordinates"]["best"] is None
    assert report.problems() == []


def test_no_scenes_are_no_truth():
    report = examined(oracle(0), 0)
    assert report.as_json()["truth"] is None and report.speed is not None


def test_examples_show_what_was_there_and_what_was_said():
    report = examined(
        oracle(3, replace=lambda q: "Nothing\n at all." if q.kind == "read" else None)
    )
    lines = lines_of(report)
    at = next(k for k, line in enumerate(lines) if ", read: expected" in line)
    assert lines[at + 1] == "    got Nothing at all."


def test_a_terminal_is_told_nothing_by_a_reply():
    report = examined(oracle(3, replace=lambda q: "\x1b[2J\x07gone" if q.kind == "read" else None))
    assert "    got \ufffd[2J\ufffdgone" in lines_of(report)
    assert "\x1b" in report.as_json()["truth"]["examples"][0]["reply"]


def test_an_error_keeps_what_was_found_before_it(monkeypatch):
    def fail(*_):
        raise OutOfMemory("RAM does not suffice")

    monkeypatch.setattr(truth, "ask", fail)
    report = examined(oracle(3))
    assert (report.error, list(report.trace)) == ("RAM does not suffice", [])
    assert report.speed is not None and report.model is not None
    assert lines_of(report)[-1] == "Ended early: RAM does not suffice"


def test_a_model_that_cannot_be_looked_at_was_asked_all_the_same(monkeypatch):
    def fail(*_):
        raise KeyError("layers")

    monkeypatch.setattr(model_facts, "model_facts", fail)
    report = examined(oracle(3))
    assert report.error == "KeyError('layers')" and report.trace[-1].endswith("in fail")
    assert report.truth is not None and report.truth.scenes == 3


def test_a_checkpoint_without_a_public_name_is_the_users_own():
    report = examined(oracle(0), 0)
    assert "  a checkpoint of your own: Qwen3-VL (qwen3_vl), coordinates are read as 0-1000" in (
        "\n".join(lines_of(report))
    )


@pytest.mark.parametrize(("space", "problems"), [("0-1024", 0), ("0-1000", 1)])
def test_a_fine_tune_is_asked_and_measured_as_itself(space, problems):
    backend = oracle(12, space, "qwen3_5", checkpoint="chandra-ocr-2")
    report = examined(backend, 12, "folder/chandra-ocr-2")
    assert report.model["fine_tune"] == "Chandra"
    assert report.truth.coordinates.expected == "0-1024"
    assert len(report.problems()) == problems


def test_reading_is_asked_in_a_fine_tunes_words():
    backend = oracle(1, checkpoint="RolmOCR")
    report = examined(backend, 1, "RolmOCR")
    assert report.truth.tasks["read"].recall == 1
    assert any("as if you were reading it naturally" in r.prompt for r in backend.requests)


def test_an_empty_report_is_no_problem():
    assert Report().problems() == []
