"""What is done to a picture before the model's first layer, and that layer."""

from __future__ import annotations

import time
from typing import Any

import torch

from . import models
from .figures import Figure, compare
from .speed import growth


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _settle() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _batch(count: int, side: int) -> torch.Tensor:
    """An IMAGE ``[count, side, side, 3]``."""
    return torch.rand(count, side, side, 3, generator=torch.Generator().manual_seed(side))


def _twice(rows: torch.Tensor) -> torch.Tensor:
    """Every channel's frame a second time behind the first, as the official processor has them."""
    return rows.view(len(rows), 3, 1, -1).expand(-1, -1, 2, -1).flatten(1)


def pixels(count: int = 16, side: int = 1024) -> Figure:
    """IMAGE to what the model takes, on its device and in its type (bf16 on a GPU), against the
    official processor by way of PIL."""
    from PIL import Image
    from qwen_vl_suite.qwenvl import images
    from qwen_vl_suite.qwenvl.transformers_backend import preprocessing
    from transformers import AutoImageProcessor

    folder = models.write("qwen3_vl")
    processor, rule = AutoImageProcessor.from_pretrained(folder), preprocessing(folder)
    device = _device()
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    image = _batch(count, side)

    def ours() -> torch.Tensor:
        return rule.pixel_values(images.pictures(image), device, dtype)

    def theirs() -> torch.Tensor:
        files = [Image.fromarray((one.numpy() * 255).round().astype("uint8")) for one in image]
        made = processor(images=files, return_tensors="pt")["pixel_values"]
        return made.to(device, dtype)

    def timed(way: Any) -> torch.Size:
        made = way()
        _settle()
        return made.shape[:1]

    assert torch.allclose(_twice(ours()), theirs(), atol=1e-6)
    return compare(
        f"{count} pictures of {side}x{side} to pixel values on {device.type}",
        lambda: timed(ours),
        lambda: timed(theirs),
        wanted=1.6 if device.type == "cpu" else 10,
        note="against tensor, PIL, official processor",
    )


def pixels_growth() -> dict[str, Any]:
    """Cost of a picture's way to the model as its pixels grow."""
    from qwen_vl_suite.qwenvl import images

    rule = images.Preprocessing(patch_size=16, max_pixels=2**24)
    device, sides, seconds = _device(), [256, 512, 1024, 2048, 4096], []
    for side in sides:
        image, times = _batch(1, side), []
        for _ in range(5):
            start = time.perf_counter()
            rule.pixel_values(images.pictures(image), device)
            _settle()
            times.append(time.perf_counter() - start)
        seconds.append(min(times))
    sizes = [side * side for side in sides]
    return {"sizes": sizes, "seconds": seconds, "exponent": growth(sizes, seconds), "wanted": 1.1}


@torch.no_grad()
def patch_embedding(count: int = 4, side: int = 1024) -> Figure:
    """The vision tower's first layer in the width of real models, from one frame of each picture
    against a convolution over two equal ones."""
    from qwen_vl_suite.qwenvl.patch_embedding import PatchEmbedding

    device = _device()
    dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
    kernel = (2, 16, 16)
    layer = torch.nn.Conv3d(3, 1152, kernel, kernel).to(device, dtype)
    quick = PatchEmbedding(layer.weight, layer.bias)
    rows = torch.randn(count * (side // 16) ** 2, 3 * 16 * 16, device=device, dtype=dtype)
    doubled = _twice(rows)

    def ours() -> torch.Tensor:
        return quick(rows)

    def theirs() -> torch.Tensor:
        return layer(doubled.view(-1, 3, *kernel)).view(len(doubled), -1)

    def timed(way: Any) -> torch.Size:
        made = way()
        _settle()
        return made.shape

    tolerance = 1e-5 if dtype is torch.float32 else 0.05
    assert torch.allclose(ours(), theirs(), atol=tolerance)
    return compare(
        f"patch embedding of {count} pictures of {side}x{side} on {device.type}",
        lambda: timed(ours),
        lambda: timed(theirs),
        wanted=2,
        note="against a convolution over two equal frames",
    )
