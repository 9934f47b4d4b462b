"""GGUF backend: a stand-in for llama-server runs as long as the model is wanted in memory."""

from __future__ import annotations

import dataclasses
import itertools
import os
import struct
import sys
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import torch
from qwen_vl_suite.qwenvl.backends.base import Resident, Resizer, Scorer
from qwen_vl_suite.qwenvl.backends.gguf import arguments, open_gguf
from qwen_vl_suite.qwenvl.backends.served_weights import BatchWatch
from qwen_vl_suite.qwenvl.errors import QwenVLError, Unavailable
from qwen_vl_suite.qwenvl.model_cache import ModelCache
from qwen_vl_suite.qwenvl.models.memory import Memory
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.query import Query
from qwen_vl_suite.qwenvl.stream import answer_stream
from qwen_vl_suite.qwenvl.tasks.describe import describe
from qwen_vl_suite.qwenvl.types import GgufSpec, Request, Result
from trickling import Answers, Trickle

FAKE = Path(__file__).resolve().parents[1] / "servers" / "fake_llama_server.py"
pytestmark = pytest.mark.skipif(os.name == "nt", reason="the stand-in is started by a shell")
EMPTY = struct.pack("<4sIQQ", b"GGUF", 3, 0, 0)


class Room(Memory):
    """Keeps what it was asked to make room for."""

    def __init__(self):
        self.asked = []

    def bring(self, weights, work, progress=None):
        self.asked.append((weights.size, weights.place))
        super().bring(weights, work, progress)


@pytest.fixture
def spec(tmp_path):
    program = tmp_path / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {FAKE} "$@"\n')
    program.chmod(0o755)
    for name in ("model.gguf", "mmproj.gguf"):
        (tmp_path / name).write_bytes(EMPTY + bytes(1000))
    return GgufSpec(
        str(tmp_path / "model.gguf"), str(tmp_path / "mmproj.gguf"), "qwen3_vl",
        context=2048, concurrency=3, device="cpu", program=str(program),
        options=("--threads", "1"), log_folder=str(tmp_path / "logs"),
    )  # fmt: skip


@pytest.fixture
def cache(spec):
    memory = Room()
    found = ModelCache(lambda wanted: open_gguf(wanted, memory))
    found.memory = memory
    yield found
    found.clear()


def pid(responses):
    """Of the process that answered."""
    (text,) = {response.text for response in responses}
    return int(text.removeprefix("I am ").removesuffix("."))


def ask(backend, *words, observer=None):
    picture = torch.zeros(3, 64, 96, dtype=torch.uint8)
    return backend.generate([Request.ask([picture], one) for one in words], observer)


def test_it_is_started_when_it_is_asked_and_ended_with_the_model(cache, spec):
    with cache.lease(spec) as backend:
        assert isinstance(backend, Resident) and isinstance(backend, Scorer)
        assert (backend.place, backend.nbytes, cache.memory.asked) == ("disk", 0, [])
        assert backend.thinks() is False  # nothing is started to tell it
        answers = ask(backend, "one", "two")
        assert not any(response.error for response in answers)
        first = pid(answers)
        assert backend.place == "device"
        assert backend.nbytes == sum(Path(p).stat().st_size for p in (spec.model, spec.mmproj))
        assert cache.memory.asked == [(backend.nbytes, "disk")]
        assert pid(ask(backend, "three")) == first
    backend.offload()
    assert not psutil.pid_exists(first)
    with cache.lease(spec) as backend:
        second = pid(ask(backend, "four"))
    assert second != first
    cache.unload(spec)
    assert not psutil.pid_exists(second)
    with pytest.raises(QwenVLError, match="unloaded"):
        ask(backend, "five")


def test_one_that_ends_by_itself_costs_that_answer_and_is_started_again(cache, spec):
    with cache.lease(spec) as backend:
        before = pid(ask(backend, "one"))
        (failed,) = ask(backend, "end yourself")
        assert isinstance(failed.error, Unavailable)
        assert "GGML_ASSERT(false) failed" in str(failed.error)
        assert pid(ask(backend, "two")) != before


def test_of_requests_that_come_up_one_after_another_its_end_costs_what_it_was_asked_then(
    cache, spec
):
    def lots(*words):
        picture = torch.zeros(3, 64, 96, dtype=torch.uint8)
        return Trickle([[Request.ask([picture], one)] for one in words], slow=True)

    with cache.lease(spec) as backend:
        told = Answers()
        backend.generate_from(lots(), told)
        assert not told.found and backend.place == "disk"  # nothing is started for nothing
        backend.generate_from(lots(*(f"{number}" for number in range(12))), told)
        before = pid(told.in_order)
        assert len(told.found) == 12
        source, told = lots("end yourself", "one", "two"), Answers()
        while not told.found:
            backend.generate_from(source, told)
        assert "GGML_ASSERT(false) failed" in str(told.found[0].error)
        left = Answers()
        backend.generate_from(source, left)
        texts = {one.text for one in left.found.values()}
        assert len(told.found) + len(left.found) == 3 and f"I am {before}." not in texts


def test_what_is_asked_next_about_one_is_asked_of_the_next_server(cache, spec):
    picture = torch.zeros(3, 64, 96, dtype=torch.uint8)

    def method(backend, query):
        (first,) = yield [asked("end yourself", keep_unreadable=True)]
        (second,) = yield [asked("go on")]
        return Result(f"{bool(first.error)} {second.text}")

    def asked(words, **settings):
        return Query(describe("short", words), picture, **settings)

    found = {}
    with cache.lease(spec) as backend:
        queries = iter([[asked("", method=method)]])
        answer_stream(backend, lambda wait: next(queries, None), found.__setitem__)
    assert found[0].text.startswith("True I am ")


def test_each_start_has_a_log_of_its_own(spec):
    other = dataclasses.replace(spec, context=4096)
    with closing(open_gguf(spec)) as one, closing(open_gguf(other)) as two:
        ask(one, "one")
        ask(two, "two")
        (failed,) = ask(one, "end yourself")
        ask(one, "one more")
        logs = {path: path.read_text() for path in Path(spec.log_folder).iterdir()}
    assert len(logs) == 3 and len({text.count('"12288"') for text in logs.values()}) == 2
    (told,) = [path for path in logs if str(path) in str(failed.error)]
    assert "GGML_ASSERT(false) failed" in logs[told]


def test_starting_can_be_stopped(cache, spec):
    class Stopped(BaseException):
        pass

    class Impatient(Observer):
        def loading(self, done, total):
            raise Stopped

    Path(spec.model).write_bytes(EMPTY + b"<never ready>")
    with cache.lease(spec) as backend:
        with pytest.raises(Stopped):
            ask(backend, "one", observer=Impatient())
        assert backend.place == "disk"


def test_its_command_line_says_what_the_engine_foresees(spec):
    given = arguments(spec)
    pairs = dict(itertools.pairwise(given))
    assert pairs["-c"] == str(3 * 2048)  # it shares it among its slots
    assert pairs["-np"] == "3"
    assert (pairs["--image-min-tokens"], pairs["--image-max-tokens"]) == ("8", "4096")
    assert given[-2:] == ["--threads", "1"]


def test_pictures_are_resized_as_its_server_takes_them(spec):
    with closing(open_gguf(dataclasses.replace(spec, family="qwen2_5_vl"))) as backend:
        assert isinstance(backend, Resizer)
        assert backend.shown_size((2160, 3840), None, None) == (1344, 2380)


def test_without_a_llama_server_it_says_how_to_get_one(spec, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match=r"winget\s+install"):
        open_gguf(dataclasses.replace(spec, program=""))


def test_one_that_ends_before_anything_is_asked_is_the_error_of_all():
    class Ended:
        is_running = False

        def failure(self):
            return Unavailable("ended")

    seen = []

    class Listening(Observer):
        def done(self, index, response):
            seen.append(index)

    watch = BatchWatch(Listening(), Ended())
    with pytest.raises(Unavailable, match="ended"):
        watch.responses(2)
    watch.start([1, 1], [8, 8])
    assert [str(response.error) for response in watch.responses(2)] == ["ended"] * 2
    assert seen == [0, 1]


def test_one_whose_file_was_replaced_is_started_again(cache, spec):
    with cache.lease(spec) as backend:
        first = pid(ask(backend, "one"))
        assert pid(ask(backend, "two")) == first
        Path(spec.model).write_bytes(EMPTY + bytes(2000))
        assert pid(ask(backend, "three")) != first
    assert not psutil.pid_exists(first)
