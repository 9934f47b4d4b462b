"""Hears of a checkpoint's loading while transformers is at it, and can stop it.

Like ``loading`` this imports transformers inside functions.
"""

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
"""``progress(done, total)``: so many of so many tensors are loaded. What it raises ends loading."""


def load_with_progress(load: Callable[[], Any], progress: Progress | None, path: Path) -> Any:
    """``load()``, which has transformers load the checkpoint ``path``, and of which ``progress``
    hears: before each tensor, and once at the end.

    What ``progress`` raises, an interrupt too, ends loading at once and comes out of here
    unchanged. What is changed in transformers meanwhile is changed back before this returns; only
    one such call may run at a time.
    """
    if progress is None:
        return load()
    raised: BaseException | None = None

    def tell(done: int, total: int) -> None:
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
        with _told_by_bars(tell) if hooked else _told_by_reads(tell, path):
            return load()
    except _Stop as stop:
        # Whoever keeps the error would keep the loader's frames, and in them half a model.
        traceback.clear_frames(stop.__traceback__)
    assert raised is not None
    raise raised


class _Stop(BaseException):
    """Takes the loader down past everybody who catches ``Exception``."""


@contextmanager
def _told_by_bars(tell: Progress) -> Iterator[None]:
    """Through the hook into transformers' own progress bars."""
    from transformers.utils import logging

    thread = threading.get_ident()

    def hook(bar: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        shown = bar(*args, **options)
        if threading.get_ident() != thread or not (args and hasattr(args[0], "__len__")):
            return shown
        return each(shown, len(args[0]))

    def each(items: Any, total: int) -> Iterator[Any]:
        for done, item in enumerate(items):
            tell(done, total)
            yield item
        tell(total, total)

    before = logging.set_tqdm_hook(hook)
    try:
        yield
    finally:
        logging.set_tqdm_hook(before)


@contextmanager
def _told_by_reads(tell: Progress, path: Path) -> Iterator[None]:
    """For releases without that hook, whose bars count whole files: through the reader of files
    that their loader uses."""
    from transformers import modeling_utils

    total = sum(1 for _ in weights(path))
    done = itertools.count()
    lock = threading.Lock()
    thread = threading.get_ident()
    safe_open = modeling_utils.safe_open

    def read() -> None:
        with lock:  # the first releases of 5 read in several threads
            tell(min(next(done), total), total)

    def counted(*args: Any, **options: Any) -> Any:
        file = safe_open(*args, **options)
        return _Counted(file, read) if threading.get_ident() == thread else file

    modeling_utils.safe_open = counted
    try:
        yield
    finally:
        modeling_utils.safe_open = safe_open
    tell(total, total)


class _Counted:
    """A safetensors file, or a tensor in one: calls ``tell`` whenever data is about to be read."""

    def __init__(self, inner: Any, tell: Callable[[], None]):
        self._inner = inner
        self._tell = tell

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> _Counted:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._inner.__exit__(*error)

    def get_slice(self, name: str) -> _Counted:
        return _Counted(self._inner.get_slice(name), self._tell)

    def __getitem__(self, index: Any) -> Any:
        self._tell()
        return self._inner[index]
