"""Garbage collection: the cyclic collector pauses while many lasting objects are made."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_active_blocks = 0
_was_enabled = False


@contextmanager
def paused() -> Iterator[None]:
    """Turns automatic collection off while the block runs, or several in several threads. Also a
    decorator.

    Imports, tokenizers and models are hundreds of thousands of objects that stay. While they are
    made, the collector would traverse everything in the process again and again and find nothing:
    beside what a host has loaded, that doubles the time a tokenizer takes. ``gc.collect()`` still
    collects, and a collector that was off before stays off.
    """
    global _active_blocks, _was_enabled
    with _lock:
        if not _active_blocks:
            _was_enabled = gc.isenabled()
            gc.disable()
        _active_blocks += 1
    try:
        yield
    finally:
        with _lock:
            _active_blocks -= 1
            if not _active_blocks and _was_enabled:
                gc.enable()
