"""IMAGE tensors to pictures and back: every kind of IMAGE, and what is refused."""

from __future__ import annotations

import pytest
import torch
from qwen_vl_suite.qwenvl.errors import BadImage
from qwen_vl_suite.qwenvl.media import images


def noise(height: int, width: int, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height * 7 + width)
    return torch.rand(1, height, width, channels, generator=generator)


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
def test_every_kind_of_image_becomes_8_bit_rgb(case: str) -> None:
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
def test_a_single_bad_value_anywhere_is_refused(bad: float) -> None:
    image = noise(700, 900)
    image[0, 600, 800, 1] = bad
    with pytest.raises(BadImage, match="Picture 1"):
        images.pictures(image)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_a_bad_picture_of_a_batch_is_its_own_error(bad: float) -> None:
    batch = noise(30, 40).repeat(3, 1, 1, 1)
    batch[1, 20, 30, 1] = bad
    first, second, third = images.pictures_or_errors(batch)
    assert isinstance(second, BadImage) and "NaN or infinite" in str(second)
    (expected,) = images.pictures(batch[:1])
    assert torch.equal(first, expected) and torch.equal(third, expected)
    with pytest.raises(BadImage, match="Picture 6"):
        images.pictures(batch, first=4)


def test_pictures_that_are_too_long_are_errors_of_their_own() -> None:
    found = images.pictures_or_errors(torch.zeros(2, 1, 201, 3))
    assert [type(one) for one in found] == [BadImage, BadImage]
    assert "200 times" in str(found[0])


def test_what_is_wrong_with_the_whole_image_is_raised() -> None:
    for image in (
        torch.full((2, 4, 5, 3), 200.0),
        torch.zeros(2, 4, 5, 2),
        torch.zeros(0, 4, 5, 3),
    ):
        with pytest.raises(BadImage):
            images.pictures_or_errors(image)


def test_bad_pictures_can_be_drawn_black_where_they_are_bad() -> None:
    batch = noise(30, 40).repeat(2, 1, 1, 1)
    batch[1, 20, 30, 1] = torch.nan
    batch[1, 0, 0] = torch.inf
    whole, mended = images.drawable_pictures(batch)
    assert torch.equal(whole, images.pictures(batch[:1])[0])
    changed = (whole != mended).any(0).nonzero().tolist()
    assert changed == [[0, 0], [20, 30]] and not mended[:, 0, 0].any() and not mended[1, 20, 30]
    assert images.drawable_pictures(torch.zeros(1, 201, 3))[0].shape == (3, 1, 201)


def test_an_image_without_a_batch_axis_is_a_batch_of_one() -> None:
    assert len(images.pictures(torch.zeros(4, 5, 3))) == 1


def test_pictures_of_a_batch_stay_in_order() -> None:
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
def test_invalid_images_are_refused_with_the_reason(case: str) -> None:
    image, said = REFUSED[case]
    with pytest.raises(BadImage, match=said):
        images.pictures(image)
