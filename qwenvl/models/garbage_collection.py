"""Keeps Python's cyclic garbage collector out of the way while much is made that stays."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_blocks = 0
_was_on = False


@contextmanager
def paused() -> Iterator[None]:
    """While the block runs, or several of them in several threads, Python does not look for
    garbage cycles by itself. Also a decorator.

    Imports, tokenizers and models are hundreds of thousands of objects that stay. As they come,
    the collector looks at all that the process holds, again and again, and finds nothing: beside
    what a host has loaded, that doubles the time a tokenizer takes. What is collected on demand
    (``gc.collect()``) is so here too, and who had turned the collector off finds it off.
    """
    global _blocks, _was_on
    with _lock:
        if not _blocks:
            _was_on = gc.isenabled()
            gc.disable()
        _blocks += 1
    try:
        yield
    finally:
        with _lock:
            _blocks -= 1
            if not _blocks and _was_on:
                gc.enable()
