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

from .decoder import Look, Read

MOST = 1 << 30
"""Bytes that are kept at most."""


def digest(picture: Tensor) -> bytes:
    """Equal for equal pixels (uint8 ``[3, H, W]``) alone: of all of them, not of a sample."""
    # Channels last, as ``images`` lays pictures out: then nothing is copied.
    flat = picture.movedim(0, -1).contiguous().cpu().view(-1).numpy()
    return hashlib.blake2b(flat.data, digest_size=16).digest() + repr(picture.shape).encode()


class Seen:
    """Beginnings of prompts and pictures, by what they are made of, up to ``most`` bytes of them.
    Lives and moves with a model's weights."""

    def __init__(self, most: int = MOST):
        self.most = most
        self.hits = self.misses = 0
        self._kept: OrderedDict[Hashable, Read | Look] = OrderedDict()
        self._parked: set[Hashable] = set()

    @property
    def nbytes(self) -> int:
        return sum(kept.nbytes for kept in self._kept.values())

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable, device: torch.device) -> Any:
        """What is known of ``key``, or None; fetched to ``device`` if it was parked."""
        found = self._kept.get(key)
        self.hits += found is not None
        self.misses += found is None
        if found is None:
            return None
        self._kept.move_to_end(key)
        if key in self._parked:
            found = self._kept[key] = found.to(device)
            self._parked.discard(key)
        return found

    def put(self, key: Hashable, known: Read | Look) -> None:
        if known.nbytes > self.most:
            return
        self._kept[key] = known
        self._parked.discard(key)
        self.limit(self.most)

    def limit(self, most: int) -> None:
        """From now on at most ``most`` bytes."""
        self.most = most
        while self.nbytes > most:
            oldest, _ = self._kept.popitem(last=False)
            self._parked.discard(oldest)

    def park(self) -> None:
        """All to RAM, from where each is fetched when it is asked for."""
        for key, known in self._kept.items():
            self._kept[key] = known.to(torch.device("cpu"))
        self._parked = set(self._kept)

    def clear(self) -> None:
        self._kept.clear()
        self._parked.clear()


def key(ids: Sequence[int], digests: Sequence[bytes], sizes: Sequence[tuple[int, int]]) -> Hashable:
    """Of a beginning: its tokens, and for each of its pictures the content and the size in which
    the model sees it."""
    return tuple(ids), tuple(digests), tuple(sizes)
