"""The vision tower's first layer, for still pictures that come once and not twice.

Every model since Qwen2-VL looks at two frames at a time, and the official processors show a still
picture as two equal frames. A layer that is linear in both gives the same for one frame with the
sum of their weights, from half the numbers.
"""

from __future__ import annotations

from math import prod
from typing import Any

from torch import Tensor, nn

from ...errors import UnsupportedModel


class PatchEmbedding(nn.Module):
    """Rows of patches ``[N, channels * patch * patch]`` of still pictures, or ``[N, channels *
    frames * patch * patch]`` of frames in time, to ``[N, embedding]``.

    ``weight``: ``[embedding, channels, frames, patch, patch]``, that of the official layer.
    ``still`` is their sum over the frames, taken in float32.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None):
        super().__init__()
        summed = weight.detach().float().sum(2).flatten(1).to(weight.dtype)
        self.still = nn.Parameter(summed, requires_grad=False)
        self.moving = nn.Parameter(weight.detach().flatten(1), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    def forward(self, rows: Tensor) -> Tensor:
        weight = self.still if rows.shape[-1] == self.still.shape[-1] else self.moving
        return nn.functional.linear(rows.to(weight.dtype), weight, self.bias)


def apply(model: Any) -> None:
    """Gives the vision tower of a loaded ``model`` a ``PatchEmbedding`` of its own weights.

    Raises ``UnsupportedModel`` where it has none to take them from.
    """
    vision = model.config.vision_config
    kernel = (3, vision.temporal_patch_size, vision.patch_size, vision.patch_size)
    for module in model.modules():
        if isinstance(old := getattr(module, "patch_embed", None), nn.Module):
            # A convolution over patches, which transformers can flatten to a linear layer.
            layer: Any = next(old.children(), None)
            if type(layer) in (nn.Conv3d, nn.Linear) and layer.weight[0].numel() == prod(kernel):
                weight = layer.weight.reshape(-1, *kernel)
                module.patch_embed = PatchEmbedding(weight, layer.bias)
                return
    raise UnsupportedModel(
        f"The vision tower of this {model.config.model_type} model takes pictures in a way that "
        "is not known here. Choose a Qwen checkpoint or a fine-tune of one."
    )


def of(model: nn.Module) -> PatchEmbedding:
    """The one that ``apply`` gave to ``model``."""
    return next(part for part in model.modules() if isinstance(part, PatchEmbedding))
