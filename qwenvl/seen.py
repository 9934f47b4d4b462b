"""What a model has read of prompts that begin alike, so that it need not read it again.

Several questions about one picture share everything up to the picture's end. What the model knows
there is kept, bounded in bytes, the part used longest ago leaving first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from .decoder import Read, copied

MOST = 1 << 30
"""Bytes that are kept at most."""


def digest(picture: Tensor) -> bytes:
    """Equal for equal pixels (uint8 ``[3, H, W]``) alone: of all of them, not of a sample."""
    # Channels last, as ``images`` lays pictures out: then nothing is copied.
    flat = picture.movedim(0, -1).contiguous().cpu().view(-1).numpy()
    return hashlib.blake2b(flat.data, digest_size=16).digest() + repr(picture.shape).encode()


class Seen:
    """Beginnings of prompts, by what they are made of, up to ``most`` bytes of them. Lives and
    moves with a model's weights."""

    def __init__(self, most: int = MOST):
        self.most = most
        self.hits = self.misses = 0
        self._kept: OrderedDict[Hashable, Read] = OrderedDict()
        self._parked: set[Hashable] = set()

    @property
    def nbytes(self) -> int:
        return sum(read.nbytes for read in self._kept.values())

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def get(self, key: Hashable, device: torch.device) -> Read | None:
        """What was read of ``key``, fetched to ``device`` if it was parked."""
        found = self._kept.get(key)
        self.hits += found is not None
        self.misses += found is None
        if found is None:
            return None
        self._kept.move_to_end(key)
        if key in self._parked:
            found = self._kept[key] = moved(found, device)
            self._parked.discard(key)
        return found

    def put(self, key: Hashable, read: Read) -> None:
        if read.nbytes > self.most:
            return
        self._kept[key] = read
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
        for key, read in self._kept.items():
            self._kept[key] = moved(read, torch.device("cpu"))
        self._parked = set(self._kept)

    def clear(self) -> None:
        self._kept.clear()
        self._parked.clear()


def key(ids: Sequence[int], digests: Sequence[bytes], sizes: Sequence[tuple[int, int]]) -> Hashable:
    """Of a beginning: its tokens, and for each of its pictures the content and the size in which
    the model sees it."""
    return tuple(ids), tuple(digests), tuple(sizes)


def moved(read: Read, device: torch.device) -> Read:
    cache = copied(read.cache)
    for layer in cache.layers:
        if hasattr(layer, "recurrent_states"):
            for states in (layer.conv_states, layer.recurrent_states):
                for index, state in states.items():
                    states[index] = None if state is None else state.to(device)
        else:
            layer.keys, layer.values = layer.keys.to(device), layer.values.to(device)
        layer.device = device
    return Read(cache, read.length, read.logits.to(device))
