"""Folder captioning: every picture and clip below a folder to captions as trainers read them."""

from __future__ import annotations

import contextlib
import errno
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import PurePosixPath
from typing import Any, Protocol

from ..backends.base import Backend
from ..errors import BadImage, BadOption, QwenVLError
from ..observer import Observer
from ..query import Query
from ..run import answer_each
from ..types import Result
from . import reading
from .asking import Reply, why_no_caption
from .duplicates import Near, are_close, colours, dhash
from .job import MOST_LISTED, Job, Reporter, Summary
from .listing import LEADS_OUT, Item, leads_out, listing
from .sidecars import SidecarStore
from .state import Journal, State, is_busy
from .tables import TableStore

_NO_ROOM = {errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC)}


class Store(Protocol):
    """Where captions are kept. Nothing is changed on disk before ``begin``."""

    def begin(self) -> None: ...

    def has(self, item: Item) -> bool: ...

    def taken_by(self, item: Item) -> str: ...

    def old(self, item: Item) -> str: ...

    def put(self, item: Item, caption: str) -> None: ...

    def finish(self, is_complete: bool) -> None: ...

    def close(self) -> None: ...


def caption_folder(
    backend: Backend,
    job: Job,
    reporter: Reporter | None = None,
    observer: Observer | None = None,
) -> Summary:
    """Captions all that ``job`` names, each file as soon as its answer is there.

    ``reporter`` is told of each file; ``observer`` sees the answers as they are written, its
    indices being those of the files in the last ``Reporter.asking``. A file that fails costs only
    its own caption. What either raises, an interrupt or a kill loses no caption that was written,
    and the same job goes on from there.

    Raises ``BadOption`` where another run is busy with these files, and for settings that nothing
    can be asked with; other errors of the backend as it raises them; ``QwenVLError`` where nothing
    can be written."""
    run = _Run(backend, job, reporter or Reporter(), observer or Observer())
    state = State(job.folder, job.shard, job.within)
    for path in (state.folder, *job.trainer.tables(job.folder)):
        if leads_out(path, job.within):
            raise BadOption(f"{path} {LEADS_OUT}")
    state.acquire()
    try:
        run.work(_store(state, job), state.failures)
    finally:
        state.release()
    return run.summary


def survey(job: Job, reporter: Reporter | None = None) -> Summary:
    """What ``caption_folder`` would do, with nothing asked and nothing written: the reporter is
    told ``captioned``, with an empty caption, of each file that would be asked about."""
    run = _Run(None, job, reporter or Reporter(), Observer())
    run.survey(_store(State(job.folder, job.shard), job))
    return run.summary


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
    return TableStore(state, job.trainer, job.existing, job.identity, job.asking.refine)


class _Run:
    """One run over a folder."""

    def __init__(self, backend: Backend | None, job: Job, reporter: Reporter, observer: Observer):
        self.backend, self.job = backend, job
        self.observer = observer
        self.summary = Summary()
        self._reporter = reporter
        self._lock = threading.RLock()  # files are listed in a thread, and told of from there
        self._stopped = threading.Event()
        self._failures: Journal | None = None
        self._near: Near[_Asked] | None = None
        if job.near_duplicates is not None:
            self._near = Near(job.near_duplicates)

    def survey(self, store: Store) -> None:
        for item in self._open_items(store):
            self.summary.captioned += 1
            self._reporter.captioned(item, "")

    def work(self, store: Store, failures: Journal) -> None:
        """``failures``: the list of them, begun anew."""
        assert self.backend is not None
        store.begin()
        self._failures = failures
        failures.remove()
        items, sizes = self._open_items(store), self.job.sizes
        if type(self._reporter).counted is not Reporter.counted:
            threading.Thread(target=self._count, name="qwenvl-count", daemon=True).start()
        try:
            parts = reading.portions(items, self._read, sizes, self.observer.check, self._stopped)
            with closing(parts) as portions:
                for portion in portions:
                    self._answer(store, portion)
            store.finish(self.summary.failed == 0)
        finally:
            self._stopped.set()
            failures.close()
            store.close()

    def _read(self, item: Item) -> Any:
        for path in (item.path, *self.job.trainer.sidecars(item.path)):
            if leads_out(path, self.job.within):
                return BadImage(f"{path} {LEADS_OUT}")
        asking = self.job.asking
        return reading.read(item, asking.clip_frames, asking.frame_pixels, self._go_on)

    def _go_on(self) -> None:
        if self._stopped.is_set():
            raise reading.Stopped

    def _count(self) -> None:
        total = 0
        with contextlib.suppress(BadOption):  # the folder is gone, which the run itself will tell
            for item in listing(self.job.folder, within=self.job.within):
                if self._stopped.is_set():
                    return
                total += self.job.shard.has(item)
        with self._lock:
            if not self._stopped.is_set():
                self._reporter.counted(total)

    def _open_items(self, store: Store) -> Iterator[Item]:
        """What there is to be done, in order; of the other files the reporter is told."""
        job, no_clips = self.job, self._why_no_clips()
        for item in self._listing(not no_clips):
            if self._stopped.is_set():
                return
            if not job.shard.has(item):
                continue
            is_open = not store.has(item)
            with self._lock:
                self.summary.found += 1
                if item.is_clip and no_clips:
                    is_open = False
                    self.summary.passed_over += 1
                    self._reporter.passed_over(item, no_clips)
                elif problem := _taken(store, item):
                    is_open = False
                    self._fail(item.relative, problem)
                elif not is_open:
                    self.summary.skipped += 1
                    self._reporter.skipped(item)
            if is_open:
                yield item

    def _listing(self, clips: bool) -> Iterator[Item]:
        job = self.job
        return listing(job.folder, self._fail, job.within, is_busy, clips, self._not_read)

    def _not_read(self, relative: str) -> None:
        if self.job.shard.has(Item(self.job.folder, relative)):
            with self._lock:
                self.summary.unread[PurePosixPath(relative).suffix.lower()] += 1
                self._reporter.unread(relative)

    def _why_no_clips(self) -> str:
        """Why clips are passed over; empty where they are not."""
        job = self.job
        if job.asking.clip_task is None:
            return "this task is about pictures, and it is a video"
        if job.trainer.mixed:
            return ""
        if all(item.is_clip for item in listing(job.folder, within=job.within)):
            return ""
        return (
            f"{job.trainer.name} reads no videos from a table that has pictures: put them into a "
            "folder of their own"
        )

    def _answer(self, store: Store, portion: reading.Portion) -> None:
        """Asks about the files of a portion, and keeps what is answered."""
        assert self.backend is not None
        asked: list[_Asked] = []
        queries: list[Query] = []
        for item, media in portion:
            one = _Asked(item)
            try:
                old = store.old(item) if self.job.asking.refine else ""
                if isinstance(media, BadImage):
                    raise media
            except BadImage as error:
                self._fail(item.relative, reading.why(item, error))
                continue
            if self._is_answered_by_another(store, one, media):
                continue
            asked.append(one)
            queries.append(self.job.query(self.backend, item, media, old))
        if not queries:
            return
        with self._lock:
            self._reporter.asking([one.item for one in asked])
        open_ones = dict(enumerate(asked))

        def keep(index: int, result: Result) -> None:
            with self._lock:  # answers of a server may come in any thread
                self._keep(store, open_ones.pop(index), result)

        answer_each(self.backend, queries, keep, self.observer, alone=True)

    def _is_answered_by_another(self, store: Store, one: _Asked, media: Any) -> bool:
        """Whether the reply to a near-duplicate is, or will be, that to this picture."""
        if self._near is None or one.item.is_clip:
            return False
        bits, one.colours = dhash(media), colours(media)
        other = self._near.find(bits, lambda other: are_close(other.colours, one.colours))
        if other is None:
            self._near.put(bits, one)
            return False
        if other.result is None:
            other.same.append(one.item)
        else:
            self._keep_same(store, other, one.item)
        return True

    def _keep(self, store: Store, one: _Asked, result: Result) -> None:
        one.result = result
        self._write(store, one.item, result)
        for item in one.same:
            self._keep_same(store, one, item)
        one.same.clear()

    def _keep_same(self, store: Store, one: _Asked, item: Item) -> None:
        assert one.result is not None
        if self._write(store, item, one.result, f"As {one.item.relative}: "):
            self.summary.same += 1

    def _write(self, store: Store, item: Item, result: Result, of: str = "") -> bool:
        """Writes the caption of ``item``, unless ``result`` is none."""
        try:
            # Where each is a caption of its own, it has its own trigger words.
            is_one = self.job.existing == "append" and not self.job.trainer.choices
            behind = store.old(item) if is_one else ""
            caption, failure = caption_of(self.job, item, result, behind)
            if failure:
                unreadable = bool(result.error) and result.finish_reason != "error"
                self._fail(item.relative, of + failure, unreadable)
                return False
            store.put(item, caption)
        except BadImage as error:
            self._fail(item.relative, str(error))
            return False
        except OSError as error:
            problem = f"The caption cannot be written: {error.strerror or error}."
            if error.errno in _NO_ROOM:
                raise QwenVLError(f"{item.path}: {problem}") from error
            self._fail(item.relative, problem)
            return False
        with self._lock:
            self.summary.captioned += 1
            for note in result.notes:
                self._reporter.note(item, note)
            self._reporter.captioned(item, caption)
        return True

    def _fail(self, relative: str, reason: str, unreadable: bool = False) -> None:
        with self._lock:
            self.summary.failed += 1
            self.summary.unreadable += unreadable
            if len(self.summary.failures) < MOST_LISTED:
                self.summary.failures.append((relative, reason))
            if self._failures:
                with contextlib.suppress(OSError):  # a list for later is worth no run
                    self._failures.add(file=relative, reason=reason)
            self._reporter.failed(relative, reason)


def _taken(store: Store, item: Item) -> str:
    """Why the caption of ``item`` would be another file's; empty where it would not."""
    if item.double:
        return (
            f"{item.double} lies beside it, whose name is the same but for its Unicode form. "
            "Rename one of them."
        )
    if twin := store.taken_by(item):
        return (
            f"{twin} lies beside it, and trainers read the same caption file for both. Rename one "
            "of them."
        )
    return ""


class _Asked:
    """A file that is asked about; ``same``: near-duplicates that wait for its reply; ``colours``:
    of its picture, where such are looked for."""

    def __init__(self, item: Item):
        self.item = item
        self.result: Result | None = None
        self.same: list[Item] = []
        self.colours = b""
