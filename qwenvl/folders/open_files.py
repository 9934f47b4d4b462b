"""Open files: those of a folder that there is something to be done about."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from ..errors import BadOption
from .account import Account
from .imagefolder import Surroundings
from .job import Job
from .listing import Item, listing, same_but_for_its_form
from .state import is_busy


class Store(Protocol):
    """Where captions are kept. Nothing is changed on disk before ``begin``."""

    def begin(self) -> None: ...

    def has(self, item: Item) -> bool: ...

    def problem(self, item: Item) -> str: ...

    def held(self, item: Item) -> int: ...

    def old(self, item: Item) -> str: ...

    def put(self, item: Item, caption: str, held: int) -> None: ...

    def finish(self, is_complete: bool) -> None: ...

    def notes(self) -> list[str]: ...

    def close(self) -> None: ...


def open_files(
    job: Job, store: Store, account: Account, is_stopped: Callable[[], bool] = lambda: False
) -> Iterator[Item]:
    """What there is to be done, in order; the others are in ``account``."""
    no_clips = _why_no_clips(job)

    def unread(relative: str) -> None:
        if job.shard.has(Item(job.folder, relative)):
            account.unread(relative)

    def busy(folder: Path) -> bool:
        return is_busy(folder, job.folder)

    around = Surroundings(job.folder) if job.trainer.imagefolder else None
    for item in listing(job.folder, account.fail, job.within, busy, not no_clips, unread):
        if is_stopped():
            return
        if not job.shard.has(item):
            continue
        account.found()
        if around:
            around.look(item)
        if item.is_clip and no_clips:
            account.passed_over(item, no_clips)
        elif item.double:
            account.fail(item.relative, same_but_for_its_form(item.double))
        elif problem := store.problem(item):
            account.fail(item.relative, problem)
        elif store.has(item):
            account.skipped(item, "It has a caption.")
        else:
            yield item
    account.summary.notes += around.notes() if around else ()


def count(job: Job, account: Account, stopped: threading.Event) -> None:
    """Tells the reporter how many files the shard has, once that is known."""
    total = 0
    with contextlib.suppress(BadOption):  # the folder is gone, which the run itself will tell
        for item in listing(job.folder, within=job.within):
            if stopped.is_set():
                return
            total += job.shard.has(item)
    with account.lock:
        if not stopped.is_set():
            account.reporter.counted(total)


def _why_no_clips(job: Job) -> str:
    """Why clips are passed over; empty where they are not."""
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
