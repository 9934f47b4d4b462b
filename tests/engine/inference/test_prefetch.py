"""Prefetch: in order, bounded, errors raised on take, and no thread left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl.inference import prefetch, prefill, prefix_cache
from qwen_vl_suite.qwenvl.inference.prefetch import Prefetcher
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import Request, Sampling

FAMILY_NAMES = list(tiny.CONFIGS)
TIMEOUT = 10.0


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "qwenvl-prefetch" in thread.name]


class Work:
    """Work that records its indices and threads. That of the ``held`` indices waits for ``go``."""

    def __init__(self, *held: int):
        self.done: list[tuple[int, bool]] = []
        self.begun = threading.Event()
        self.go = threading.Event()
        self.held = held

    def __call__(self, index: int, check: Callable[[], None]) -> int:
        self.begun.set()
        while index in self.held and not self.go.wait(0.001):
            check()
        self.done.append((index, threading.current_thread() is threading.main_thread()))
        if index < 0:
            raise ValueError(index)
        return index * 10

    @property
    def in_thread(self) -> list[int]:
        return [index for index, in_main in self.done if not in_main]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def no_check() -> None: ...


def test_scheduled_work_is_done_before_it_is_taken_and_once() -> None:
    work = Work()
    subject = Prefetcher(work, lambda _: 1, threaded=True)
    subject.schedule([3, 1, 2])
    wait_until(lambda: work.in_thread == [3, 1, 2])
    subject.schedule([1, 2])
    assert [subject.take(index, no_check) for index in (3, 1, 2)] == [30, 10, 20]
    assert subject.take(3, no_check) == 30, "what was taken is not kept"
    assert work.done == [(3, False), (1, False), (2, False), (3, True)]
    subject.close()
    assert not threads()


def test_results_that_wait_are_bounded_in_bytes() -> None:
    work = Work()
    subject = Prefetcher(work, lambda index: index, threaded=True, max_bytes=10)
    subject.schedule([4, 5, 2, 1])
    wait_until(lambda: work.in_thread == [4, 5])
    assert subject.take(4, no_check) == 40
    subject.schedule([5, 2, 1])
    wait_until(lambda: work.in_thread == [4, 5, 2, 1])
    subject.close()


def test_a_long_queue_is_not_walked() -> None:
    work = Work()
    subject = Prefetcher(work, lambda _: 0, threaded=True)
    subject.schedule(iter(range(10**12)))
    wait_until(lambda: work.in_thread == list(range(prefetch._WINDOW)))
    subject.close()


def test_without_a_thread_work_is_done_when_taken() -> None:
    work = Work()
    subject = Prefetcher(work, lambda _: 1, threaded=False)
    subject.schedule([1, 2])
    assert not work.done and not threads()
    assert subject.take(2, no_check) == 20 and work.done == [(2, True)]
    subject.close()


def test_queued_work_is_done_by_who_takes_it() -> None:
    work = Work(1)
    subject = Prefetcher(work, lambda _: 1, threaded=True)
    subject.schedule([1, 2])
    assert work.begun.wait(TIMEOUT)
    assert subject.take(2, no_check) == 20 and work.done == [(2, True)]
    work.go.set()
    assert subject.take(1, no_check) == 10
    subject.close()


def test_an_error_is_raised_on_take() -> None:
    work = Work()
    subject = Prefetcher(work, lambda _: 1, threaded=True)
    subject.schedule([1, -1, 2])
    wait_until(lambda: len(work.in_thread) == 3)
    assert subject.take(1, no_check) == 10
    with pytest.raises(ValueError, match="-1"):
        subject.take(-1, no_check)
    assert subject.take(2, no_check) == 20
    subject.close()


def test_close_stops_running_and_queued_work() -> None:
    work = Work(1)
    subject = Prefetcher(work, lambda _: 1, threaded=True)
    subject.schedule([1, 2])
    assert work.begun.wait(TIMEOUT) and threads()
    subject.close()
    assert not work.done and not threads()


def test_work_done_on_take_is_stopped_by_its_check() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    subject = Prefetcher(Work(1), lambda _: 1, threaded=False)
    with pytest.raises(KeyboardInterrupt):
        subject.take(1, stop)
    subject.close()
    with pytest.raises(CancelledError):
        subject._check()


def picture(side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)


def requests() -> list[Request]:
    greedy, images = Sampling(max_new_tokens=6), [picture(side) for side in (64, 80, 100, 64)]
    return [
        *(Request.ask((one,), "what is it?", sampling=greedy) for one in images),
        Request.ask((), "only words", sampling=greedy),
        Request.ask((images[0], images[1]), "both", sampling=greedy),
        Request.ask((images[0],), "and where?", sampling=greedy),
    ]


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Images are prepared in a thread, as for a device other than the CPU. Gives for each digest
    whether it was computed there."""
    in_thread: list[bool] = []
    digest = prefix_cache.image_digest

    def recording(image: torch.Tensor) -> bytes:
        in_thread.append(threading.current_thread() is not threading.main_thread())
        return digest(image)

    def threaded(work: Any, size: Any, _: bool) -> Prefetcher[Any]:
        return Prefetcher(work, size, threaded=True)

    monkeypatch.setattr(prefix_cache, "image_digest", recording)
    monkeypatch.setattr(prefill, "Prefetcher", threaded)
    return in_thread


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_prefetch_does_not_change_answers(backend, request, model_type: str) -> None:
    subject = backend(model_type)
    subject.prefix_cache.clear()
    expected = subject.generate(requests())
    in_thread = request.getfixturevalue("digested")
    subject.prefix_cache.clear()
    assert subject.generate(requests()) == expected
    assert any(in_thread) and not threads()
    assert subject.generate(requests()) == expected, "from the prefix cache"


def test_an_image_of_several_requests_is_digested_once(backend, digested: list[bool]) -> None:
    image = picture(70)
    asked = [Request.ask((image,), words, sampling=Sampling(2)) for words in ("a", "b", "c")]
    subject = backend("qwen3_vl")
    one = subject.generate(asked[:1])
    del digested[:]
    assert subject.generate(asked)[:1] == one
    assert 1 <= len(digested) <= 2, "two threads may meet at the first"


def test_an_interrupt_leaves_no_thread(backend, digested: list[bool]) -> None:
    class Interrupting(Observer):
        def token(self, index: int, text: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend("qwen3_vl").generate(requests(), Interrupting())
    assert digested and not threads()


def test_an_error_in_the_thread_is_raised(backend, monkeypatch, digested: list[bool]) -> None:
    digest = prefix_cache.image_digest

    def fails(image: torch.Tensor) -> bytes:
        if image.shape[-1] == 100:
            raise ValueError("this one")
        return digest(image)

    monkeypatch.setattr(prefix_cache, "image_digest", fails)
    with pytest.raises(ValueError, match="this one"):
        backend("qwen3_vl").generate(requests())
    assert not threads()
