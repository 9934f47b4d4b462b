"""Patches: what is changed in transformers' models after they are loaded. Each can be left off, and
computes what the library computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ...types import Family
from . import mtp_head, norms, patch_embedding


@dataclass(frozen=True)
class Patch:
    """``applies(device)``: whether there is a use for it on a device. ``apply(model, path,
    family)`` changes the loaded model of a checkpoint."""

    name: str
    applies: Callable[[torch.device], bool]
    apply: Callable[[Any, Path, Family], None]


def _embed_patches(model: Any, _path: Path, family: Family) -> None:
    if family.sees:
        patch_embedding.apply(model)


PATCHES = (
    Patch("patch embedding", lambda _device: True, _embed_patches),
    Patch("fused RMS norms", norms.applies, lambda model, *_: norms.apply(model)),
    Patch("MTP head", lambda _device: True, mtp_head.apply),
)


def apply_all(model: Any, device: torch.device, path: Path, family: Family) -> None:
    """Applies all patches that there is a use for on ``device``."""
    for patch in PATCHES:
        if patch.applies(device):
            patch.apply(model, path, family)
