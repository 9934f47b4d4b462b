"""Pictures: what comes in is told apart, what goes to the model is what the makers' code gives."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.errors import BadImage, BadOption
from qwen_vl_suite.qwenvl.media import images
from torch._subclasses.fake_tensor import FakeTensorMode

SIZES = [(1, 1), (1, 150), (28, 28), (37, 201), (200, 64), (480, 640), (20, 3000), (1080, 1920)]


def noise(height: int, width: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 7 + width)
    return torch.rand(1, height, width, channels, generator=generator)


def official(**config):
    """The makers' own processor. Both need torchvision, and fail clearly without it."""
    from transformers import AutoImageProcessor  # noqa: F401

    try:
        from transformers.models.qwen2_vl.image_processing_qwen2_vl_fast import (
            Qwen2VLImageProcessorFast as Official,
        )
    except ImportError:
        from transformers import Qwen2VLImageProcessor as Official
    return Official(**config)


def twice(rows: torch.Tensor) -> torch.Tensor:
    """Rows as the makers have them: each channel's frame a second time behind the first."""
    return rows.view(len(rows), 3, 1, -1).expand(-1, -1, 2, -1).flatten(1)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("patch", [14, 16])
def test_pixel_values_are_the_official_processors(size: tuple[int, int], patch: int) -> None:
    bounds = {"shortest_edge": 16 * 1024, "longest_edge": 600_000}
    config = {"patch_size": patch, "size": bounds}
    ours = images.ImageProcessor.from_config(config)
    picture = images.pictures(noise(*size))[0]
    grid = ours.grid(picture)
    theirs = official(**config)(
        images=[picture], return_tensors="pt", input_data_format="channels_first"
    )
    assert [list(grid)] == theirs["image_grid_thw"].tolist()
    rows = twice(ours.pixel_values([picture]))
    torch.testing.assert_close(rows, theirs["pixel_values"], atol=1e-6, rtol=0)
    assert ours.tokens(picture) == grid[1] * grid[2] // 4


def test_pictures_follow_one_another_in_one_tensor() -> None:
    rule = images.ImageProcessor(patch_size=16)
    batch = [images.pictures(noise(*size))[0] for size in ((64, 96), (300, 200), (96, 64))]
    alone = [rule.pixel_values([picture]) for picture in batch]
    assert [len(rows) for rows in alone] == [math.prod(rule.grid(picture)) for picture in batch]
    assert torch.equal(rule.pixel_values(batch), torch.cat(alone))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_pixel_values_are_rounded_once(dtype: torch.dtype) -> None:
    rule = images.ImageProcessor(patch_size=14, max_pixels=10**6)
    batch = images.pictures(noise(700, 700))
    found = rule.pixel_values(batch, dtype=dtype)
    assert found.dtype == dtype and torch.equal(found, rule.pixel_values(batch).to(dtype))


def test_the_layout_in_memory_decides_nothing() -> None:
    rule = images.ImageProcessor(patch_size=16)
    for size in ((64, 96), (100, 90)):
        picture = images.pictures(noise(*size))[0]
        assert picture.movedim(0, -1).is_contiguous(), "channels lie side by side"
        assert torch.equal(rule.pixel_values([picture.contiguous()]), rule.pixel_values([picture]))


def test_a_stop_is_asked_for_before_every_picture() -> None:
    left = [None, None]
    batch = images.pictures(noise(64, 64)) * 3
    with pytest.raises(IndexError):
        images.ImageProcessor().pixel_values(batch, check=left.pop)


@pytest.mark.parametrize("size", [(28, 28), (300, 100), (448, 700)], ids=str)
def test_resizing_through_floats_is_nearly_equal(size: tuple[int, int]) -> None:
    """What a graphics card does, and the processor does in whole numbers, rounding its weights:
    a level apart in one value of a hundred, two in one of a hundred thousand."""
    picture = images.pictures(noise(333, 222))[0]
    native, floats = images.resize(picture, size), images.resize_as_float(picture, size)
    assert floats.dtype == torch.uint8 and floats.shape == native.shape == (3, *size)
    apart = (native.int() - floats.int()).abs()
    assert apart.max() <= 2
    assert (apart > 0).float().mean() < 0.01 and (apart > 1).float().mean() < 1e-5


@pytest.mark.parametrize("size", [(64, 96), (2000, 1500)], ids=str)
@pytest.mark.parametrize("origin", ["cpu", "cuda"])
def test_on_cuda_all_is_done_there_and_nobody_waits(
    size: tuple[int, int], origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On tensors that have shapes and no contents: what mixes devices, or asks for a number,
    raises."""
    sent: list[bool] = []
    to = torch.Tensor.to

    def told(tensor: torch.Tensor, *given, **named) -> torch.Tensor:
        made = to(tensor, *given, **named)
        if tensor.device.type == "cpu" and made.device.type == "cuda":
            sent.append(tensor.pinned and named["non_blocking"])
        return made

    def pinned(tensor: torch.Tensor) -> torch.Tensor:
        made = tensor.clone()
        made.pinned = True
        return made

    monkeypatch.setattr(torch.Tensor, "to", told)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pinned)
    rule = images.ImageProcessor(patch_size=16, max_pixels=10**6)
    with FakeTensorMode():
        shown = torch.empty(*size, 3, dtype=torch.uint8, device=origin).movedim(-1, 0)
        rows = rule.pixel_values([shown, shown], torch.device("cuda"), torch.bfloat16)
        assert rows.device.type == "cuda" and rows.dtype == torch.bfloat16
        assert rows.shape == (2 * math.prod(rule.grid(shown)), 3 * 16 * 16)
    assert all(sent) and len(sent) == 4 + 2 * (origin == "cpu"), "mean, deviation, picture, twice"


def test_other_devices_are_given_what_the_processor_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(images, "resize_as_float")
    rule = images.ImageProcessor(patch_size=16)
    rows = rule.pixel_values(images.pictures(noise(100, 90)), torch.device("meta"), torch.float16)
    assert rows.device.type == "meta" and rows.dtype == torch.float16


def test_what_has_its_size_is_not_resized() -> None:
    picture = images.pictures(noise(64, 96))[0]
    assert images.resize(picture, (64, 96)) is picture


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
            images.target_size(height, width, factor, *bounds)
    else:
        assert images.target_size(height, width, factor, *bounds) == expected


ACCEPTED = {
    "float": (torch.full((2, 4, 5, 3), 0.5), 128),
    "half": (torch.full((2, 4, 5, 3), 0.5, dtype=torch.float16), 128),
    "rounded, not cut": (torch.full((2, 4, 5, 3), 0.999), 255),
    "grey": (torch.full((2, 4, 5, 1), 0.25), 64),
    "uint8": (torch.full((2, 4, 5, 3), 7, dtype=torch.uint8), 7),
    "clear alpha is white": (torch.zeros(2, 4, 5, 4), 255),
    "full alpha is colour": (torch.ones(2, 4, 5, 4), 255),
    "half alpha": (torch.tensor([0.0, 0.0, 0.0, 0.5]).expand(2, 4, 5, 4), 128),
    "overshoot": (torch.full((2, 4, 5, 3), 1.2), 255),
    "undershoot": (torch.full((2, 4, 5, 3), -0.1), 0),
}


@pytest.mark.parametrize("case", ACCEPTED, ids=str)
def test_every_kind_of_image_becomes_rgb8(case: str) -> None:
    image, level = ACCEPTED[case]
    made = images.pictures(image)
    assert len(made) == 2
    for picture in made:
        assert picture.dtype == torch.uint8 and picture.shape == (3, 4, 5)
        assert picture.unique().tolist() == [level]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_floats_are_rounded_to_the_nearest_level(dtype: torch.dtype) -> None:
    """In every strip of a large picture, and where decoders overshoot."""
    image = (noise(700, 900) * 1.4 - 0.2).to(dtype)
    expected = image[0].float().clamp(0, 1).mul(255).round().to(torch.uint8)
    assert torch.equal(images.pictures(image)[0], expected.movedim(-1, 0))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 9.0, -9.0], ids=str)
def test_one_bad_value_anywhere_is_enough(bad: float) -> None:
    image = noise(700, 900)
    image[0, 600, 800, 1] = bad
    with pytest.raises(BadImage, match="Picture 1"):
        images.pictures(image)


def test_one_picture_without_a_batch_is_a_batch_of_one() -> None:
    assert len(images.pictures(torch.zeros(4, 5, 3))) == 1


def test_every_picture_of_a_batch_comes_in_order() -> None:
    batch = torch.arange(4).view(4, 1, 1, 1).expand(4, 3, 3, 3) / 255
    assert [int(p[0, 0, 0]) for p in images.pictures(batch)] == [0, 1, 2, 3]
    torch.testing.assert_close(images.to_image(images.pictures(batch)), batch.contiguous())


REFUSED = {
    "empty batch": (torch.zeros(0, 4, 5, 3), "empty"),
    "no height": (torch.zeros(1, 0, 5, 3), "empty"),
    "two channels": (torch.zeros(1, 4, 5, 2), "shape"),
    "channels first": (torch.zeros(1, 3, 40, 50), "shape"),
    "nan": (torch.full((1, 4, 5, 3), torch.nan), "NaN"),
    "infinity": (torch.full((1, 4, 5, 3), torch.inf), "infinite"),
    "0 to 255": (torch.full((1, 4, 5, 3), 200.0), "Divide by 255"),
    "minus one to one": (torch.full((1, 4, 5, 3), -1.0), "-1..1"),
    "integers": (torch.zeros(1, 4, 5, 3, dtype=torch.int32), "int32"),
    "too long": (torch.zeros(1, 1, 201, 3), "200 times"),
    "no tensor": ([[0]], "list"),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_what_is_no_picture_is_refused_by_name(case: str) -> None:
    image, said = REFUSED[case]
    with pytest.raises(BadImage, match=said):
        images.pictures(image)


def test_bounds_of_a_request() -> None:
    own = images.ImageProcessor(patch_size=16, min_pixels=4096, max_pixels=65_536)
    assert own.bounded(None, None) is own
    assert own.bounded(None, 2048).min_pixels == 2048, "a lone maximum moves the minimum down"
    assert own.bounded(100_000, None).max_pixels == 100_000, "and a lone minimum the maximum up"
    with pytest.raises(BadOption, match="one token alone"):
        own.bounded(10, None)
    with pytest.raises(BadOption, match="above"):
        own.bounded(8192, 4096)


@settings(max_examples=100, deadline=None)
@given(height=st.integers(1, 3000), width=st.integers(1, 3000), tokens=st.integers(8, 500))
def test_max_pixels_bounds_what_the_model_sees(height: int, width: int, tokens: int) -> None:
    if max(height, width) > 200 * min(height, width):
        return
    rule = images.ImageProcessor(patch_size=16).bounded(None, tokens * 1024)
    picture = torch.empty(3, height, width, dtype=torch.uint8)
    # A side never falls below one token, so a very long picture may stay over the bound; and the
    # smallest pictures are rounded up from the lower bound, to 8 tokens at most.
    assert rule.tokens(picture) <= tokens or 32 in rule.input_size(picture)
