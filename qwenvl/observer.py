"""Observer: what a caller may watch while requests are answered, and how it stops them."""

from __future__ import annotations

from collections.abc import Sequence

from .types import Response


class Observer:
    """Looks on while requests are answered. The base class does nothing: override what you need.

    Any exception raised here (a host's interrupt, ``KeyboardInterrupt``) ends the run within one
    token and reaches the caller unchanged.
    """

    def loading(self, done: int, total: int) -> None:
        """Called while weights are read: how much of them has come."""

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        """Called once, before work begins: what each request will cost at most."""

    def token(self, index: int, text: str) -> None:
        """Request ``index`` grew by ``text`` (may be empty while a character is incomplete)."""

    def restart(self, index: int) -> None:
        """Request ``index`` begins anew (memory ran out amid it): its text so far is void."""

    def done(self, index: int, response: Response) -> None:
        """Request ``index`` is answered."""

    def check(self) -> None:
        """Called before every token; raise to stop."""
