"""Where a model's weights are, and how they get from there to where they are needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Literal

import torch

from ..inference.prefix_cache import PrefixCache
from .devices import held_bytes, mapped_bytes, move
from .load_progress import Progress

Place = Literal["disk", "ram", "device"]
RAM = torch.device("cpu")


class Weights:
    """The weights of one model: only on disk, in RAM, or on the device that computes.

    ``read(progress)`` brings the model from disk to its devices. ``shares``: bytes on each device
    once loaded; an estimate until the weights have been read once. Thread-safe: ``lock`` is held
    by whoever computes or moves.
    """

    def __init__(
        self,
        read: Callable[[Progress | None], Any],
        shares: dict[torch.device, int],
    ):
        self.model: Any = None
        self.place: Place = "disk"
        self.shares = shares
        self.seen = PrefixCache()
        self.lock = threading.RLock()
        self._read = read

    @property
    def device(self) -> torch.device:
        """Where a model's inputs go."""
        return next(iter(self.shares))

    @property
    def size(self) -> int:
        """Bytes that the weights occupy once loaded, tied tensors counted once."""
        return sum(self.shares.values())

    @property
    def nbytes(self) -> int:
        """Bytes that they occupy now, on whatever device."""
        return 0 if self.place == "disk" else self.size

    def load(self, progress: Progress | None = None) -> Any:
        """The model, on its device. Raises what reading raises; the weights are then on disk."""
        # Nothing made here may be an inference tensor: a host may run everything inside inference
        # mode, and such weights could never be used outside it again.
        with self.lock, torch.inference_mode(False), torch.no_grad():
            if self.place == "disk":
                self.model = self._read(progress)
                self.shares = self._measured()
            elif self.place == "ram":
                move(self.model, self.device)
            self.place = "device"
            return self.model

    def offload(self) -> None:
        """To RAM, from where they are back soon. Weights on several devices go to disk: nothing
        but a new reading can spread them again; so do those that are in mapped files, for which
        RAM did not suffice."""
        with self.lock, torch.inference_mode(False), torch.no_grad():
            if self.place != "device":
                return
            if len(self.shares) > 1 or mapped_bytes(self.model):
                self.release()
                return
            move(self.model, RAM)
            self.seen.park()
            self.place = "ram"

    def release(self) -> None:
        """Out of memory altogether; the next ``load`` reads them from disk."""
        with self.lock:
            self.model = None
            self.seen.clear()
            self.place = "disk"

    def _measured(self) -> dict[torch.device, int]:
        if len(self.shares) == 1:
            return {self.device: held_bytes(self.model)}
        return {device: held_bytes(self.model, device) for device in self.shares}
