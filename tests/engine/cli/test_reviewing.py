"""The review command."""

from __future__ import annotations

import queue
import signal

import pytest
from caption_folders import picture
from qwen_vl_suite.qwenvl.cli import reviewing
from qwen_vl_suite.qwenvl.cli.main import Stopped
from qwen_vl_suite.qwenvl.reviewing import ReviewServer


@pytest.fixture
def served(monkeypatch):
    """What was served, with ``ask(server)`` called in place of serving."""
    servers = []

    def serve(server):
        servers.append(server)
        if server.asker:
            server.asker.ask([0])
            assert server.asker.wait(20)
        raise Stopped(signal.SIGINT)

    monkeypatch.setattr(ReviewServer, "serve_forever", serve)
    monkeypatch.setattr(reviewing.webbrowser, "open", lambda url: pytest.fail("opened"))
    monkeypatch.setattr("qwen_vl_suite.qwenvl.reviewing.Collection.start", lambda self: self.load())
    return servers


def test_the_address_is_printed_and_no_model_is_loaded(run, model, tmp_path, served):
    backend = model("Never.")
    picture(tmp_path / "a.png")
    status, out, err = run("review", tmp_path, "--no-browser")
    assert status == 130 and served[0].url in err and out == ""
    assert served[0].asker is None and backend.specs == []


def test_the_browser_is_started_without_the_address_of_the_page(run, tmp_path, served, monkeypatch):
    started = queue.Queue()
    monkeypatch.setattr(reviewing.webbrowser, "open", started.put)
    run("review", tmp_path)
    url = started.get(timeout=20)
    assert url == served[0].opening_url and served[0].token not in url


def test_a_model_that_is_named_is_asked_again_in_the_words_of_the_options(
    run, model, tmp_path, served
):
    backend = model("A red square.")
    picture(tmp_path / "a.png")
    (tmp_path / "a.caption").write_text("old")
    words = ["--style", "short", "--trigger", "ohwx", "--caption-ext", "caption"]
    status, _, _ = run("review", tmp_path, "--no-browser", "--model", "nano", *words)
    assert status == 130 and len(backend.specs) == 1
    assert (tmp_path / "a.caption").read_text() == "ohwx, A red square.\n"


def test_a_folder_that_is_none_is_named(run, tmp_path):
    status, _, err = run("review", tmp_path / "none", "--no-browser")
    assert status == 2 and "is no folder" in err
