"""The bundled model: a lossless tokenizer, a checkpoint that answers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from qwen_vl_suite.nano import batches, config, evaluate, forward, questions, scenes, tokenizer

CHECKPOINT = Path(evaluate.__file__).parent / "checkpoint"


@pytest.mark.parametrize(
    "text",
    [
        "Hello wörld, 12 [7412, 1001] zebra\n\n日本 🙂  x",
        '```json\n[\n\t{"bbox_2d": [0, 17, 1000, 5], "label": "red star"}\n]\n```',
        "THE QUICK brown\tfox; don't\r\n  stop",
        "<ref>a</ref> 3.14 [1, 22, 333]",
        "",
    ],
)
def test_the_tokenizer_is_lossless(text):
    tokens = tokenizer.build()
    assert tokens.decode(tokens.encode(text).ids) == text


def test_the_shipped_tokenizer_matches_the_code():
    import tokenizers

    shipped = tokenizers.Tokenizer.from_file(str(CHECKPOINT / "tokenizer.json"))
    assert shipped.get_vocab() == tokenizer.build().get_vocab()
    assert (CHECKPOINT / "chat_template.jinja").read_text("utf-8") == tokenizer.CHAT_TEMPLATE


def test_coordinates_are_one_token_and_pieces_tokenize_as_the_whole():
    tokens = tokenizer.build()
    assert len(tokens.encode("[74, 361, 324, 808").ids) == 4
    for seed in range(40):
        scene = scenes.draw(f"pieces {seed}")
        for turn in questions.turns(scene, random.Random(seed), 3):
            apart = [i for p in turn.pieces for i in tokens.encode(p.text).ids]
            assert tokens.encode(turn.answer).ids == apart


def test_the_resize_equals_the_processors():
    from transformers import AutoImageProcessor

    official = AutoImageProcessor.from_pretrained(CHECKPOINT)
    for seed in range(6):
        picture = scenes.draw(f"resize {seed}").picture
        theirs = official(images=[picture], return_tensors="pt")
        ours = forward.patches(batches.resize(picture)[None])[0]
        both = ours.view(-1, 3, 1, 256).expand(-1, 3, 2, 256).reshape(-1, 1536)
        assert theirs["image_grid_thw"][0, 1:].prod() == len(ours)
        assert torch.allclose(theirs["pixel_values"], both, atol=1e-5)


def test_the_training_forward_pass_equals_transformers():
    model = config.begin(seed=1)
    batch = batches.make(batches.Packer(), "test", 2, 3)
    inner, start = model.model, batch.start
    rows, columns = (side // batches.CELL for side in batch.pixels.shape[2:])
    with torch.no_grad():
        first, deep = forward.vision_tower(inner.visual, batch.pixels)
        embeds = inner.language_model.embed_tokens(batch.ids)
        n = first.shape[1]
        embeds = torch.cat((embeds[:, :start], first, embeds[:, start + n :]), 1)
        position_ids = forward.mrope_positions(batch.turn, start, rows, columns)
        mask = forward.attention_mask(batch.turn)
        hidden, _, _ = forward.language_model(
            inner.language_model, embeds, position_ids, mask, deep, start
        )
        packed = model.lm_head(hidden)
        for number in (1, 2, 3):
            keep = (batch.turn[0] == 0) | (batch.turn[0] == number)
            ids = batch.ids[0][keep][None]
            pixels = forward.patches(batch.pixels[:1])[0].view(-1, 3, 1, 256)
            kinds = (ids == model.config.image_token_id).int()
            alone = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=pixels.expand(-1, 3, 2, 256).reshape(-1, 1536),
                image_grid_thw=torch.tensor([[1, 2 * rows, 2 * columns]]),
                **({"mm_token_type_ids": kinds} if evaluate._takes_token_types() else {}),
            ).logits
            assert torch.allclose(alone[0], packed[0][keep], atol=1e-4)


def test_the_checkpoint_is_small_and_complete():
    assert (CHECKPOINT / "model.safetensors").stat().st_size <= 12_000_000
    assert {p.name for p in CHECKPOINT.iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
        "preprocessor_config.json",
        "video_preprocessor_config.json",
        "generation_config.json",
    }


def test_the_processor_loads_and_applies_the_chat_template():
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(CHECKPOINT)
    content = [
        {"type": "image", "image": scenes.draw("processor").picture},
        {"type": "text", "text": questions.READ},
    ]
    out = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    text = processor.tokenizer.decode(out["input_ids"][0]).replace("<|image_pad|>", "")
    assert text == (
        "<|im_start|>user\n<|vision_start|><|vision_end|>" + questions.READ + "<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_the_checkpoint_answers():
    """Sixteen fresh scenes; the floors are below the figures for 500 (figures.json)."""
    figures = evaluate.evaluate(evaluate.Answerer(CHECKPOINT), 16, "test floors")
    floors = {
        "ground_iou": 0.8,
        "ground_recall": 0.9,
        "ocr_exact": 0.85,
        "describe_shapes_and_colours": 0.9,
        "absent_none_found": 0.9,
        "point_inside": 0.85,
        "spot_iou": 0.8,
    }
    low = {name: figures[name] for name, floor in floors.items() if figures[name] < floor}
    assert not low, f"below their floors: {low}"
