"""The image processor gives the official processor's sizes and pixel values, on every device."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption
from qwen_vl_suite.qwenvl.media import image_processor, images
from torch._subclasses.fake_tensor import FakeTensorMode

SIZES = [(1, 1), (1, 150), (28, 28), (37, 201), (200, 64), (480, 640), (20, 3000), (1080, 1920)]


def noise(height: int, width: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 7 + width)
    return torch.rand(1, height, width, channels, generator=generator)


def official(**config):
    """The official processor. Both classes need torchvision and say so without it."""
    from transformers import AutoImageProcessor  # noqa: F401

    try:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl_fast import (
            Qwen2VLImageProcessorFast as Official,
        )
    except ImportError:
        from transformers import Qwen2VLImageProcessor as Official
    return Official(**config)


def repeated_in_time(rows: torch.Tensor) -> torch.Tensor:
    """Patches as the official processor has them: each channel's frame twice."""
    return rows.view(len(rows), 3, 1, -1).expand(-1, -1, 2, -1).flatten(1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("patch", [14, 16])
def test_pixel_values_equal_the_official_processors(size: tuple[int, int], patch: int) -> None:
    bounds = {"shortest_edge": 16 * 1024, "longest_edge": 600_000}
    config = {"patch_size": patch, "size": bounds}
    ours = image_processor.ImageProcessor.from_config(config)
    picture = images.pictures(noise(*size))[0]
    grid = ours.grid(picture)
    theirs = official(**config)(
        images=[picture], return_tensors="pt", input_data_format="channels_first"
    )
    assert [list(grid)] == theirs["image_grid_thw"].tolist()
    rows = repeated_in_time(ours.pixel_values([picture]))
    torch.testing.assert_close(rows, theirs["pixel_values"], atol=1e-6, rtol=0)
    assert ours.tokens(picture) == grid[1] * grid[2] // 4


def test_patches_of_several_pictures_are_concatenated() -> None:
    processor = image_processor.ImageProcessor(patch_size=16)
    batch = [images.pictures(noise(*size))[0] for size in ((64, 96), (300, 200), (96, 64))]
    alone = [processor.pixel_values([picture]) for picture in batch]
    assert [len(rows) for rows in alone] == [
        math.prod(processor.grid(picture)) for picture in batch
    ]
    assert torch.equal(processor.pixel_values(batch), torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pixel_values_are_rounded_once(dtype: torch.dtype) -> None:
    processor = image_processor.ImageProcessor(patch_size=14, max_pixels=10**6)
    batch = images.pictures(noise(700, 700))
    found = processor.pixel_values(batch, dtype=dtype)
    assert found.dtype == dtype and torch.equal(found, processor.pixel_values(batch).to(dtype))


def test_the_memory_layout_does_not_change_the_result() -> None:
    processor = image_processor.ImageProcessor(patch_size=16)
    for size in ((64, 96), (100, 90)):
        picture = images.pictures(noise(*size))[0]
        assert picture.movedim(0, -1).is_contiguous(), "channels lie side by side"
        assert torch.equal(
            processor.pixel_values([picture.contiguous()]), processor.pixel_values([picture])
        )


def test_check_is_called_before_every_picture() -> None:
    left = [None, None]
    batch = images.pictures(noise(64, 64)) * 3
    with pytest.raises(IndexError):
        image_processor.ImageProcessor().pixel_values(batch, check=left.pop)


@pytest.mark.parametrize("size", [(28, 28), (300, 100), (448, 700)], ids=str)
def test_resizing_as_float_is_nearly_equal(size: tuple[int, int]) -> None:
    """The GPU's path against the CPU's 8-bit kernels, which round their weights: one level apart
    in one value of a hundred, two in one of a hundred thousand."""
    picture = images.pictures(noise(333, 222))[0]
    native = image_processor.resize(picture, size)
    floats = image_processor.resize_as_float(picture, size)
    assert floats.dtype == torch.uint8 and floats.shape == native.shape == (3, *size)
    apart = (native.int() - floats.int()).abs()
    assert apart.max() <= 2
    assert (apart > 0).float().mean() < 0.01 and (apart > 1).float().mean() < 1e-5


@pytest.mark.parametrize("size", [(64, 96), (2000, 1500)], ids=str)
@pytest.mark.parametrize("origin", ["cpu", "cuda"])
def test_for_cuda_all_is_computed_there_without_synchronising(
    size: tuple[int, int], origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On fake tensors, which have no data: mixing devices or reading a value back raises."""
    sent: list[bool] = []
    to = torch.Tensor.to

    def recorded(tensor: torch.Tensor, *given, **named) -> torch.Tensor:
        made = to(tensor, *given, **named)
        if tensor.device.type == "cpu" and made.device.type == "cuda":
            sent.append(tensor.pinned and named["non_blocking"])
        return made

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        made = tensor.clone()
        made.pinned = True
        return made

    monkeypatch.setattr(torch.Tensor, "to", recorded)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    processor = image_processor.ImageProcessor(patch_size=16, max_pixels=10**6)
    with FakeTensorMode():
        picture = torch.empty(*size, 3, dtype=torch.uint8, device=origin).movedim(-1, 0)
        rows = processor.pixel_values([picture, picture], torch.device("cuda"), torch.bfloat16)
        assert rows.device.type == "cuda" and rows.dtype == torch.bfloat16
        assert rows.shape == (2 * math.prod(processor.grid(picture)), 3 * 16 * 16)
    assert all(sent) and len(sent) == 4 + 2 * (origin == "cpu"), "mean, std, picture, each twice"


def test_other_devices_are_sent_finished_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(image_processor, "resize_as_float")
    processor = image_processor.ImageProcessor(patch_size=16)
    rows = processor.pixel_values(
        images.pictures(noise(100, 90)), torch.device("meta"), torch.float16
    )
    assert rows.device.type == "meta" and rows.dtype == torch.float16


def test_a_picture_of_the_right_size_is_returned_as_it_is() -> None:
    picture = images.pictures(noise(64, 96))[0]
    assert image_processor.resize(picture, (64, 96)) is picture


@settings(max_examples=300, deadline=None)
@given(
    height=st.integers(1, 8000),
    width=st.integers(1, 8000),
    factor=st.sampled_from([28, 32]),
    low=st.integers(1, 64),
    more=st.integers(0, 16_000),
)
def test_target_size_is_the_official_smart_resize(
    height: int, width: int, factor: int, low: int, more: int
) -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    bounds = (low * factor**2, (low + more) * factor**2)
    try:
        expected = smart_resize(height, width, factor, *bounds)
    except ValueError:
        with pytest.raises(BadImage):
            image_processor.target_size(height, width, factor, *bounds)
    else:
        assert image_processor.target_size(height, width, factor, *bounds) == expected


def test_bounds_of_a_request() -> None:
    own = image_processor.ImageProcessor(patch_size=16, min_pixels=4096, max_pixels=65_536)
    assert own.bounded(None, None) is own
    assert own.bounded(None, 2048).min_pixels == 2048, "a lone maximum moves the minimum down"
    assert own.bounded(100_000, None).max_pixels == 100_000, "and a lone minimum the maximum up"
    with pytest.raises(BadOption, match="one token alone"):
        own.bounded(10, None)
    with pytest.raises(BadOption, match="above"):
        own.bounded(8192, 4096)


@settings(max_examples=100, deadline=None)
@given(height=st.integers(1, 3000), width=st.integers(1, 3000), tokens=st.integers(8, 500))
def test_max_pixels_bounds_the_image_tokens(height: int, width: int, tokens: int) -> None:
    if max(height, width) > 200 * min(height, width):
        return
    processor = image_processor.ImageProcessor(patch_size=16).bounded(None, tokens * 1024)
    picture = torch.empty(3, height, width, dtype=torch.uint8)
    # A side never falls below one token, so a very long picture may stay over the bound; and the
    # smallest pictures are rounded up from the lower bound, to 8 tokens at most.
    assert processor.tokens(picture) <= tokens or 32 in processor.input_size(picture)
