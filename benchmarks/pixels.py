"""Image preprocessing, and the patch embedding."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from . import models
from .figures import Figure, Growth, compare, measure_growth


def _synchronized(tensor: torch.Tensor) -> torch.Tensor:
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)
    return tensor


def _dtype(device: torch.device) -> torch.dtype:
    """The dtype that models have on ``device``."""
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def _batch(count: int, side: int) -> torch.Tensor:
    """An IMAGE ``[count, side, side, 3]``."""
    return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(side))


def _twice(rows: torch.Tensor) -> torch.Tensor:
    """Repeats each channel's frame, as the official processor does for still images."""
    return rows.view(len(rows), 3, 1, -1).expand(-1, -1, 2, -1).flatten(1)


def pixels(name: str, wanted: float | None, on: str, count: int, side: int) -> Figure:
    """IMAGE to pixel values on the model's device and in its dtype (bf16 on a GPU), against the
    official processor by way of PIL."""
    from PIL import Image
    from qwen_vl_suite.qwenvl.backends.definition import load_image_processor
    from qwen_vl_suite.qwenvl.media import images
    from transformers import AutoImageProcessor

    folder, device = models.small_files(), torch.device(on)
    processor, rule = AutoImageProcessor.from_pretrained(folder), load_image_processor(folder)
    image, dtype = _batch(count, side), _dtype(device)

    def ours() -> torch.Tensor:
        return _synchronized(rule.pixel_values(images.pictures(image), device, dtype))

    def theirs() -> torch.Tensor:
        files = [Image.fromarray((one.numpy() * 255).round().astype("uint8")) for one in image]
        made = processor(images=files, return_tensors="pt")["pixel_values"]
        return _synchronized(made.to(device, dtype))

    # A GPU may round one of the 256 levels the other way, which in -1..1 is 0.008.
    assert torch.allclose(_twice(ours()), theirs(), atol=1e-6 if on == "cpu" else 0.02)
    return compare(
        name,
        lambda: ours().shape[:1],
        lambda: theirs().shape[:1],
        wanted=wanted,
        note="against tensor, PIL, official processor",
    )


def pixels_growth(name: str, wanted: float | None, on: str, sides: Sequence[int]) -> Growth:
    """Cost of preprocessing by number of pixels."""
    from qwen_vl_suite.qwenvl.media import image_processor, images

    rule = image_processor.ImageProcessor(patch_size=16, max_pixels=2**24)
    device = torch.device(on)
    made = [_batch(1, side) for side in sides]

    def work(index: int) -> None:
        _synchronized(rule.pixel_values(images.pictures(made[index]), device))

    work(0)
    return measure_growth(name, wanted, "pixels", [side * side for side in sides], work, repeats=5)


@torch.no_grad()
def patch_embedding(name: str, wanted: float | None, on: str, count: int, side: int) -> Figure:
    """The patch embedding in the width of real models, from one frame per image, against a
    convolution over two equal frames."""
    from qwen_vl_suite.qwenvl.models.patches.patch_embedding import PatchEmbedding

    device = torch.device(on)
    dtype = _dtype(device)
    kernel = (2, 16, 16)
    layer = torch.nn.Conv3d(3, 1152, kernel, kernel).to(device, dtype)
    quick = PatchEmbedding(layer.weight, layer.bias)
    rows = torch.randn(count * (side // 16) ** 2, 3 * 16 * 16, device=device, dtype=dtype)
    doubled = _twice(rows)

    def ours() -> torch.Tensor:
        return _synchronized(quick(rows))

    def theirs() -> torch.Tensor:
        return _synchronized(layer(doubled.view(-1, 3, *kernel)).view(len(doubled), -1))

    tolerance = 1e-5 if dtype is torch.float32 else 0.05
    assert torch.allclose(ours(), theirs(), atol=tolerance)
    return compare(
        name,
        lambda: ours().shape,
        lambda: theirs().shape,
        wanted=wanted,
        note="against a convolution over two equal frames",
    )
