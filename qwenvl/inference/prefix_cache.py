"""Prefix cache of KV states and vision features, keyed by content.

Questions about one image share everything up to the image's end, or at least the image; a
conversation shares all that was said before. Prefilled prefixes and vision features are kept in a
bounded number of bytes, least recently used evicted first.
"""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .model_runner import Prefill
from .vision_encoder import VisionFeatures

MAX_BYTES = 1 << 30
"""Capacity of a cache."""


def image_digest(image: Tensor) -> bytes:
    """Equal for equal pixels (uint8 ``[3, H, W]``, or frames ``[T, 3, H, W]``) or samples of sound
    (``[channels, N]``) only: of all of them, not of a sample."""
    # Channels last, as ``media`` lays images out: then nothing is copied.
    flat = (image.movedim(-3, -1) if image.ndim > 2 else image).contiguous().cpu().view(-1).numpy()
    return hashlib.blake2b(flat.data, digest_size=16).digest() + repr(image.shape).encode()


class PrefixKey(NamedTuple):
    """Of a prefix: its tokens ``ids``, and for each of its images a key of content and size."""

    ids: tuple[int, ...]
    images: tuple[Hashable, ...]

    @property
    def bucket(self) -> Hashable:
        """Equal for prefixes that can be those of one prompt."""
        return self.images[0] if self.images else None


def prefix_key(
    ids: Sequence[int], length: int, images: Sequence[Hashable], image_ends: Sequence[int]
) -> PrefixKey:
    """Of the first ``length`` tokens of a prompt ``ids``, whose ``images`` (their keys) end where
    ``image_ends`` says."""
    held = (key for key, end in zip(images, image_ends, strict=True) if end <= length)
    return PrefixKey(tuple(ids[:length]), tuple(held))


_Scoped = tuple[Hashable, Hashable]
"""A key, of a prefix or of vision features, behind its scope."""


class PrefixCache:
    """LRU cache of at most ``max_bytes``; ``nbytes``: bytes held now. Lives and moves with a
    model's weights. An entry is measured once, when it is put in: the cost of a call does not grow
    with the number of entries.

    ``scope``: what entries depend on besides their keys, the adapters that are on: those of one
    scope are not found in another."""

    def __init__(self, max_bytes: int = MAX_BYTES):
        self.max_bytes = max_bytes
        self.nbytes = 0
        self.hits = self.misses = 0
        self.scope: Hashable = ()
        self._entries: OrderedDict[_Scoped, tuple[Prefill | VisionFeatures, int]] = OrderedDict()
        self._offloaded: set[_Scoped] = set()
        # Lengths of the prefixes in each bucket of a scope, with how many have them.
        self._lengths: dict[_Scoped, Counter[int]] = {}

    def __contains__(self, key: Hashable) -> bool:
        return (self.scope, key) in self._entries

    def get(self, key: Hashable, device: torch.device) -> Any:
        """The entry of ``key``, or None; moved back to ``device`` if it was offloaded."""
        scoped = (self.scope, key)
        if scoped not in self._entries:
            self.misses += 1
            return None
        self.hits += 1
        entry, nbytes = self._entries[scoped]
        self._entries.move_to_end(scoped)
        if scoped in self._offloaded:
            entry = entry.to(device)
            self._entries[scoped] = entry, nbytes
            self._offloaded.discard(scoped)
        return entry

    def longest(
        self, ids: Sequence[int], images: Sequence[Hashable], image_ends: Sequence[int]
    ) -> PrefixKey | None:
        """The key of the longest entry that a prompt begins with and goes on behind; see
        ``prefix_key``."""
        bucket = images[0] if images else None
        for length in sorted(self._lengths.get((self.scope, bucket), ()), reverse=True):
            if length < len(ids):
                key = prefix_key(ids, length, images, image_ends)
                if key in self:
                    return key
        return None

    def put(self, key: Hashable, entry: Prefill | VisionFeatures) -> None:
        """Adds ``entry`` unless it alone exceeds the capacity."""
        nbytes = entry.nbytes
        if nbytes > self.max_bytes:
            return
        scoped = (self.scope, key)
        self._evict(scoped)
        self._entries[scoped] = entry, nbytes
        self.nbytes += nbytes
        if isinstance(key, PrefixKey):
            self._lengths.setdefault((self.scope, key.bucket), Counter())[len(key.ids)] += 1
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
        self._lengths.clear()
        self.nbytes = 0

    def _evict(self, scoped: _Scoped) -> None:
        if scoped not in self._entries:
            return
        _, nbytes = self._entries.pop(scoped)
        self.nbytes -= nbytes
        self._offloaded.discard(scoped)
        scope, key = scoped
        if isinstance(key, PrefixKey):
            lengths = self._lengths[scope, key.bucket]
            lengths[len(key.ids)] -= 1
            if not lengths[len(key.ids)]:
                del lengths[len(key.ids)]
            if not lengths:
                del self._lengths[scope, key.bucket]
