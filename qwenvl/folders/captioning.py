"""Folder captioning: every picture and clip below a folder to captions as trainers read them."""

from __future__ import annotations

import errno
import os
import threading
from contextlib import closing
from functools import partial
from typing import Any

from ..backends.base import Backend
from ..errors import BadImage, BadOption, QwenVLError
from ..observer import Observer
from ..query import Query
from ..stream import answer_stream
from ..types import Result
from . import reading
from .account import Account
from .asking import Reply, why_no_caption
from .duplicates import Near, are_close, colours, dhash
from .imagefolder import refuse_other_tables
from .job import Job, Reporter, Summary
from .listing import LEADS_OUT, Item, leads_out
from .open_files import Store, count, open_files
from .sidecars import Changed, SidecarStore
from .state import State
from .tables import TableStore

_NO_ROOM = {errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}


def caption_folder(
    backend: Backend,
    job: Job,
    reporter: Reporter | None = None,
    observer: Observer | None = None,
) -> Summary:
    """Captions all that ``job`` names, each file as soon as its answer is there.

    ``reporter`` is told of each file; ``observer`` sees the answers as they are written, by
    the numbers that ``Reporter.asking`` tells of. A file that fails costs only
    its own caption. What either raises, an interrupt or a kill loses no caption that was written,
    and the same job goes on from there.

    Raises ``BadOption`` where another run is busy with these files, and for settings that nothing
    can be asked with; other errors of the backend as it raises them; ``QwenVLError`` where nothing
    can be written."""
    account = Account(reporter or Reporter())
    state = State(job.folder, job.shard, job.within)
    for path in (state.folder, *job.trainer.tables(job.folder)):
        if leads_out(path, job.within):
            raise BadOption(f"{path} {LEADS_OUT}")
    state.acquire()
    try:
        _Run(backend, job, _store(state, job), account, observer or Observer()).work(state)
    finally:
        state.release()
    return account.summary


def survey(job: Job, reporter: Reporter | None = None) -> Summary:
    """What ``caption_folder`` would do, with nothing asked and nothing written: the reporter is
    told ``captioned``, with an empty caption, of each file that would be asked about."""
    account = Account(reporter or Reporter())
    for item in open_files(job, _store(State(job.folder, job.shard), job), account):
        account.captioned(item, "")
    return account.summary


def caption_of(job: Job, item: Item, result: Result, behind: str = "") -> tuple[str, str]:
    """The caption of ``item`` that the answer to it makes, or empty, and why it makes none.
    ``behind``: a caption that it is put behind."""
    task = (job.asking.clip_task if item.is_clip else None) or job.asking.task
    failure = result.failure if isinstance(result, Reply) else why_no_caption(result, task)
    if failure:
        return "", failure
    tags = result.tags if isinstance(result, Reply) else ""
    caption = job.trainer.caption(job.template.filled(item, result.text, tags, behind))
    return caption, "" if caption else "Nothing is left of the reply in the trainer's form."


def _store(state: State, job: Job) -> Store:
    if job.trainer.has_sidecars:
        return SidecarStore(state, job.trainer, job.existing, job.identity)
    if job.trainer.imagefolder:
        refuse_other_tables(job.folder, job.trainer.table)
    return TableStore(state, job.trainer, job.existing, job.identity, job.asking.refine)


class _Run:
    """One run over a folder."""

    def __init__(
        self, backend: Backend, job: Job, store: Store, account: Account, observer: Observer
    ):
        self._backend, self._job, self._store = backend, job, store
        self._account, self._observer = account, observer
        self._stopped = threading.Event()
        self._asked = 0
        self._open: dict[int, _Asked] = {}  # by their number among those asked about
        self._open_bytes = 0  # of their pixels
        self._near: Near[_Asked] | None = None
        if job.near_duplicates is not None:
            self._near = Near(job.near_duplicates)

    def work(self, state: State) -> None:
        store = self._store
        store.begin()
        failures = self._account.failures = state.new_failures()
        items = open_files(self._job, store, self._account, self._stopped.is_set)
        if type(self._account.reporter).counted is not Reporter.counted:
            given = (self._job, self._account, self._stopped)
            threading.Thread(target=count, args=given, name="qwenvl-count", daemon=True).start()
        try:
            ahead = reading.Reader(items, self._read, self._job.sizes, self._stopped)
            with closing(ahead) as reader:
                queries = partial(self._next, reader)
                answer_stream(self._backend, queries, self._keep, self._observer)
            store.finish(self._account.summary.failed == 0)
            self._account.summary.notes += store.notes()
        finally:
            self._stopped.set()
            failures.close()
            store.close()

    def _read(self, item: Item) -> Any:
        self._go_on()
        for path in (item.path, *self._job.trainer.sidecars(item.path)):
            if leads_out(path, self._job.within):
                return BadImage(f"{path} {LEADS_OUT}")
        asking = self._job.asking
        return reading.read(item, asking.clip_frames, asking.frame_pixels, self._go_on)

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise reading.Stopped

    def _next(self, reader: reading.Reader, wait: bool) -> list[Query] | None:
        """What is asked about the next files; see ``stream.Queries``."""
        while wait or self._open_bytes < reading.MAX_BYTES:
            portion = reader.take(wait, self._observer.check)
            if portion is None:
                return None
            queries = self._queries(portion)
            if queries or not wait:
                return queries
        return []

    def _queries(self, portion: reading.Portion) -> list[Query]:
        asked: list[_Asked] = []
        queries: list[Query] = []
        for item, media in portion:
            try:
                one = _Asked(item, self._store.held(item), reading.nbytes(media))
                old = self._store.old(item) if self._job.asking.refine else ""
                if isinstance(media, BadImage):
                    raise media
            except BadImage as error:
                self._account.fail(item.relative, reading.why(item, error))
                continue
            if self._is_answered_by_another(one, media):
                continue
            asked.append(one)
            queries.append(self._job.query(self._backend, item, media, old))
        if asked:
            with self._account.lock:
                self._account.reporter.asking([one.item for one in asked])
        for one in asked:
            self._open[self._asked] = one
            self._open_bytes += one.nbytes
            self._asked += 1
        return queries

    def _is_answered_by_another(self, one: _Asked, media: Any) -> bool:
        """Whether the reply to a near-duplicate is, or will be, that to this picture."""
        if self._near is None or one.item.is_clip:
            return False
        bits, one.colours = dhash(media), colours(media)
        other = self._near.find(bits, lambda other: are_close(other.colours, one.colours))
        if other is None:
            self._near.put(bits, one)
            return False
        if other.result is None:
            other.same.append(one)
        else:
            self._write(one, other.result, other)
        return True

    def _keep(self, number: int, result: Result) -> None:
        one = self._open.pop(number)
        self._open_bytes -= one.nbytes
        one.result = result
        with self._account.lock:
            self._write(one, result)
            for other in one.same:
                self._write(other, result, one)
        one.same.clear()

    def _write(self, one: _Asked, result: Result, asked: _Asked | None = None) -> None:
        """Writes the caption of a file, unless ``result`` is none. ``asked``: the near-duplicate
        that was asked about in its place."""
        item, account = one.item, self._account
        unreadable = False
        try:
            caption, failure = self._caption(item, result)
            if failure:
                unreadable = bool(result.error) and result.finish_reason != "error"
                failure = f"As {asked.item.relative}: {failure}" if asked else failure
            elif not os.path.exists(item.path):
                failure = "It was taken away while the model was asked."
            else:
                self._store.put(item, caption, one.held)
        except Changed:
            if self._job.existing == "skip":
                account.skipped(item, "It got a caption meanwhile, which stays.", is_news=True)
                return
            failure = "Its caption was changed while the model was asked, and stays as it is."
        except BadImage as error:
            failure = str(error)
        except OSError as error:
            failure = f"The caption cannot be written: {error.strerror or error}."
            if error.errno in _NO_ROOM:
                raise QwenVLError(f"{item.path}: {failure}") from error
        if failure:
            account.fail(item.relative, failure, unreadable)
        else:
            account.captioned(item, caption, result.notes, asked is not None)

    def _caption(self, item: Item, result: Result) -> tuple[str, str]:
        """As ``caption_of``, behind the caption that is there where it is put there."""
        # Where each is a caption of its own, it has its own trigger words.
        is_one = self._job.existing == "append" and not self._job.trainer.choices
        return caption_of(self._job, item, result, self._store.old(item) if is_one else "")


class _Asked:
    """A file that is asked about, and the bytes of its pixels; ``held``: see ``Store``; ``same``:
    near-duplicates that wait for its reply; ``colours``: of its picture, where such are looked
    for."""

    def __init__(self, item: Item, held: int, nbytes: int):
        self.item, self.held, self.nbytes = item, held, nbytes
        self.result: Result | None = None
        self.same: list[_Asked] = []
        self.colours = b""
