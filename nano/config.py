"""Checkpoint configuration: model sizes, processor settings, initial weights, saving."""

from __future__ import annotations

import json
import math
from functools import lru_cache
from pathlib import Path

import torch

from . import clip_questions, samples, tokenizer

WIDTH = 192
LAYERS = 4
# Text layers whose attention is supervised: on what the answer is about, on its role, on times.
SUPERVISED_LAYERS = (1, 2, 3)
WAVES = (
    0.25,
    0.5,
    1,
    2,
    4,
    8,
    16,
    32,
)  # periods per picture by which a coordinate is spelled as cosines and sines


@lru_cache(maxsize=4)
def _periods(device: torch.device) -> torch.Tensor:
    return torch.tensor(WAVES, device=device)


def waves(values: torch.Tensor) -> torch.Tensor:
    """Coordinates 0..1 [...] to [..., 2 * len(WAVES)].

    Linear maps can copy this spelling, and the dot product of two peaks where they are equal.
    """
    angles = values[..., None] * _periods(values.device) * 2 * math.pi
    return torch.cat((angles.cos(), angles.sin()), -1)


def model_config():
    """The `Qwen3VLConfig`: every part of the real architecture, tiny."""
    from transformers import Qwen3VLConfig

    token = tokenizer.build().token_to_id
    size = tokenizer.build().get_vocab_size()
    theta = 5000000.0
    rope = {
        "rope_type": "default",
        "mrope_section": [6, 5, 5],
        "mrope_interleaved": True,
    }
    config = Qwen3VLConfig(
        text_config=dict(
            vocab_size=size,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=LAYERS,
            num_attention_heads=8,
            num_key_value_heads=8,
            head_dim=32,
            max_position_embeddings=32768,
            # transformers 4.57 reads the first two, 5.x the third.
            rope_theta=theta,
            rope_scaling=rope,
            rope_parameters={**rope, "rope_theta": theta},
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=token("<|im_end|>"),
            pad_token_id=None,
        ),
        vision_config=dict(
            depth=4,
            hidden_size=WIDTH,
            intermediate_size=512,
            num_heads=4,
            patch_size=samples.PATCH,
            spatial_merge_size=samples.MERGE,
            temporal_patch_size=2,
            out_hidden_size=WIDTH,
            num_position_embeddings=256,
            deepstack_visual_indexes=[3],
        ),
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return config


def begin(seed: int):
    """An untrained model: weights scaled by their width, coordinate embeddings set to waves."""
    from transformers import Qwen3VLForConditionalGeneration

    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(model_config()).float()
    for name, weight in model.named_parameters():
        if weight.dim() >= 2:
            fan = weight[0].numel()
            # Branches that write into the residual stream start small.
            small = (
                0.3
                if any(s in name for s in ("attn.proj", "o_proj", "down_proj", "mlp.linear_fc2"))
                else 1.0
            )
            torch.nn.init.normal_(weight, std=small * fan**-0.5)
    with torch.no_grad():
        model.model.visual.pos_embed.weight.normal_(std=0.3)
        table = model.model.language_model.embed_tokens.weight
        table.normal_(std=0.5 * WIDTH**-0.5)
        numbers = torch.arange(tokenizer.LIMIT + 1)
        _spell(
            table,
            numbers / tokenizer.LIMIT,
            [["[" + str(int(n)) for n in numbers], [", " + str(int(n)) for n in numbers]],
        )
        times = tokenizer.times()
        share = torch.tensor([float(time) for time in times]) / clip_questions.LONGEST
        _spell(table, share, [times, [f"<{time} seconds>" for time in times]])
    model.tie_weights()
    return model


def _spell(table: torch.Tensor, values: torch.Tensor, forms: list[list[str]]) -> None:
    """Sets the embeddings of numbers 0..1, in each form, to the waves of their values."""
    tokens = tokenizer.build()
    spelled = waves(values)
    spread = torch.nn.init.orthogonal_(torch.empty(spelled.shape[1], WIDTH)) * 0.35
    for form in forms:
        base = torch.randn(WIDTH) * 0.5 * WIDTH**-0.5
        table[[tokens.token_to_id(_as_token(text)) for text in form]] = base + spelled @ spread


def _as_token(text: str) -> str:
    return text.replace(" ", "Ġ")


def begin_from(folder: Path, seed: int):
    """The model of an earlier checkpoint: tokens that it has keep their embeddings, others get
    first ones."""
    import tokenizers
    from safetensors.torch import load_file

    model = begin(seed)
    weights = {
        name: value.float() for name, value in load_file(folder / "model.safetensors").items()
    }
    name = "model.language_model.embed_tokens.weight"
    known = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    table = model.model.language_model.embed_tokens.weight.detach().clone()
    for piece, index in tokenizer.build().get_vocab().items():
        if piece in known:
            table[index] = weights[name][known[piece]]
    weights[name] = table
    model.load_state_dict(weights, strict=False)
    model.tie_weights()
    return model


def save(model, folder: Path) -> None:
    """Write a complete float16 checkpoint for the Auto classes of transformers 4.57 and 5."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        k: v.detach().to(torch.float16).cpu().contiguous()
        for k, v in model.state_dict().items()
        if k != "lm_head.weight"
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    config = model.config.to_dict()
    config["architectures"] = ["Qwen3VLForConditionalGeneration"]
    for part in (config, config["text_config"], config["vision_config"]):
        for key in ("_name_or_path", "transformers_version", "_attn_implementation_autoset"):
            part.pop(key, None)
        part.pop("torch_dtype", None)
        part["dtype"] = "float16"
    # Only one of these is in the configuration, by the version of transformers: write all three.
    text = config["text_config"]
    known = text.get("rope_parameters") or {
        **text["rope_scaling"],
        "rope_theta": text["rope_theta"],
    }
    text["rope_parameters"], text["rope_theta"] = known, known["rope_theta"]
    text["rope_scaling"] = {k: v for k, v in known.items() if k != "rope_theta"}
    _write(folder / "config.json", config)
    token = tokenizer.build().token_to_id
    _write(
        folder / "generation_config.json",
        {
            "do_sample": False,
            "eos_token_id": [token("<|im_end|>"), token("<|endoftext|>")],
            "pad_token_id": token("<|endoftext|>"),
            "max_new_tokens": 256,
        },
    )
    image = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor",
        "patch_size": samples.PATCH,
        "temporal_patch_size": 2,
        "merge_size": samples.MERGE,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": samples.MIN_PIXELS, "longest_edge": samples.MAX_PIXELS},
    }
    _write(folder / "preprocessor_config.json", image)
    _write(
        folder / "video_preprocessor_config.json",
        {
            **{k: v for k, v in image.items() if k != "image_processor_type"},
            "video_processor_type": "Qwen3VLVideoProcessor",
            "fps": 2,
            "min_frames": 4,
            "max_frames": samples.MAX_FRAMES,
            "size": {
                "shortest_edge": samples.MIN_CLIP_PIXELS,
                "longest_edge": samples.MAX_CLIP_PIXELS,
            },
        },
    )
    tokenizer.save(folder)


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
