"""Vision encoder: pictures, videos and sounds through their towers, and their features into the
forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from ..media.spans import Kind
from ..models.patches import vision_features


@dataclass(frozen=True)
class VisionFeatures:
    """A picture, video or sound as its tower encoded it, in whatever form its family has."""

    features: Any

    @property
    def nbytes(self) -> int:
        return sum(leaf.nbytes for leaf in tree_leaves(self.features) if isinstance(leaf, Tensor))

    def to(self, device: torch.device) -> VisionFeatures:
        return VisionFeatures(
            tree_map_only(Tensor, lambda tensor: tensor.to(device), self.features)
        )


@dataclass
class MediaInput:
    """A picture, video or sound of a prompt: its ``kind``, its ``grid`` in patches, and either its
    ``patches``, in parts that are encoded one after the other, each with its own grid (see
    ``ImageProcessor``, ``VideoProcessor`` and ``AudioProcessor``), or its ``features`` where they
    are known; ``on_encoded`` is called with them once the tower has made them."""

    kind: Kind
    grid: tuple[int, int, int]
    patches: Iterable[tuple[Tensor, tuple[int, int, int]]]
    features: VisionFeatures | None
    on_encoded: Callable[[VisionFeatures], None]


class VisionEncoder:
    """The vision tower of ``model``, called for one picture, or some steps of one video, at a time,
    and only for those without known features; its audio tower likewise.

    A forward pass takes features as ``mm_encoder_outputs`` where the library has that argument;
    elsewhere, and always of sounds, the tower gives them (``models/patches/vision_features.py``).
    """

    def __init__(self, model: Any):
        self._model = model
        self._needs_patch = vision_features.applies(model)

    @contextmanager
    def inputs(self, media: Sequence[MediaInput]) -> Iterator[dict[str, Any]]:
        """Arguments of the forward pass over a prompt that shows ``media``, for a pass inside the
        block. They are encoded first; those that are have ``features`` from then on."""
        if not media:
            yield {}
            return
        for one in media:
            self._encode(one)
        sounds = [one for one in media if one.kind == "audio"]
        with self._heard(sounds) as heard, self._shown(media) as shown:
            yield {**heard, **shown}

    @contextmanager
    def _heard(self, sounds: Sequence[MediaInput]) -> Iterator[dict[str, Any]]:
        if not sounds:
            yield {}
            return
        tower = vision_features.audio_tower(self._model)
        weight = next(tower.parameters())
        columns = torch.tensor([one.grid[2] for one in sounds], device=weight.device)
        there = torch.arange(int(columns.max()), device=weight.device) < columns[:, None]
        # Only how many columns there are is looked at.
        given = weight.new_zeros(1, 1, 1).expand(len(sounds), 1, there.shape[1])
        with vision_features.substituted(tower, [_joined(sounds)]):
            yield {"input_features": given, "feature_attention_mask": there.long()}

    @contextmanager
    def _shown(self, media: Sequence[MediaInput]) -> Iterator[dict[str, Any]]:
        kinds: list[Kind] = [kind for kind in _ARGUMENTS if any(m.kind == kind for m in media)]
        shown = {kind: [one for one in media if one.kind == kind] for kind in kinds}
        features = {kind: _joined(found) for kind, found in shown.items()}
        if not kinds:
            yield {}
            return
        if not self._needs_patch:
            yield {"mm_encoder_outputs": features}
            return
        tower = vision_features.vision_tower(self._model)
        weight = next(tower.parameters())
        given: dict[str, Any] = {}
        for kind, found in shown.items():
            pixels, grids = _ARGUMENTS[kind]
            given[pixels] = weight.new_empty(0)
            given[grids] = torch.tensor([one.grid for one in found], device=weight.device)
        # Its forward pass asks the tower for the pictures first, then for the videos.
        with vision_features.substituted(tower, [features[kind] for kind in kinds]):
            yield given

    def _encode(self, medium: MediaInput) -> None:
        if medium.features is not None:
            return
        parts = [self._features(medium.kind, *part) for part in medium.patches]
        medium.patches = ()
        medium.features = VisionFeatures(_concatenated(parts))
        medium.on_encoded(medium.features)

    def _features(self, kind: Kind, patches: Tensor, grid: tuple[int, int, int]) -> Any:
        if kind == "audio":
            return self._heard_features(patches)
        grids = torch.tensor([grid], device=patches.device)
        if self._needs_patch:
            tower = vision_features.vision_tower(self._model)
            return _without_patches(tower(patches, grid_thw=grids))
        encode = (
            self._model.get_video_features if kind == "video" else self._model.get_image_features
        )
        return _without_patches(encode(patches, grids, return_dict=True))

    def _heard_features(self, mels: Tensor) -> Any:
        tower = vision_features.audio_tower(self._model)
        columns = torch.tensor([mels.shape[1]], device=mels.device)
        # The first of the tower's layers halves them, which one family wants to be told.
        return tower(mels, feature_lens=columns, aftercnn_lens=(columns - 1) // 2 + 1)


_ARGUMENTS: dict[Kind, tuple[str, str]] = {
    "image": ("pixel_values", "image_grid_thw"),
    "video": ("pixel_values_videos", "video_grid_thw"),
}
"""Names of pixels and grids in a forward pass, in the order in which it encodes them."""


def _joined(media: Sequence[MediaInput]) -> Any:
    return _concatenated([one.features.features for one in media if one.features is not None])


def _without_patches(features: Any) -> Any:
    """Drops the tower's states before patches are merged into tokens, which nothing uses."""
    if getattr(features, "pooler_output", None) is not None:
        features.last_hidden_state = None
    return features


def _concatenated(features: Sequence[Any]) -> Any:
    """What encoding all of them at once would give. A new container each time: models add to it."""

    def join(*parts: Any) -> Any:
        if not isinstance(parts[0], Tensor):
            return parts[0]
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    return tree_map(join, features[0], *features[1:])
