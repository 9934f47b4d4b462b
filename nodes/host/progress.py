"""Progress and interrupt: the progress bar and live text of the running node, the stop button."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...qwenvl.observer import Observer
from ...qwenvl.replies import split_thinking
from ...qwenvl.types import Response
from . import page
from .live_text import LiveText
from .optional_import import optional_import

_STEPS = 1000  # of the progress bar, and of each picture's share in it
_LOADING_STEPS = 200  # of these, where weights must be read first
_LONG_PROMPT = 4096  # tokens that take a while to read, as those of a document's pages
_STATUS_INTERVAL = 0.2  # seconds between two status lines


def check_interrupt() -> None:
    """Raises ComfyUI's interrupt exception if the user pressed stop."""
    name = "throw_exception_if_processing_interrupted"
    if raise_if_interrupted := optional_import("comfy.model_management", name):
        raise_if_interrupted()


class ProgressBar:
    """The progress bar of the running node; ComfyUI itself limits how often it is sent."""

    def __init__(self, total: int):
        progress_bar = optional_import("comfy.utils", "ProgressBar")
        self._bar = progress_bar(total) if progress_bar else None

    def set(self, value: int, total: int | None = None) -> None:
        if self._bar is not None:
            self._bar.update_absolute(value, total)


@contextmanager
def without_progress() -> Iterator[None]:
    """While the block runs, progress bars that ComfyUI's own code makes are not shown: there is one
    over the whole run. Interrupts still end that code."""
    utils = optional_import("comfy.utils")
    set_hook = getattr(utils, "set_progress_bar_global_hook", None)
    if set_hook is None:
        yield
        return
    before = utils.PROGRESS_BAR_HOOK

    def check_only(*_: Any, **__: Any) -> None:
        check_interrupt()

    set_hook(check_only)
    try:
        yield
    finally:
        set_hook(before)


class StatusLine:
    """A status line on the page of the running node; lines that come too fast are dropped."""

    def __init__(self) -> None:
        self._next = 0.0

    def show(self, text: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _STATUS_INTERVAL
            page.send_live(status=text)


class DownloadProgress:
    """``progress`` of a download (see ``checkpoints.library``), shown in the running node."""

    def __init__(self, repo_id: str):
        self._repo_id, self._bar, self._status = repo_id, ProgressBar(1), StatusLine()

    def __call__(self, done: int, total: int, file: str) -> None:
        self._bar.set(done, total)
        size = f"{done / 1e9:.2f} of {total / 1e9:.2f} GB"
        self._status.show(f"Downloading {self._repo_id}: {size} ({file})")


class NodeObserver(Observer):
    """Shows a run in its node: one progress bar over reading the weights and all pictures, and the
    live text. The bar is full when the last picture is answered, and not before.

    ``thinking``: indices of the answers that begin with thinking, which is shown apart.
    ``status``: what is said until there are words, in place of looking at pictures.
    """

    def __init__(self, thinking: Collection[int] = (), status: str = "") -> None:
        self._thinking, self._status = thinking, status
        self._bar = ProgressBar(_STEPS)
        self._loading_steps = 0  # of the bar, done so far
        self._limits: list[int] = []
        self._tokens: list[int] = []
        self._texts: list[str] = []
        self._unfinished: set[int] = set()
        self._steps: list[int] = []
        self._live_text = LiveText(0)

    def loading(self, done: int, total: int) -> None:
        check_interrupt()
        if not self._loading_steps:
            page.send_live(status="Loading the model")
        self._loading_steps = max(1, _LOADING_STEPS * done // max(1, total))
        self._bar.set(self._loading_steps)

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        count = len(max_new_tokens)
        self._limits = [max(1, limit) for limit in max_new_tokens]
        self._tokens, self._steps = [0] * count, [0] * count
        self._texts = [""] * count
        self._unfinished = set(range(count))
        self._live_text = LiveText(count)
        self._live_text.start(self._status)
        if max(prompt_tokens, default=0) >= _LONG_PROMPT:
            page.send_live(status=f"Reading {sum(prompt_tokens):,} tokens")

    def restart(self, index: int) -> None:
        self._tokens[index] = 0
        self._texts[index] = ""

    def token(self, index: int, text: str) -> None:
        self._tokens[index] += 1
        self._texts[index] += text
        self._set_steps(index, _STEPS * self._tokens[index] // self._limits[index])
        if self._live_text.is_due:
            # Several answers grow at a time: that of the first picture among them is shown.
            first = min((at for at in self._unfinished if self._tokens[at]), default=index)
            thinking, answer = split_thinking(self._texts[first], first in self._thinking)
            self._live_text.update(first, thinking, answer)

    def done(self, index: int, response: Response) -> None:
        self._unfinished.discard(index)
        self._set_steps(index, _STEPS)
        self._live_text.finish(index, response)

    def check(self) -> None:
        check_interrupt()

    def _set_steps(self, index: int, steps: int) -> None:
        """A finished picture counts as a whole, any other by the share of its limit used."""
        self._steps[index] = min(_STEPS - (index in self._unfinished), steps)
        total = _STEPS * len(self._steps)
        answering = (_STEPS - self._loading_steps) * sum(self._steps) // total
        self._bar.set(self._loading_steps + answering)
