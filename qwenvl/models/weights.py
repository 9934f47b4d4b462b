"""Weights of one model, and their moves between disk, RAM and the computing device."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Protocol

import torch

from ..types import Place
from .load_progress import Progress
from .model_tensors import mapped_bytes, model_bytes, move

RAM = torch.device("cpu")


class Offloadable(Protocol):
    """What a model keeps beside its weights on their device, such as a cache of KV states."""

    @property
    def nbytes(self) -> int:
        """Bytes that it occupies now."""

    def offload(self) -> None:
        """Moves all of it to RAM; it comes back piece by piece when it is used."""

    def clear(self) -> None:
        """Drops all of it."""


class Weights:
    """Weights of one model: only on disk, offloaded to RAM, or on the computing device.

    ``read(progress)`` loads the model from disk onto its devices. ``shares``: bytes on each device
    once loaded, an estimate until the weights have been read once. Thread-safe: whoever computes
    with the weights or moves them holds ``lock``.
    """

    def __init__(
        self,
        read: Callable[[Progress | None], Any],
        shares: dict[torch.device, int],
    ):
        self.model: Any = None
        self.place: Place = "disk"
        self.shares = shares
        self.lock = threading.RLock()
        self._read = read
        self._attached: list[Offloadable] = []

    @property
    def device(self) -> torch.device:
        """The device that takes the model's inputs."""
        return next(iter(self.shares))

    @property
    def size(self) -> int:
        """Bytes that the weights occupy once loaded, tied tensors counted once."""
        return sum(self.shares.values())

    @property
    def nbytes(self) -> int:
        """Bytes that they occupy now, on whatever device."""
        return 0 if self.place == "disk" else self.size

    @property
    def attached_bytes(self) -> int:
        """Bytes of what is attached to the weights."""
        return sum(item.nbytes for item in self._attached)

    def attach(self, item: Offloadable) -> None:
        """From now on ``item`` is offloaded with the weights and cleared when they are released."""
        self._attached.append(item)

    def load(self, progress: Progress | None = None) -> Any:
        """Loads the model onto its device and returns it. Where reading raises, the weights stay
        on disk."""
        # A host may run everything inside inference mode, and weights made there could never be
        # used outside it again.
        with self.lock, torch.inference_mode(False), torch.no_grad():
            if self.place == "disk":
                self.model = self._read(progress)
                self.shares = self._measured_shares()
            elif self.place == "ram":
                move(self.model, self.device)
            self.place = "device"
            return self.model

    def offload(self) -> None:
        """Moves the weights to RAM, from where they are soon back.

        Released instead are weights on several devices, which only reading spreads again, and
        weights in mapped files, for which RAM did not suffice.
        """
        with self.lock, torch.inference_mode(False), torch.no_grad():
            if self.place != "device":
                return
            if len(self.shares) > 1 or mapped_bytes(self.model):
                self.release()
                return
            move(self.model, RAM)
            for item in self._attached:
                item.offload()
            self.place = "ram"

    def release(self) -> None:
        """Drops the weights from memory; the next ``load`` reads them from disk."""
        with self.lock:
            self.model = None
            for item in self._attached:
                item.clear()
            self.place = "disk"

    def _measured_shares(self) -> dict[torch.device, int]:
        if len(self.shares) == 1:
            return {self.device: model_bytes(self.model)}
        return {device: model_bytes(self.model, device) for device in self.shares}
