"""Observer: progress callbacks of a batched run, and how a caller stops it."""

from __future__ import annotations

from collections.abc import Sequence

from .types import Response


class Observer:
    """Callbacks while requests are answered. The base class does nothing: override what you need.

    Any exception raised here (a host's interrupt, ``KeyboardInterrupt``) ends the run within one
    token and reaches the caller unchanged.
    """

    def loading(self, done: int, total: int) -> None:
        """Called while weights are read, with the amounts read and to be read."""

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        """Called once, before prefill: each request's prompt length and token limit."""

    def token(self, index: int, text: str) -> None:
        """Request ``index`` grew by ``text`` (may be empty while a character is incomplete)."""

    def restart(self, index: int) -> None:
        """Request ``index`` starts again (memory ran out): its text so far is void."""

    def done(self, index: int, response: Response) -> None:
        """Request ``index`` is finished."""

    def check(self) -> None:
        """Called before every token; raise to stop."""
