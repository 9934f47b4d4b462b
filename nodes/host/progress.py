"""The bar of the node that runs now, its live text, and the stop button."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ...qwenvl.backend import Watch
from ...qwenvl.replies import split_thinking
from ...qwenvl.types import Response
from . import page
from .parts import part

_STEPS = 1000  # of the progress bar, for each picture
_TEXT_INTERVAL = 0.1  # seconds between two messages of live text


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


class NodeWatch(Watch):
    """Shows a run in its node: a bar over all pictures, and the words as they come.

    ``thinking``: whether the answers begin with a thought, which is shown apart.
    """

    def __init__(self, thinking: bool = False) -> None:
        self._thinking = thinking
        self._bar: Bar | None = None
        self._limits: list[int] = []
        self._tokens: list[int] = []
        self._texts: list[str] = []
        self._open: set[int] = set()
        self._shown = 0.0

    def loading(self, done: int, total: int) -> None:
        check_interrupt()
        if self._bar is None:
            self._bar = Bar(total)
            page.live(status="Loading the model")
        self._bar.set(done, total)

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        self._limits = [max(1, limit) for limit in max_new_tokens]
        self._tokens = [0] * len(self._limits)
        self._texts = [""] * len(self._limits)
        self._open = set(range(len(self._limits)))
        self._bar = Bar(_STEPS * len(self._limits))

    def restart(self, index: int) -> None:
        self._tokens[index] = 0
        self._texts[index] = ""

    def token(self, index: int, text: str) -> None:
        self._tokens[index] += 1
        self._texts[index] += text
        self._advance()
        if time.monotonic() - self._shown >= _TEXT_INTERVAL:
            self._show(min(self._open, default=index))

    def done(self, index: int, response: Response) -> None:
        self._open.discard(index)
        self._advance()
        self._show(index, response)

    def check(self) -> None:
        check_interrupt()

    def _advance(self) -> None:
        """A finished picture counts whole, an open one by the share of its limit it has used."""
        steps = (
            _STEPS * min(count, limit) // limit if index in self._open else _STEPS
            for index, (count, limit) in enumerate(zip(self._tokens, self._limits, strict=True))
        )
        if self._bar is not None:
            self._bar.set(sum(steps))

    def _show(self, index: int, response: Response | None = None) -> None:
        if response is None:
            thinking, text = split_thinking(self._texts[index], inside=self._thinking)
        else:
            thinking, text = response.thinking, response.text
        page.live(index=index, count=len(self._texts), text=text, thinking=thinking)
        self._shown = time.monotonic()
