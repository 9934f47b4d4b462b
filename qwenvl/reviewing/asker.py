"""Asking again: a model's new captions for files under review, one portion after another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ..backends.base import Backend
from ..errors import BadImage, QwenVLError
from ..folders import reading
from ..folders.captioning import caption_of
from ..folders.job import Job
from ..observer import Observer
from ..run import answer_each
from ..types import Result
from .collection import Collection
from .edits import Conflict

log = logging.getLogger(__name__)

AT_ONCE = 8
"""Files that are asked about together."""


class _Stopped(Exception):
    """The reader of the page wants no more answers."""


class Asker:
    """Asks about files of ``collection`` as ``job`` says, in a thread of its own, and writes each
    caption as an edit that can be undone. One that was edited while its file was asked about stays.

    ``lease``: the model, which is opened when it is asked first."""

    def __init__(
        self,
        collection: Collection,
        job: Job,
        lease: Callable[[], AbstractContextManager[Backend]],
        name: str = "",
    ):
        self.name = name
        self._collection, self._job, self._lease = collection, job, lease
        self._lock = threading.Lock()
        self._waiting: list[int] = []
        self._texts: dict[int, str] = {}
        self._error = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def ask(self, indices: Sequence[int]) -> None:
        """Raises ``BadOption`` for files that are none."""
        for index in indices:
            self._collection.item(index)
        with self._lock:
            self._error = ""
            there = {*self._waiting, *self._texts}
            self._waiting += [index for index in dict.fromkeys(indices) if index not in there]
            if self._thread is None:
                self._begin()

    def _begin(self) -> None:
        """With the lock held."""
        if self._waiting:
            self._stop.clear()
            self._thread = threading.Thread(target=self._work, name="qwenvl-ask", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Forgets what waits, and ends what is being written within a token."""
        with self._lock:
            self._waiting.clear()
            if self._thread:
                self._stop.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Whether nothing is asked about any more, waited for so many seconds."""
        thread = self._thread
        if thread:
            thread.join(timeout)
        return self._thread is None

    def state(self) -> dict[str, Any]:
        """``now``: what is written so far of each file that is asked about."""
        with self._lock:
            return {
                "now": {str(index): text for index, text in self._texts.items()},
                "waiting": len(self._waiting),
                "error": self._error,
            }

    def _work(self) -> None:
        problem = ""
        try:
            with self._lease() as backend:
                while indices := self._next():
                    self._answer(backend, indices)
        except _Stopped:
            pass  # as was asked for
        except QwenVLError as error:
            problem = str(error)
        except Exception as error:  # of a thread: whoever looks at the page is to know
            log.exception("Asking again has failed.")
            problem = f"{type(error).__name__}: {error}"
        with self._lock:
            self._error = problem
            self._texts.clear()
            if problem:
                self._waiting.clear()
            self._thread = None
            self._begin()  # what was asked for since the last look

    def _next(self) -> list[int]:
        with self._lock:
            self._texts = dict.fromkeys(self._waiting[:AT_ONCE], "")
            del self._waiting[:AT_ONCE]
            return list(self._texts)

    def _answer(self, backend: Backend, indices: list[int]) -> None:
        asked, queries = [], []
        for row in self._collection.rows(indices):
            if self._stop.is_set():
                raise _Stopped
            index = row["id"]
            item = self._collection.item(index)
            if item.is_clip and self._job.asking.clip_task is None:
                self._fail(index, "Nothing is asked about videos: this task is about pictures.")
                continue
            asking = self._job.asking
            media = reading.read(item, asking.clip_frames, asking.frame_pixels, self._check)
            if row["problem"] or isinstance(media, BadImage):
                self._fail(index, row["problem"] or reading.why(item, media))
                continue
            asked.append((index, item, row["version"]))
            queries.append(self._job.query(backend, item, media))

        def keep(number: int, result: Result) -> None:
            index, item, version = asked[number]
            caption, failure = caption_of(self._job, item, result)
            if failure:
                return self._fail(index, failure)
            try:
                self._collection.edit(index, caption, version)
            except Conflict:
                return self._fail(index, "It was edited meanwhile: the new caption is left out.")
            except BadImage as error:
                return self._fail(index, str(error))
            self._collection.fail(index, "")
            self._forget(index)

        if queries:
            listener = _Listener(self, [one[0] for one in asked])
            answer_each(backend, queries, keep, listener, alone=True)

    def _fail(self, index: int, reason: str) -> None:
        self._collection.fail(index, reason)
        self._forget(index)

    def _forget(self, index: int) -> None:
        with self._lock:
            self._texts.pop(index, None)

    def _write(self, index: int, text: str | None) -> None:
        with self._lock:
            if index in self._texts:
                self._texts[index] = "" if text is None else self._texts[index] + text

    def _check(self) -> None:
        if self._stop.is_set():
            raise _Stopped


class _Listener(Observer):
    """Shows what is written."""

    def __init__(self, asker: Asker, indices: list[int]):
        self._asker, self._indices = asker, indices

    def token(self, index: int, text: str) -> None:
        self._asker._write(self._indices[index], text)

    def restart(self, index: int) -> None:
        self._asker._write(self._indices[index], None)

    def check(self) -> None:
        self._asker._check()
