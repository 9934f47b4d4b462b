"""Patch of the patch embedding: one frame gives what the official layer makes of two."""

from __future__ import annotations

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl.backends.local import load
from qwen_vl_suite.qwenvl.checkpoints.files import read_settings
from qwen_vl_suite.qwenvl.errors import UnsupportedModel
from qwen_vl_suite.qwenvl.families import family_of
from qwen_vl_suite.qwenvl.models import loading
from qwen_vl_suite.qwenvl.models.model_tensors import model_bytes
from qwen_vl_suite.qwenvl.models.patches import patch_embedding
from qwen_vl_suite.qwenvl.models.patches.patch_embedding import PatchEmbedding
from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Sampling

FAMILY_NAMES = list(tiny.CONFIGS)


def tower(model: torch.nn.Module) -> torch.nn.Module:
    return next(part for part in model.modules() if hasattr(part, "patch_embed"))


def plain(folder, precision="fp32") -> torch.nn.Module:
    """The model as transformers loads it."""
    family = family_of(read_settings(folder, "config.json"))
    spec = LocalSpec(str(folder), precision=precision, device="cpu")
    return loading.load_model(folder, spec, family, patched=False)


def frames(model: torch.nn.Module, count: int, still: bool) -> torch.Tensor:
    """Rows ``[count, 3, frames, patch * patch]``."""
    vision = model.config.vision_config
    generator = torch.Generator().manual_seed(0)
    shape = (count, 3, 1 if still else vision.temporal_patch_size, vision.patch_size**2)
    rows = torch.randn(shape, generator=generator)
    return rows.expand(-1, -1, vision.temporal_patch_size, -1) if still else rows


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
@torch.no_grad()
def test_it_is_the_makers_layer(checkpoint, model_type: str) -> None:
    model = plain(checkpoint(model_type))
    eyes = tower(model)
    original = eyes.patch_embed
    patch_embedding.apply(model)
    assert isinstance(eyes.patch_embed, PatchEmbedding)
    still, moving = frames(model, 9, still=True), frames(model, 9, still=False)
    expected = original(still.flatten(1))
    close = {"atol": 1e-4, "rtol": 1e-5}
    torch.testing.assert_close(eyes.patch_embed(still[:, :, 0].flatten(1)), expected, **close)
    torch.testing.assert_close(eyes.patch_embed(still.flatten(1)), expected, **close)
    moved = original(moving.flatten(1))
    torch.testing.assert_close(eyes.patch_embed(moving.flatten(1)), moved, **close)
    assert (moved - expected).abs().max() > 0.1, "too alike to show anything"


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@torch.no_grad()
def test_half_types_lose_no_more_than_the_makers_layer(checkpoint, precision) -> None:
    folder = checkpoint("qwen3_vl")
    model = plain(folder, precision)
    original = tower(model).patch_embed
    patch_embedding.apply(model)
    ours = patch_embedding.of(model)
    assert ours.still.dtype == original.proj.weight.dtype
    still = frames(model, 500, still=True)
    exact = torch.nn.functional.linear(
        still.flatten(1).double(),
        original.proj.weight.double().flatten(1),
        original.proj.bias.double(),
    )
    theirs = (original(still.flatten(1)).double() - exact).pow(2).mean().sqrt()
    error = (ours(still[:, :, 0].flatten(1)).double() - exact).pow(2).mean().sqrt()
    assert error < 1.5 * theirs


def test_both_sums_are_real_parameters_in_little_memory(checkpoint) -> None:
    folder = checkpoint("qwen3_vl")
    before = plain(folder)
    weight = tower(before).patch_embed.proj.weight
    more = model_bytes(before) + weight.nbytes // 2
    model = load(LocalSpec(str(folder), device="cpu")).model
    assert model_bytes(model) == more, "the frames' own weights are not held twice"
    names = dict(model.named_parameters())
    assert {name.rpartition(".")[2] for name in names if "patch_embed" in name} == {
        "still",
        "moving",
        "bias",
    }


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_quantisation_leaves_it_whole(checkpoint, quantization: str) -> None:
    spec = LocalSpec(str(checkpoint("qwen3_vl")), quantization=quantization, device="cpu")
    ours = patch_embedding.of(load(spec).model)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}


def test_a_layer_that_transformers_flattened_is_known(checkpoint) -> None:
    model = plain(checkpoint("qwen3_vl"))
    old = tower(model).patch_embed
    rows = frames(model, 5, still=True)
    expected = old(rows.flatten(1))
    width, columns = old.proj.weight.shape[0], old.proj.weight[0].numel()
    flat = torch.nn.Linear(columns, width)
    flat.weight.data, flat.bias.data = old.proj.weight.data.flatten(1), old.proj.bias.data
    del old.proj
    old.linear_proj = flat
    patch_embedding.apply(model)
    found = patch_embedding.of(model)(rows[:, :, 0].flatten(1))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)


class Unknown(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = torch.nn.Conv2d(3, 8, 16)


@pytest.mark.parametrize("put", [Unknown, torch.nn.Identity])
def test_an_unknown_way_to_look_is_refused(checkpoint, put) -> None:
    model = plain(checkpoint("qwen3_vl"))
    tower(model).patch_embed = put()
    with pytest.raises(UnsupportedModel, match="vision tower"):
        patch_embedding.apply(model)


@pytest.mark.parametrize("model_type", FAMILY_NAMES)
def test_answers_come_from_single_frames_in_the_models_type(backend, model_type: str) -> None:
    subject = backend(model_type)
    given: list[torch.Tensor] = []
    embedding = patch_embedding.of(subject.model)
    hook = embedding.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    shown = torch.randint(0, 256, (3, 120, 90), dtype=torch.uint8)
    try:
        subject.generate([Request.ask((shown,), "what?", sampling=Sampling(2))])
    finally:
        hook.remove()
    (rows,) = given
    assert rows.shape[1] == 3 * subject.image_processor.patch_size**2
    assert rows.dtype == embedding.still.dtype
