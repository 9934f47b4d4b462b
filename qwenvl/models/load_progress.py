"""Load progress: reports each tensor while transformers loads a checkpoint, and can stop it."""

from __future__ import annotations

import itertools
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .footprint import weights

Progress = Callable[[int, int], None]
"""``progress(done, total)``: tensors loaded so far, and in all. What it raises ends loading."""


def load_with_progress(load: Callable[[], Any], progress: Progress | None, path: Path) -> Any:
    """Returns ``load()``, which has transformers load the checkpoint ``path``, and calls
    ``progress`` before each tensor and once at the end.

    What ``progress`` raises, an interrupt too, ends loading at once and is raised unchanged.
    transformers is hooked meanwhile and restored before this returns, so only one such call may
    run at a time.
    """
    if progress is None:
        return load()
    raised: BaseException | None = None

    def report(done: int, total: int) -> None:
        nonlocal raised
        if raised is None:
            try:
                progress(done, total)
            except BaseException as error:
                raised = error
        if raised is not None:
            raise _Stop

    from transformers.utils import logging

    hooked = hasattr(logging, "set_tqdm_hook")
    try:
        with _hooked_bars(report) if hooked else _hooked_reads(report, path):
            return load()
    except _Stop as stop:
        # The error would keep the loader's frames alive, and with them half a model.
        traceback.clear_frames(stop.__traceback__)
    assert raised is not None
    raise raised


class _Stop(BaseException):
    """Ends the loader: passes every ``except Exception``."""


@contextmanager
def _hooked_bars(report: Progress) -> Iterator[None]:
    """Reports through transformers' own hook into its progress bars."""
    from transformers.utils import logging

    thread = threading.get_ident()

    def hook(bar: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        created = bar(*args, **options)
        if threading.get_ident() != thread or not (args and hasattr(args[0], "__len__")):
            return created
        return each(created, len(args[0]))

    def each(items: Any, total: int) -> Iterator[Any]:
        for done, item in enumerate(items):
            report(done, total)
            yield item
        report(total, total)

    previous = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(previous)


@contextmanager
def _hooked_reads(report: Progress, path: Path) -> Iterator[None]:
    """Reports through ``safe_open``, for releases without that hook, whose bars count whole
    files."""
    from transformers import modeling_utils

    total = sum(1 for _ in weights(path))
    done = itertools.count()
    lock = threading.Lock()
    thread = threading.get_ident()
    safe_open = modeling_utils.safe_open

    def before_read() -> None:
        with lock:  # the first releases of 5 read in several threads
            report(min(next(done), total), total)

    def counting_open(*args: Any, **options: Any) -> Any:
        file = safe_open(*args, **options)
        return _Counted(file, before_read) if threading.get_ident() == thread else file

    modeling_utils.safe_open = counting_open
    try:
        yield
    finally:
        modeling_utils.safe_open = safe_open
    report(total, total)


class _Counted:
    """A safetensors file, or a tensor in one, that calls ``before_read`` whenever data is read."""

    def __init__(self, inner: Any, before_read: Callable[[], None]):
        self._inner = inner
        self._before_read = before_read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> _Counted:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)

    def get_slice(self, name: str) -> _Counted:
        return _Counted(self._inner.get_slice(name), self._before_read)

    def __getitem__(self, index: Any) -> Any:
        self._before_read()
        return self._inner[index]
