"""CUDA graphs: captures and replays, on a fake ``torch.cuda``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from fake_cuda_graphs import FakeCudaGraphs, Model
from qwen_vl_suite.qwenvl.inference import cuda_graphs
from qwen_vl_suite.qwenvl.inference.cuda_graphs import CudaGraphs


def test_graphs_are_disabled_where_memory_does_not_suffice_for_them() -> None:
    class Full(FakeCudaGraphs):
        def _record(self, step: Callable[[], None]) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory")

    subject, steps = Full(), []
    for _ in range(5):
        subject.run("key", lambda: steps.append(1))
    assert len(steps) == 5 and not subject.enabled


PROTOTYPE = (
    "Synchronization debug mode is a prototype feature and does not yet detect all synchronizing "
    "operations"
)


class FakeCuda:
    """``torch.cuda`` that logs the calls of a capture in order, and runs nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: str = ""):
        self.calls: list[str] = []
        self.mode = "default"
        note, calls = self._logging, self.calls

        class Graph:
            def capture_begin(self, *_: Any, **__: Any) -> None:
                calls.append("begin")

            def capture_end(self) -> None:
                calls.append("end")
                if error:
                    raise RuntimeError(error)

            def replay(self) -> None:
                calls.append("replay")

        def set_mode(mode: str) -> None:
            self.mode = mode
            if mode == "warn":
                warnings.warn(PROTOTYPE, stacklevel=1)

        def end_pool(*_: Any) -> None:
            calls.append("end pool")

        class Stream:
            def wait_stream(self, _: Any) -> None:
                calls.append("wait")

        monkeypatch.setattr(cuda_graphs, "_capture_stream", lambda device: Stream())
        monkeypatch.setattr(torch._C, "_cuda_endAllocateToPool", end_pool)
        for name, made in {
            "CUDAGraph": Graph,
            "graph_pool_handle": lambda: "pool",
            "synchronize": lambda: None,
            "current_device": lambda: 0,
            "current_stream": lambda device: Stream(),
            "device": note("device"),
            "stream": note("stream"),
            "get_sync_debug_mode": lambda: self.mode,
            "set_sync_debug_mode": set_mode,
        }.items():
            monkeypatch.setattr(torch.cuda, name, made)

    def _logging(self, name: str) -> Any:
        @contextmanager
        def entered(_: Any) -> Iterator[None]:
            self.calls.append(f"{name} in")
            try:
                yield
            finally:
                self.calls.append(f"{name} out")

        return entered


def test_a_step_is_captured_once_and_then_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda, modes, locked = FakeCuda(monkeypatch), [], []
    subject = CudaGraphs(torch.device("cuda:1"), Model())

    def step() -> None:
        cuda.calls.append("step")
        modes.append(cuda.mode)
        locked.append(cuda_graphs._CAPTURE_LOCK.locked())

    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what torch says of its own mode is not shown
        steady = [subject.run("key", step) for _ in range(4)]
    assert " ".join(cuda.calls) == (
        "step wait stream in step stream out wait "
        "device in stream in begin step end stream out device out "
        "device in replay device out device in replay device out"
    )
    assert modes == ["default", "warn", "default"], "the second run is checked for synchronisation"
    assert locked == [False, True, True], "nobody else launches on the capture stream"
    assert steady == [False, False, False, True]
    subject.forget()
    assert not subject.run("key", step) and cuda.calls[-1] == "step"


def test_a_failed_capture_leaves_its_stream_and_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda, model = FakeCuda(monkeypatch, "operation failed due to a previous error"), Model()
    for _ in range(2):
        subject = CudaGraphs(torch.device("cuda:0"), model)
        for _ in range(4):
            subject.run("key", lambda: cuda.calls.append("step"))
    assert cuda.calls.count("begin") == 1
    assert cuda.calls.count("stream in") == cuda.calls.count("stream out") == 2
    assert cuda.calls.count("step") == 9, "one of them was recorded and not run"
    assert cuda.calls.count("end pool") == 1


def test_a_capture_that_cannot_begin_leaves_its_pool(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = FakeCuda(monkeypatch)

    def refused(*_: Any, **__: Any) -> None:
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(torch.cuda.CUDAGraph, "capture_begin", refused)
    subject = CudaGraphs(torch.device("cuda:0"), Model())
    for _ in range(4):
        subject.run("key", lambda: cuda.calls.append("step"))
    assert cuda.calls.count("end pool") == 1 and cuda.calls.count("step") == 4
    assert not subject.enabled


def test_a_step_that_waits_for_the_device_is_never_captured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda = FakeCuda(monkeypatch)
    subject = CudaGraphs(torch.device("cuda:0"), Model())

    def step() -> None:
        if cuda.mode == "warn":
            warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        cuda.calls.append("step")

    for _ in range(5):
        subject.run("key", step)
    assert cuda.calls.count("step") == 5 and cuda.mode == "default"
    assert "begin" not in cuda.calls
