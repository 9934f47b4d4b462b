"""Garbage collection pauses while much is loaded, and only then."""

from __future__ import annotations

import gc
import threading

import pytest
from qwen_vl_suite.qwenvl import garbage_collection
from qwen_vl_suite.qwenvl.errors import IncompleteCheckpoint
from qwen_vl_suite.qwenvl.prompting.tokenizer import load_tokenizer


@pytest.fixture(autouse=True)
def on():
    assert gc.isenabled()
    yield
    gc.enable()


def test_it_pauses_in_the_block_and_resumes_after_it():
    with garbage_collection.paused():
        assert not gc.isenabled()
        with garbage_collection.paused():
            assert not gc.isenabled()
        assert not gc.isenabled(), "the outer block has not ended"
    assert gc.isenabled()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
def test_it_resumes_after_an_error(kind):
    with pytest.raises(kind), garbage_collection.paused():
        raise kind
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with garbage_collection.paused():
        pass
    assert not gc.isenabled()


def test_it_pauses_until_the_last_thread_leaves():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with garbage_collection.paused():
            inside.set()
            assert leave.wait(10)

    thread = threading.Thread(target=other)
    with garbage_collection.paused():
        thread.start()
        assert inside.wait(10)
    assert not gc.isenabled(), "the other is still inside"
    leave.set()
    thread.join()
    assert gc.isenabled()


def test_a_tokenizer_that_fails_leaves_it_on(tmp_path):
    with pytest.raises(IncompleteCheckpoint):
        load_tokenizer(tmp_path)
    assert gc.isenabled()
