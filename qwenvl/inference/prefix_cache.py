"""Prefix cache of KV states and vision features, keyed by content.

Questions about one image share everything up to the image's end, or at least the image. Prefilled
prefixes and vision features are kept in a bounded number of bytes, least recently used evicted
first.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor

from .model_runner import Prefill
from .vision_encoder import VisionFeatures

MAX_BYTES = 1 << 30
"""Capacity of a cache."""


def image_digest(image: Tensor) -> bytes:
    """Equal for equal pixels (uint8 ``[3, H, W]``) only: of all of them, not of a sample."""
    # Channels last, as ``media`` lays images out: then nothing is copied.
    flat = image.movedim(0, -1).contiguous().cpu().view(-1).numpy()
    return hashlib.blake2b(flat.data, digest_size=16).digest() + repr(image.shape).encode()


def prefix_key(
    ids: Sequence[int], digests: Sequence[bytes], sizes: Sequence[tuple[int, int]]
) -> Hashable:
    """Of a prefix: its tokens, and for each of its images the content and the input size."""
    return tuple(ids), tuple(digests), tuple(sizes)


class PrefixCache:
    """LRU cache of at most ``max_bytes``; ``nbytes``: bytes held now. Lives and moves with a
    model's weights. An entry is measured once, when it is put in: the cost of a call does not grow
    with the number of entries."""

    def __init__(self, max_bytes: int = MAX_BYTES):
        self.max_bytes = max_bytes
        self.nbytes = 0
        self.hits = self.misses = 0
        self._entries: OrderedDict[Hashable, tuple[Prefill | VisionFeatures, int]] = OrderedDict()
        self._offloaded: set[Hashable] = set()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._entries

    def get(self, key: Hashable, device: torch.device) -> Any:
        """The entry of ``key``, or None; moved back to ``device`` if it was offloaded."""
        if key not in self._entries:
            self.misses += 1
            return None
        self.hits += 1
        entry, nbytes = self._entries[key]
        self._entries.move_to_end(key)
        if key in self._offloaded:
            entry = entry.to(device)
            self._entries[key] = entry, nbytes
            self._offloaded.discard(key)
        return entry

    def put(self, key: Hashable, entry: Prefill | VisionFeatures) -> None:
        """Adds ``entry`` unless it alone exceeds the capacity."""
        nbytes = entry.nbytes
        if nbytes > self.max_bytes:
            return
        self._evict(key)
        self._entries[key] = entry, nbytes
        self.nbytes += nbytes
        self.limit(self.max_bytes)

    def limit(self, max_bytes: int) -> None:
        """Sets the capacity, and evicts what exceeds it."""
        self.max_bytes = max_bytes
        while self.nbytes > max_bytes:
            self._evict(next(iter(self._entries)))

    def offload(self) -> None:
        """Moves all entries to RAM, from where ``get`` brings each back."""
        for key, (entry, nbytes) in self._entries.items():
            self._entries[key] = entry.to(torch.device("cpu")), nbytes
        self._offloaded = set(self._entries)

    def clear(self) -> None:
        self._entries.clear()
        self._offloaded.clear()
        self.nbytes = 0

    def _evict(self, key: Hashable) -> None:
        _, nbytes = self._entries.pop(key, (None, 0))
        self.nbytes -= nbytes
        self._offloaded.discard(key)
