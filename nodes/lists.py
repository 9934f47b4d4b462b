"""List inputs: the calls that ComfyUI's own list mapping would make.

A node with ``is_input_list`` can answer all of them in one batched run; its outputs must be those
that ComfyUI's own mapping would have given, call by call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def mapped(function: Callable[..., T], *values: Any) -> list[T]:
    """Calls ``function`` once for each item of the longest list in ``values``; shorter lists repeat
    their last item. A dynamic combo is a dict of such lists; other values are passed to all calls.
    If a list is empty, there are no calls."""
    counts = [len(found) for value in values for found in _lists(value)]
    calls = range(0 if 0 in counts else max(counts, default=1))
    return [function(*(_item(value, number) for value in values)) for number in calls]


def known(value: Any) -> list[Any]:
    """The entries of an input as the check and the fingerprint of such a node get it: ComfyUI hands
    them ``(None,)`` for what comes by a link, which is not there yet."""
    entries = value if isinstance(value, list | tuple) else [value]
    return [entry for entry in entries if entry is not None]


def _lists(value: Any) -> Iterator[list[Any]]:
    if isinstance(value, list):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _lists(inner)


def _item(value: Any, number: int) -> Any:
    if isinstance(value, list):
        return value[min(number, len(value) - 1)]
    if isinstance(value, dict):
        return {name: _item(inner, number) for name, inner in value.items()}
    return value
