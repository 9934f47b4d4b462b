"""The bar of the node that runs now, its live text, and the stop button."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from ...qwenvl.observer import Observer
from ...qwenvl.replies import split_thinking
from ...qwenvl.types import Response
from . import page
from .live_text import LiveText
from .parts import part

_STEPS = 1000  # of the progress bar, and of each picture's share in it
_STATUS_INTERVAL = 0.2  # seconds between two lines
_LOADING_STEPS = 200  # of them, where weights must be read first


def check_interrupt() -> None:
    """Raises ComfyUI's interrupt if the person pressed stop."""
    name = "throw_exception_if_processing_interrupted"
    if stop_if_asked := part("comfy.model_management", name):
        stop_if_asked()


class Bar:
    """The progress bar of the node that runs now; ComfyUI itself limits how often it is sent."""

    def __init__(self, total: int):
        progress_bar = part("comfy.utils", "ProgressBar")
        self._bar = progress_bar(total) if progress_bar else None

    def set(self, value: int, total: int | None = None) -> None:
        if self._bar is not None:
            self._bar.update_absolute(value, total)


class StatusLine:
    """What the node that runs now is at, on its page; lines that come too fast are left out."""

    def __init__(self) -> None:
        self._next = 0.0

    def show(self, text: str) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _STATUS_INTERVAL
            page.live(status=text)


class DownloadProgress:
    """``progress`` of a download (see ``checkpoints.library``), shown in the node that runs now."""

    def __init__(self, repo_id: str):
        self._repo_id, self._bar, self._line = repo_id, Bar(1), StatusLine()

    def __call__(self, done: int, total: int, file: str) -> None:
        self._bar.set(done, total)
        size = f"{done / 1e9:.2f} of {total / 1e9:.2f} GB"
        self._line.show(f"Downloading {self._repo_id}: {size} ({file})")


class NodeWatch(Observer):
    """Shows a run in its node: one bar over reading the weights and all pictures, and the words
    as they come. The bar is full when the last picture is answered, and not before.

    ``thinking``: the numbers of the answers that begin with a thought, which is shown apart.
    """

    def __init__(self, thinking: Collection[int] = ()) -> None:
        self._thinking = thinking
        self._bar = Bar(_STEPS)
        self._loaded = 0  # steps of the bar
        self._limits: list[int] = []
        self._tokens: list[int] = []
        self._texts: list[str] = []
        self._open: set[int] = set()
        self._steps: list[int] = []
        self._live = LiveText(0)

    def loading(self, done: int, total: int) -> None:
        check_interrupt()
        if not self._loaded:
            page.live(status="Loading the model")
        self._loaded = max(1, _LOADING_STEPS * done // max(1, total))
        self._bar.set(self._loaded)

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        count = len(max_new_tokens)
        self._limits = [max(1, limit) for limit in max_new_tokens]
        self._tokens, self._steps = [0] * count, [0] * count
        self._texts = [""] * count
        self._open = set(range(count))
        self._live = LiveText(count)
        self._live.looking()

    def restart(self, index: int) -> None:
        self._tokens[index] = 0
        self._texts[index] = ""

    def token(self, index: int, text: str) -> None:
        self._tokens[index] += 1
        self._texts[index] += text
        self._advance(index, _STEPS * self._tokens[index] // self._limits[index])
        if self._live.is_due:
            # A later batch holds later pictures: the first one that has words is being written.
            written = min((place for place in self._open if self._tokens[place]), default=index)
            self._live.show(
                written, *split_thinking(self._texts[written], written in self._thinking)
            )

    def done(self, index: int, response: Response) -> None:
        self._open.discard(index)
        self._advance(index, _STEPS)
        self._live.finish(index, response)

    def check(self) -> None:
        check_interrupt()

    def _advance(self, index: int, steps: int) -> None:
        """A finished picture counts whole, an open one by the share of its limit it has used."""
        self._steps[index] = min(_STEPS - (index in self._open), steps)
        answered = (_STEPS - self._loaded) * sum(self._steps) // (_STEPS * len(self._steps))
        self._bar.set(self._loaded + answered)
