"""Checkpoint configuration: model sizes, processor settings, initial weights, saving."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from . import batches, tokenizer

WIDTH = 192
LAYERS = 4
SUPERVISED_LAYERS = (
    1,
    2,
)  # text layers whose attention is supervised: first on what the answer is about, then on its role
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


def waves(values: torch.Tensor) -> torch.Tensor:
    """Coordinates 0..1 [...] to [..., 2 * len(WAVES)].

    Linear maps can copy this spelling, and the dot product of two peaks where they are equal.
    """
    angles = values[..., None] * torch.tensor(WAVES) * 2 * math.pi
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
            patch_size=batches.PATCH,
            spatial_merge_size=batches.MERGE,
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
        tokens = tokenizer.build()
        numbers = torch.arange(tokenizer.LIMIT + 1)
        spelled = waves(numbers / tokenizer.LIMIT)
        spread = torch.nn.init.orthogonal_(torch.empty(spelled.shape[1], WIDTH)) * 0.35
        for form in ("[{}", ", {}"):
            base = torch.randn(WIDTH) * 0.5 * WIDTH**-0.5
            ids = [tokens.encode(form.format(int(n))).ids[0] for n in numbers]
            table[ids] = base + spelled @ spread
    model.tie_weights()
    return model


def save(model, folder: Path) -> None:
    """Write a complete float16 checkpoint for the Auto classes of transformers 4.57 and 5."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    weights = {
        k: v.detach().to(torch.float16).contiguous()
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
        "patch_size": batches.PATCH,
        "temporal_patch_size": 2,
        "merge_size": batches.MERGE,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "size": {"shortest_edge": batches.MIN_PIXELS, "longest_edge": batches.MAX_PIXELS},
    }
    _write(folder / "preprocessor_config.json", image)
    _write(
        folder / "video_preprocessor_config.json",
        {
            **{k: v for k, v in image.items() if k != "image_processor_type"},
            "video_processor_type": "Qwen3VLVideoProcessor",
            "fps": 2,
            "min_frames": 2,
            "max_frames": 16,
            "size": {"shortest_edge": batches.MIN_PIXELS, "longest_edge": 8 * batches.MAX_PIXELS},
        },
    )
    tokenizer.save(folder)


def _write(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
