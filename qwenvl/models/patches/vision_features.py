"""Patch: a tower gives features that are known already, for the time of a forward pass.

For transformers whose forward passes have no argument for them: later ones take vision features as
``mm_encoder_outputs``, and their vision tower is left alone. None takes those of sounds.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn


def applies(model: nn.Module) -> bool:
    """Whether forward passes of ``model`` have no argument for vision features."""
    return "mm_encoder_outputs" not in inspect.signature(model.forward).parameters


def vision_tower(model: nn.Module) -> Any:
    """The vision tower of ``model``: ``tower(pixel_values, grid_thw=…)`` gives features."""
    return next(module for module in model.modules() if hasattr(module, "patch_embed"))


def audio_tower(model: nn.Module) -> Any:
    """The audio tower of ``model``: ``tower(log-mel features, feature_lens=…)`` gives features."""
    return next(module for name, module in model.named_modules() if name.endswith("audio_tower"))


@contextmanager
def substituted(tower: Any, features: Sequence[Any]) -> Iterator[None]:
    """While the block runs, ``tower`` gives ``features``, one a call, whatever pixel values it is
    called with. They are in the form of its own output, and belong to the caller of ``tower``
    afterwards."""
    following = iter(features)
    held = vars(tower).get("forward")  # accelerate puts one of its own there
    tower.forward = lambda *_args, **_options: next(following)
    try:
        yield
    finally:
        del tower.forward
        if held is not None:
            tower.forward = held
