"""Vision features that are given to a forward pass: it computes what it does from the images."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from qwen_vl_suite.qwenvl.inference.model_runner import ModelRunner
from qwen_vl_suite.qwenvl.inference.mrope import PositionRule, rope_positions
from qwen_vl_suite.qwenvl.inference.vision_encoder import MediaInput, VisionFeatures
from qwen_vl_suite.qwenvl.models.patches import vision_features
from qwen_vl_suite.qwenvl.types import Request, Sampling

WAYS = {"as an argument": False, "by the patched tower": True}


def picture(height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(height + width)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("patched", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("model_type", list(tiny.CONFIGS))
@torch.no_grad()
def test_features_give_the_logits_of_the_images(
    backend: Any, monkeypatch: pytest.MonkeyPatch, model_type: str, patched: bool
) -> None:
    subject = backend(model_type)
    model = subject.model
    if not patched and vision_features.applies(model):
        pytest.skip("this transformers takes no features as an argument")
    images = [picture(64, 96), picture(150, 80), picture(64, 64)]
    prompt = subject.prompt(Request.ask(images, "what is it?", sampling=Sampling(1)))
    grids, ids = [span.grid for span in prompt.spans], prompt.ids
    monkeypatch.setattr(vision_features, "applies", lambda _: patched)
    rule = PositionRule({"image": subject.chat_template.image_token_id}, 2)
    runner = ModelRunner(model, rule)
    weight = runner.vision_weight
    patches = [
        prompt.image_processor.pixel_values([image], weight.device, weight.dtype)
        for image in images
    ]

    positions, _ = rope_positions(ids, prompt.spans, rule)
    expected = model(
        input_ids=torch.tensor([ids]),
        position_ids=positions[:, None],
        pixel_values=torch.cat(patches),
        image_grid_thw=torch.tensor(grids),
    ).logits[0, -1]

    tower, encoded = vision_features.vision_tower(model), []
    own = vars(tower).get("forward")
    calls: list[int] = []
    hook = tower.patch_embed.register_forward_pre_hook(lambda *_: calls.append(1))
    inputs = [
        MediaInput("image", grid, [(values, grid)], None, encoded.append)
        for grid, values in zip(grids, patches, strict=True)
    ]
    first, _ = runner.prefill(ids, prompt.spans, inputs)
    again, _ = runner.prefill(ids, prompt.spans, inputs)
    hook.remove()

    torch.testing.assert_close(first.logits, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(again.logits, first.logits)
    assert len(calls) == 3, "each image once, and none for the second pass"
    assert encoded == [image.features for image in inputs]
    assert all(isinstance(features, VisionFeatures) for features in encoded)
    assert vars(tower).get("forward") is own
    assert not any(image.patches for image in inputs)
