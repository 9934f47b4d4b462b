"""What is done to a picture before the model's first layer, and that layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import models
from .figures import Figure, Growth, compare, grown


def _settle(made: torch.Tensor) -> torch.Tensor:
    if made.is_cuda:
        torch.cuda.synchronize(made.device)
    return made


def _dtype(device: torch.device) -> torch.dtype:
    """The one that models have there."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def _batch(count: int, side: int) -> torch.Tensor:
    """An IMAGE ``[count, side, side, 3]``."""
    return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(side))


def _twice(rows: torch.Tensor) -> torch.Tensor:
    """Every channel's frame a second time behind the first, as the official processor has them."""
    return rows.view(len(rows), 3, 1, -1).expand(-1, -1, 2, -1).flatten(1)


def pixels(name: str, wanted: float | None, on: str, count: int, side: int) -> Figure:
    """IMAGE to what the model takes, on its device and in its type (bf16 on a card), against the
    official processor by way of PIL."""
    from PIL import Image
    from qwen_vl_suite.qwenvl.backends.local import load_image_processor
    from qwen_vl_suite.qwenvl.media import images
    from transformers import AutoImageProcessor

    folder, device = models.small_files(), torch.device(on)
    processor, rule = AutoImageProcessor.from_pretrained(folder), load_image_processor(folder)
    image, dtype = _batch(count, side), _dtype(device)

    def ours() -> torch.Tensor:
        return _settle(rule.pixel_values(images.pictures(image), device, dtype))

    def theirs() -> torch.Tensor:
        files = [Image.fromarray((one.numpy() * 255).round().astype("uint8")) for one in image]
        made = processor(images=files, return_tensors="pt")["pixel_values"]
        return _settle(made.to(device, dtype))

    # A card may round a level of the 256 the other way, which in -1..1 is 0.008.
    assert torch.allclose(_twice(ours()), theirs(), atol=1e-6 if on == "cpu" else 0.02)
    return compare(
        name,
        lambda: ours().shape[:1],
        lambda: theirs().shape[:1],
        wanted=wanted,
        note="against tensor, PIL, official processor",
    )


def pixels_growth(name: str, wanted: float | None, on: str, sides: Sequence[int]) -> Growth:
    """Cost of a picture's way to the model as its pixels grow."""
    from qwen_vl_suite.qwenvl.media import image_processor, images

    rule = image_processor.ImageProcessor(patch_size=16, max_pixels=2**24)
    device = torch.device(on)
    made = [_batch(1, side) for side in sides]

    def work(index: int) -> None:
        _settle(rule.pixel_values(images.pictures(made[index]), device))

    work(0)
    return grown(name, wanted, "pixels", [side * side for side in sides], work, repeats=5)


@torch.no_grad()
def patch_embedding(name: str, wanted: float | None, on: str, count: int, side: int) -> Figure:
    """The vision tower's first layer in the width of real models, from one frame of each picture
    against a convolution over two equal ones."""
    from qwen_vl_suite.qwenvl.models.patches.patch_embedding import PatchEmbedding

    device = torch.device(on)
    dtype = _dtype(device)
    kernel = (2, 16, 16)
    layer = torch.nn.Conv3d(3, 1152, kernel, kernel).to(device, dtype)
    quick = PatchEmbedding(layer.weight, layer.bias)
    rows = torch.randn(count * (side // 16) ** 2, 3 * 16 * 16, device=device, dtype=dtype)
    doubled = _twice(rows)

    def ours() -> torch.Tensor:
        return _settle(quick(rows))

    def theirs() -> torch.Tensor:
        return _settle(layer(doubled.view(-1, 3, *kernel)).view(len(doubled), -1))

    tolerance = 1e-5 if dtype is torch.float32 else 0.05
    assert torch.allclose(ours(), theirs(), atol=tolerance)
    return compare(
        name,
        lambda: ours().shape,
        lambda: theirs().shape,
        wanted=wanted,
        note="against a convolution over two equal frames",
    )
