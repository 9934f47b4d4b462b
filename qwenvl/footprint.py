"""What a model will occupy once it is loaded, told from its files' headers: no weight is read."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .completeness import INDEX, SINGLE
from .shards import header, settings

# What checkpoints bring beside the model that is loaded: heads that guess several tokens at
# once, and the speaking half of Qwen2.5-Omni.
_NOT_LOADED = ("mtp.", "talker.", "token2wav.")


@dataclass(frozen=True)
class Weight:
    """A tensor in a checkpoint: its name there, the format's name of its type (``BF16``), its
    shape, and its bytes on disk."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int

    @property
    def numel(self) -> int:
        return math.prod(self.shape)


def weights(path: Path) -> Iterator[Weight]:
    """The tensors of the checkpoint ``path`` that a loaded model takes.

    Raises ``IncompleteCheckpoint`` where a file is missing or cut off.
    """
    files = {SINGLE}
    if (path / INDEX).is_file():
        files = set(settings(path, INDEX)["weight_map"].values())
    for file in sorted(files):
        for name, entry in header(path / file).items():
            if not name.startswith(_NOT_LOADED):
                begin, end = entry["data_offsets"]
                yield Weight(name, entry["dtype"], tuple(entry["shape"]), end - begin)
