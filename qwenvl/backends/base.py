"""Backend: what every model that answers requests can do, whoever runs it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol

from ..observer import Observer
from ..types import Family, Request, Response


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
        """The most pixels of one image that the checkpoint's own settings let the model see."""
        ...

    def thinks(self, wish: bool | None = None) -> bool:
        """Whether an answer begins with a thought, given the caller's wish (None: the model's
        default). Raises ``BadOption`` where the model cannot do as wished."""
        ...

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        """Answers in the order of ``requests``, each as if it were asked alone."""
        ...

    def offload(self) -> None:
        """Moves the weights from their device to RAM; the next request brings them back."""
        ...

    def release(self) -> None:
        """Takes the weights out of memory; the next request reads them from disk again."""
        ...

    def close(self) -> None:
        """Releases the weights for good. A closed backend refuses further requests."""
        ...
