"""What a model has seen, so that it need not look again.

Several questions about one picture share everything up to the picture's end, or at least the
picture. What the model knows at these places is kept, bounded in bytes, the part used longest ago
leaving first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from .model_runner import Prefill, VisionFeatures

MOST = 1 << 30
"""Bytes that are kept at most."""


def digest(picture: Tensor) -> bytes:
    """Equal for equal pixels (uint8 ``[3, H, W]``) alone: of all of them, not of a sample."""
    # Channels last, as ``images`` lays pictures out: then nothing is copied.
    flat = picture.movedim(0, -1).contiguous().cpu().view(-1).numpy()
    return hashlib.blake2b(flat.data, digest_size=16).digest() + repr(picture.shape).encode()


class PrefixCache:
    """Beginnings of prompts and pictures, by what they are made of, up to ``most`` bytes of them;
    ``nbytes``: what is kept now. Lives and moves with a model's weights. An entry is measured once,
    when it comes: what a call costs does not grow with the number of entries."""

    def __init__(self, most: int = MOST):
        self.most = most
        self.nbytes = 0
        self.hits = self.misses = 0
        self._kept: OrderedDict[Hashable, tuple[Prefill | VisionFeatures, int]] = OrderedDict()
        self._parked: set[Hashable] = set()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable, device: torch.device) -> Any:
        """What is known of ``key``, or None; fetched to ``device`` if it was parked."""
        if key not in self._kept:
            self.misses += 1
            return None
        self.hits += 1
        known, nbytes = self._kept[key]
        self._kept.move_to_end(key)
        if key in self._parked:
            known = known.to(device)
            self._kept[key] = known, nbytes
            self._parked.discard(key)
        return known

    def put(self, key: Hashable, known: Prefill | VisionFeatures) -> None:
        nbytes = known.nbytes
        if nbytes > self.most:
            return
        self._drop(key)
        self._kept[key] = known, nbytes
        self.nbytes += nbytes
        self.limit(self.most)

    def limit(self, most: int) -> None:
        """From now on at most ``most`` bytes."""
        self.most = most
        while self.nbytes > most:
            self._drop(next(iter(self._kept)))

    def offload(self) -> None:
        """All to RAM, from where each is fetched when it is asked for."""
        for key, (known, nbytes) in self._kept.items():
            self._kept[key] = known.to(torch.device("cpu")), nbytes
        self._parked = set(self._kept)

    def clear(self) -> None:
        self._kept.clear()
        self._parked.clear()
        self.nbytes = 0

    def _drop(self, key: Hashable) -> None:
        _, nbytes = self._kept.pop(key, (None, 0))
        self.nbytes -= nbytes
        self._parked.discard(key)


def key(ids: Sequence[int], digests: Sequence[bytes], sizes: Sequence[tuple[int, int]]) -> Hashable:
    """Of a beginning: its tokens, and for each of its pictures the content and the size in which
    the model sees it."""
    return tuple(ids), tuple(digests), tuple(sizes)
