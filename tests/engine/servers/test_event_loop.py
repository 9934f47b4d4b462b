"""The event loop's thread: it ends with whoever owns it, and begins anew in a forked process."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from contextlib import closing
from typing import Any

import pytest
from fake_server import Answer, serving, until
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend
from qwen_vl_suite.qwenvl.errors import QwenVLError
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.servers.event_loop import EventLoopThread
from qwen_vl_suite.qwenvl.types import Request, ServerSpec


async def number(job: Any) -> int:
    return 7


def running(name: str) -> bool:
    return name in [thread.name for thread in threading.enumerate()]


def test_a_loop_that_nobody_owns_ends_and_does_the_last_things() -> None:
    done: list[str] = []

    async def last() -> None:
        done.append("last")

    loop = EventLoopThread("dropped loop")
    assert loop.start(number).wait(Observer()) == 7
    loop.at_end(last)
    assert running("dropped loop")
    del loop
    gc.collect()
    assert until(lambda: not running("dropped loop"))
    assert done == ["last"]


def test_a_backend_that_is_dropped_leaves_no_thread() -> None:
    before = threading.active_count()
    with serving("x") as server:
        during = threading.active_count()
        backend = OpenAIServerBackend(ServerSpec((server.url,), "Qwen3-VL-8B", kind="vllm"))
        assert backend.generate([Request.ask([], "?")])[0].text == "x"
        del backend
        gc.collect()
        assert until(lambda: threading.active_count() <= during)
    assert before <= during


def test_a_loop_that_ended_while_its_caller_was_away_hides_no_error() -> None:
    loop = EventLoopThread("ended loop")

    class Late(Observer):
        def token(self, index: int, text: str) -> None:
            loop.close()
            assert until(lambda: not running("ended loop"))

    async def work(job: Any) -> None:
        job.events.put(lambda observer: observer.token(0, "x"))
        await asyncio.sleep(60)

    with pytest.raises(QwenVLError, match="unloaded"):
        loop.start(work).wait(Late())


@pytest.mark.parametrize("is_over", [False, True])
def test_a_backend_that_is_closed_while_requests_come_up_says_so(is_over: bool) -> None:
    class Closing:
        """Closes it when it is asked for more, and gives more."""

        def more(self, wait: bool) -> list[Request]:
            if not wait:
                backend.close()
                assert not is_over or until(lambda: threading.active_count() <= during)
            return [Request.ask([], "?")]

    with serving("x") as server:
        during = threading.active_count()
        backend = OpenAIServerBackend(ServerSpec((server.url,), "Qwen3-VL-8B", kind="vllm"))
        with pytest.raises(QwenVLError, match="unloaded"):
            backend.generate_from(Closing(), Observer())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_begins_anew() -> None:
    with serving(Answer("fine")) as server:
        spec = ServerSpec((server.url,), "Qwen3-VL-8B", kind="vllm")
        with closing(OpenAIServerBackend(spec)) as backend:
            backend.generate([Request.ask([], "?")])
            child = os.fork()
            if child == 0:
                threading.Timer(20, os._exit, (3,)).start()
                found = backend.generate([Request.ask([], "?")])
                os._exit(0 if found[0].text == "fine" else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert backend.generate([Request.ask([], "?")])[0].text == "fine"
