"""What a model must be able to do, whoever runs it, and how a caller looks on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from .types import Family, Request, Response


class Watch:
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


class Backend(Protocol):
    """A loaded model. Thread-safe: calls queue behind one another."""

    @property
    def family(self) -> Family: ...

    @property
    def nbytes(self) -> int:
        """Bytes that the weights occupy now, tied tensors counted once; 0 while they are on disk
        only."""
        ...

    @property
    def place(self) -> Literal["disk", "ram", "device"]:
        """Where the weights are now: only on disk, in RAM, or on the device that computes."""
        ...

    @property
    def max_pixels(self) -> int:
        """The most pixels the checkpoint's own settings let the model see of one picture."""
        ...

    def thinks(self, wish: bool | None = None) -> bool:
        """Whether an answer will begin with a thought, given the caller's wish (None: the
        model's own way). Raises ``BadOption`` where the model cannot do as wished."""
        ...

    def generate(self, requests: Sequence[Request], watch: Watch | None = None) -> list[Response]:
        """Answers in the order of ``requests``, each as if it were asked alone."""
        ...

    def offload(self) -> None:
        """Moves the weights from their device to RAM, from where the next request fetches them."""
        ...

    def release(self) -> None:
        """Takes the weights out of memory; the next request reads them from disk again."""
        ...

    def close(self) -> None:
        """Releases the weights for good. A closed backend refuses further work."""
        ...
