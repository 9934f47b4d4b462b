"""Vision encoder: images through the vision tower, and their features into the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from ..models.patches import vision_features


@dataclass(frozen=True)
class VisionFeatures:
    """An image as the vision tower encoded it, in whatever form the model's family has."""

    features: Any

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in tree_leaves(self.features) if isinstance(leaf, Tensor))

    def to(self, device: torch.device) -> VisionFeatures:
        return VisionFeatures(
            tree_map_only(Tensor, lambda tensor: tensor.to(device), self.features)
        )


@dataclass
class ImageInput:
    """An image of a prompt: its ``grid`` in patches, and either its patches (see
    ``ImageProcessor.pixel_values``) or its ``features`` where they are known; ``on_encoded`` is
    called with them once the vision tower has made them."""

    grid: tuple[int, int, int]
    pixel_values: Tensor | None
    features: VisionFeatures | None
    on_encoded: Callable[[VisionFeatures], None]


class VisionEncoder:
    """The vision tower of ``model``, called for one image at a time, and only for those without
    known features.

    A forward pass takes features as ``mm_encoder_outputs`` where the library has that argument;
    elsewhere the tower gives them (``models/patches/vision_features.py``).
    """

    def __init__(self, model: Any):
        self._model = model
        self._needs_patch = vision_features.applies(model)

    @contextmanager
    def inputs(self, images: Sequence[ImageInput]) -> Iterator[dict[str, Any]]:
        """Arguments of the forward pass over a prompt that shows ``images``, for a pass inside the
        block. The images are encoded first; those that are have ``features`` from then on."""
        if not images:
            yield {}
            return
        features = _concatenated([self._encoded(image).features for image in images])
        if not self._needs_patch:
            yield {"mm_encoder_outputs": {"image": features}}
            return
        tower = vision_features.vision_tower(self._model)
        weight = next(tower.parameters())
        with vision_features.substituted(tower, features):
            yield {
                "pixel_values": weight.new_empty(0),
                "image_grid_thw": torch.tensor([i.grid for i in images], device=weight.device),
            }

    def _encoded(self, image: ImageInput) -> VisionFeatures:
        if image.features is None:
            assert image.pixel_values is not None
            grid = torch.tensor([image.grid], device=image.pixel_values.device)
            if self._needs_patch:
                tower = vision_features.vision_tower(self._model)
                encoded = tower(image.pixel_values, grid_thw=grid)
            else:
                encoded = self._model.get_image_features(image.pixel_values, grid, return_dict=True)
            image.features = VisionFeatures(_without_patches(encoded))
            image.pixel_values = None
            image.on_encoded(image.features)
        return image.features


def _without_patches(features: Any) -> Any:
    """Drops the tower's states before patches are merged into tokens, which nothing uses."""
    if getattr(features, "pooler_output", None) is not None:
        features.last_hidden_state = None
    return features


def _concatenated(features: Sequence[Any]) -> Any:
    """What encoding all images at once would give. A new container each time: models add to it."""

    def join(*parts: Any) -> Any:
        if not isinstance(parts[0], Tensor):
            return parts[0]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    return tree_map(join, features[0], *features[1:])
