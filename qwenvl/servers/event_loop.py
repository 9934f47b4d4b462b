"""Event loop in a daemon thread, for the requests of callers that wait in threads of their own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from ..errors import unloaded
from ..observer import Observer

T = TypeVar("T")

Event = Callable[[Observer], None]
"""What an observer is to be told."""

CHECK_SECONDS = 0.05
"""Seconds between two looks of a waiting caller whether it is to stop."""


class Job(Generic[T]):
    """Work in an event loop. ``events``: what it has to tell, put there by the loop's thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, work: Callable[[Job[T]], Coroutine[Any, Any, T]]
    ):
        self.events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._loop, self._work = loop, work
        self._future: Future[T] = Future()
        self._task: asyncio.Task[T] | None = None
        loop.call_soon_threadsafe(self._start)

    def _start(self) -> None:
        self._task = self._loop.create_task(self._work(self))
        self._task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[T]) -> None:
        if task.cancelled():
            self._future.set_exception(unloaded())
        elif error := task.exception():
            self._future.set_exception(error)
        else:
            self._future.set_result(task.result())
        self.events.put(None)

    def wait(self, observer: Observer) -> T:
        """The result, once it is there. Meanwhile tells ``observer`` of all events, in the caller's
        own thread. What that raises cancels the work, and is raised once the work has let go of
        all that it held."""
        try:
            while True:
                observer.check()
                try:
                    event = self.events.get(timeout=CHECK_SECONDS)
                except queue.Empty:
                    continue
                if event is None:
                    return self._future.result()
                event(observer)
        except BaseException:
            self.call_soon(self._cancel)
            self._future.exception()
            raise

    def call_soon(self, callback: Callable[..., object], *given: object) -> None:
        """Has ``callback`` called in the event loop, from any thread; not once that has ended, and
        all its work with it."""
        with contextlib.suppress(RuntimeError):  # of a loop that has ended
            self._loop.call_soon_threadsafe(callback, *given)

    def _cancel(self) -> None:
        if self._task:
            self._task.cancel()


Work = Callable[[Job[T]], Coroutine[Any, Any, T]]
"""What a job does; it is given the job, to tell events by."""


Last = Callable[[], Coroutine[Any, Any, None]]
"""What is to be done before an event loop ends."""


class EventLoopThread:
    """An asyncio event loop that runs in a thread of its own, from its first job to ``close``, or
    until nobody refers to it any more. In a process that was forked off it begins anew, since
    threads stay behind."""

    def __init__(self, name: str):
        self._name = name
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last: list[Last] = []
        self._end: weakref.finalize[..., EventLoopThread] | None = None

    def start(self, work: Work[T]) -> Job[T]:
        """Runs ``work``, which is given its own job."""
        self._notice_fork()
        with self._lock:
            if self._loop is None:
                self._loop, self._last = asyncio.new_event_loop(), []
                thread = threading.Thread(
                    target=_run, args=(self._loop,), name=self._name, daemon=True
                )
                thread.start()
                self._end = weakref.finalize(self, _stop, self._loop, self._last, self._process)
                self._end.atexit = False
            return Job(self._loop, work)

    def at_end(self, last: Last) -> None:
        """For jobs: ``last`` is to run in the loop before it ends. It must not refer to whoever
        owns this thread, who would live as long."""
        self._last.append(last)

    def close(self) -> None:
        """Cancels all jobs and ends the thread soon."""
        self._notice_fork()
        with self._lock:
            self._loop, end = None, self._end
        if end is not None:
            end()

    def _notice_fork(self) -> None:
        if self._process != os.getpid():
            if self._end is not None:
                self._end.detach()
            self._begin()


async def in_parallel(tasks: Sequence[Callable[[], Awaitable[None]]], most: int) -> None:
    """Runs ``tasks`` in order, ``most`` at a time. What one raises ends all."""
    waiting = iter(tasks)

    async def worker() -> None:
        for task in waiting:
            await task()

    workers = [asyncio.ensure_future(worker()) for _ in range(min(most, len(tasks)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
    finally:
        loop.close()


def _stop(loop: asyncio.AbstractEventLoop, last: Sequence[Last], process: int) -> None:
    """Ends ``loop`` of that ``process`` soon. Takes no lock, since the garbage collector may call
    it anywhere."""
    if process == os.getpid() and not loop.is_closed():
        asyncio.run_coroutine_threadsafe(_end(loop, last), loop)


async def _end(loop: asyncio.AbstractEventLoop, last: Sequence[Last]) -> None:
    others = asyncio.all_tasks(loop) - {asyncio.current_task(loop)}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    try:
        for one in last:
            await one()
        await loop.shutdown_asyncgens()
        await loop.shutdown_default_executor()
    finally:
        loop.call_soon(loop.stop)
