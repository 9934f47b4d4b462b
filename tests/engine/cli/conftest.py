"""For all tests of the command line."""

from __future__ import annotations

import io
import json
import signal
import sys

import pytest
from qwen_vl_suite.qwenvl import model_cache
from qwen_vl_suite.qwenvl.backends.scripted import ScriptedBackend
from qwen_vl_suite.qwenvl.cli import main, user_folder
from qwen_vl_suite.qwenvl.observer import Relay
from qwen_vl_suite.qwenvl.servers.keys import KEYS


@pytest.fixture(autouse=True)
def cache(monkeypatch):
    """A model cache of this test's own."""
    found = model_cache.ModelCache(model_cache._load)
    monkeypatch.setattr(model_cache, "CACHE", found)
    yield
    found.clear()


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path_factory):
    """The user's configuration folder: one of this test's own, which is not there."""
    folder = tmp_path_factory.mktemp("home") / "qwenvl"
    monkeypatch.setattr(user_folder, "user_folder", lambda: folder)
    monkeypatch.setattr(KEYS, "file", None)
    return folder


@pytest.fixture
def heeded_ctrl_c():
    """SIGINT as in a terminal: whoever runs the tests may have it ignored, as processes inherit."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Opened(ScriptedBackend):
    """Keeps the ``specs`` that it was opened for, and calls ``before_answer(number)`` just before
    an answer is handed over."""

    def __init__(self, replies, before_answer=None, **options):
        super().__init__(replies, **{"family": "qwen3_vl", **options})
        self.before_answer = before_answer or (lambda number: None)
        self.specs = []

    def generate(self, requests, observer=None):
        return super().generate(requests, Announcing(self, observer))


class Announcing(Relay):
    def __init__(self, backend, observer):
        super().__init__(observer)
        self.backend, self.first = backend, len(backend.requests)

    def done(self, index, response):
        self.backend.before_answer(self.first + index)
        super().done(index, response)


@pytest.fixture
def model(monkeypatch):
    """``model("reply")`` scripts the backend of every command; a function gives the replies."""

    def use(*replies, **options):
        backend = Opened(replies[0] if callable(replies[0]) else replies, **options)

        def load(spec):
            backend.specs.append(spec)
            return backend

        monkeypatch.setattr(model_cache, "CACHE", model_cache.ModelCache(load))
        return backend

    return use


@pytest.fixture
def run(monkeypatch, capsys):
    """``run("parse", ..., stdin="...")``: exit status, objects on stdout, text on stderr."""

    def call(*argv, stdin=""):
        text = io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="ascii")
        monkeypatch.setattr(sys, "stdin", text)
        try:
            status = main.main([str(word) for word in argv])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        rows = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return status, rows if rows else out, err

    return call
