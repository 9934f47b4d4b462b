"""Patch: the patch embedding of the vision tower, for images given as one frame instead of two.

Every model since Qwen2-VL embeds two frames at a time, and the official processors give a still
image as two equal frames. The layer is linear, so one frame with the sum of both frames' weights
gives the same from half the numbers.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor, nn

from ...errors import UnsupportedModel

NAME = "patch_embed"  # of the official layer in its vision tower, whatever the family


class PatchEmbedding(nn.Module):
    """Patch embedding: patches ``[N, channels * patch * patch]`` of still images, or ``[N,
    channels * frames * patch * patch]`` of video frames, to ``[N, embedding]``.

    ``weight``: that of the official layer, ``[embedding, channels, frames, patch, patch]``.
    ``still`` is its sum over the frames, taken in float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        summed = weight.detach().float().sum(2).flatten(1).to(weight.dtype)
        self.still = nn.Parameter(summed, requires_grad=False)
        self.moving = nn.Parameter(weight.detach().flatten(1), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, patches: Tensor) -> Tensor:
        weight = self.still if patches.shape[-1] == self.still.shape[-1] else self.moving
        return nn.functional.linear(patches.to(weight.dtype), weight, self.bias)


def apply(model: Any) -> None:
    """Replaces the patch embedding of a loaded ``model`` by a ``PatchEmbedding`` of its weights.

    Raises ``UnsupportedModel`` where the vision tower has none of a known form.
    """
    vision = model.config.vision_config
    kernel = (3, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    for module in model.modules():
        if isinstance(old := getattr(module, NAME, None), nn.Module):
            # A convolution over patches, or the linear layer that transformers makes of it.
            layer: Any = next(old.children(), None)
            if type(layer) in (nn.Conv3d, nn.Linear) and layer.weight[0].numel() == prod(kernel):
                weight = layer.weight.reshape(-1, *kernel)
                setattr(module, NAME, PatchEmbedding(weight, layer.bias))
                return
    raise UnsupportedModel(
        f"The vision tower of this {model.config.model_type} model takes pictures in a way that "
        "is not known here. Choose a Qwen checkpoint or a fine-tune of one."
    )


def of(model: nn.Module) -> PatchEmbedding:
    """The one that ``apply`` put into ``model``."""
    return next(part for part in model.modules() if isinstance(part, PatchEmbedding))
