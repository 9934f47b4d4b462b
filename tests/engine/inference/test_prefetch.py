"""Work ahead of its time: in order, bounded, its errors told, and never left running."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl.inference import prefetch, prefix_cache, scheduler
from qwen_vl_suite.qwenvl.inference.prefetch import Prefetcher
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.types import Request, Sampling

FAMILY_NAMES = list(tiny.CONFIGS)
SOON = 10.0


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if "qwenvl-ahead" in thread.name]


class Works:
    """Work that tells what it did where. What is in ``held`` waits to be let go."""

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
    def elsewhere(self) -> list[int]:
        return [index for index, here in self.done if not here]


def until(told: Callable[[], bool]) -> None:
    end = time.monotonic() + SOON
    while not told():
        assert time.monotonic() < end
        time.sleep(0.001)


def nothing() -> None: ...


def test_what_is_wanted_is_done_before_it_is_asked_for_and_once() -> None:
    work = Works()
    subject = Prefetcher(work, lambda _: 1, threaded=True)
    subject.want([3, 1, 2])
    until(lambda: work.elsewhere == [3, 1, 2])
    subject.want([1, 2])
    assert [subject.take(index, nothing) for index in (3, 1, 2)] == [30, 10, 20]
    assert subject.take(3, nothing) == 30, "what was taken is not kept"
    assert work.done == [(3, False), (1, False), (2, False), (3, True)]
    subject.close()
    assert not threads()


def test_only_so_many_bytes_wait() -> None:
    work = Works()
    subject = Prefetcher(work, lambda index: index, threaded=True, most=10)
    subject.want([4, 5, 2, 1])
    until(lambda: work.elsewhere == [4, 5])
    assert subject.take(4, nothing) == 40
    subject.want([5, 2, 1])
    until(lambda: work.elsewhere == [4, 5, 2, 1])
    subject.close()


def test_a_long_line_is_not_looked_through() -> None:
    work = Works()
    subject = Prefetcher(work, lambda _: 0, threaded=True)
    subject.want(iter(range(10**12)))
    until(lambda: work.elsewhere == list(range(prefetch._NEXT)))
    subject.close()


def test_without_a_thread_all_is_done_when_asked_for() -> None:
    work = Works()
    subject = Prefetcher(work, lambda _: 1, threaded=False)
    subject.want([1, 2])
    assert not work.done and not threads()
    assert subject.take(2, nothing) == 20 and work.done == [(2, True)]
    subject.close()


def test_who_asks_for_what_only_waits_does_it() -> None:
    work = Works(1)
    subject = Prefetcher(work, lambda _: 1, threaded=True)
    subject.want([1, 2])
    assert work.begun.wait(SOON)
    assert subject.take(2, nothing) == 20 and work.done == [(2, True)]
    work.go.set()
    assert subject.take(1, nothing) == 10
    subject.close()


def test_an_error_is_raised_where_the_result_is_asked_for() -> None:
    work = Works()
    subject = Prefetcher(work, lambda _: 1, threaded=True)
    subject.want([1, -1, 2])
    until(lambda: len(work.elsewhere) == 3)
    assert subject.take(1, nothing) == 10
    with pytest.raises(ValueError, match="-1"):
        subject.take(-1, nothing)
    assert subject.take(2, nothing) == 20
    subject.close()


def test_closing_ends_what_runs_and_what_waits() -> None:
    work = Works(1)
    subject = Prefetcher(work, lambda _: 1, threaded=True)
    subject.want([1, 2])
    assert work.begun.wait(SOON) and threads()
    subject.close()
    assert not work.done and not threads()


def test_work_done_here_is_stopped_by_the_one_who_asks() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    subject = Prefetcher(Works(1), lambda _: 1, threaded=False)
    with pytest.raises(KeyboardInterrupt):
        subject.take(1, stop)
    subject.close()
    with pytest.raises(CancelledError):
        subject._check()


def picture(side: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(side)
    return torch.randint(0, 256, (3, side, side), generator=generator, dtype=torch.uint8)


def requests() -> list[Request]:
    greedy, shown = Sampling(max_new_tokens=6), [picture(side) for side in (64, 80, 100, 64)]
    return [
        *(Request((one,), "what is it?", sampling=greedy) for one in shown),
        Request((), "only words", sampling=greedy),
        Request((shown[0], shown[1]), "both", sampling=greedy),
        Request((shown[0],), "and where?", sampling=greedy),
    ]


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Pictures are prepared ahead, as for a device that is not the processor; tells of each
    whether it was."""
    told: list[bool] = []
    digest = prefix_cache.digest

    def telling(image: torch.Tensor) -> bytes:
        told.append(threading.current_thread() is not threading.main_thread())
        return digest(image)

    def threaded(work: Any, size: Any, _: bool) -> Prefetcher[Any]:
        return Prefetcher(work, size, threaded=True)

    monkeypatch.setattr(prefix_cache, "digest", telling)
    monkeypatch.setattr(scheduler, "Prefetcher", threaded)
    return told


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_answers_are_the_same(backend, request, model_type: str) -> None:
    subject = backend(model_type)
    subject.prefix_cache.clear()
    expected = subject.generate(requests())
    told = request.getfixturevalue("digested")
    subject.prefix_cache.clear()
    assert subject.generate(requests()) == expected
    assert any(told) and not threads()
    assert subject.generate(requests()) == expected, "what was seen is found again"


def test_a_picture_shown_often_is_digested_once(backend, digested: list[bool]) -> None:
    shown = picture(70)
    asked = [Request((shown,), words, sampling=Sampling(2)) for words in ("a", "b", "c")]
    subject = backend("qwen3_vl")
    one = subject.generate(asked[:1])
    del digested[:]
    assert subject.generate(asked)[:1] == one
    assert 1 <= len(digested) <= 2, "two threads may meet at the first"


def test_an_interrupt_leaves_no_thread(backend, digested: list[bool]) -> None:
    class Stop(Observer):
        def token(self, index: int, text: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend("qwen3_vl").generate(requests(), Stop())
    assert digested and not threads()


def test_what_fails_ahead_is_told(backend, monkeypatch, digested: list[bool]) -> None:
    digest = prefix_cache.digest

    def fails(image: torch.Tensor) -> bytes:
        if image.shape[-1] == 100:
            raise ValueError("this one")
        return digest(image)

    monkeypatch.setattr(prefix_cache, "digest", fails)
    with pytest.raises(ValueError, match="this one"):
        backend("qwen3_vl").generate(requests())
    assert not threads()
