"""Tiny random checkpoints with the real vocabulary, and their GGUF files.

llama.cpp's converter and vLLM want the vocabulary of the real models, which
ComfyUI ships for its text encoders; the weights are as tiny and random as those of
``tests/engine/tiny.py``.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "engine"))

import tiny

VOCABULARY = 151_936
LAYERS = 4
"""Of the language model: llama.cpp wants more of them than Qwen3-VL has DeepStack levels."""


def make(model_type: str, folder: Path, tokenizer: Path) -> Path:
    """Writes a checkpoint of ``model_type`` with the vocabulary in the folder ``tokenizer``."""
    import torch
    import transformers

    family = tiny.FAMILIES[model_type]
    made = transformers.AutoTokenizer.from_pretrained(tokenizer)
    ids = made.get_added_vocab()
    config = json.loads(json.dumps(tiny.CONFIGS[model_type]))
    text = config.get("text_config", config)
    text |= {"vocab_size": VOCABULARY, "num_hidden_layers": LAYERS}
    text |= {"max_position_embeddings": 32_768, "rms_norm_eps": 1e-6}
    if model_type == "qwen3_vl":  # the least head that vLLM's attention on processors knows
        rope = {**text["rope_scaling"], "mrope_section": [8, 4, 4]}
        text |= {"head_dim": 32, "rope_scaling": rope}
    if model_type == "qwen2_5_vl":
        # The converter maps as many layers of the merger as of the tower.
        config["vision_config"] |= {"depth": 4, "fullatt_block_indexes": [1, 3]}
        config["vision_config"] |= {"window_size": 112}  # which llama.cpp takes for granted
    config |= {
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
    }
    torch.manual_seed(3)
    model = transformers.AutoModelForImageTextToText.from_config(
        transformers.AutoConfig.for_model(model_type, **config)
    )
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3 if "embed" not in name else 1.0)
    # The library's own defaults of sampling, which servers would take from it, are left out.
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]],
        pad_token_id=ids["<|endoftext|>"],
    )
    model.save_pretrained(folder)
    made.chat_template = template()
    made.save_pretrained(folder)
    side, (low, high) = family.patch_factor, family.pixel_bounds
    settings = {
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "processor_class": "Qwen3VLProcessor" if side == 32 else "Qwen2_5_VLProcessor",
        "patch_size": side // 2,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": low, "longest_edge": high},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    video = {
        **settings,
        "video_processor_type": f"{settings['processor_class'].removesuffix('Processor')}"
        "VideoProcessor",
    }
    if side != 32:
        video["video_processor_type"] = "Qwen2VLVideoProcessor"
    del video["image_processor_type"]
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video))
    return folder


def template(opening: str = "") -> str:
    """A chat template; ``opening``: what each answer is made to begin with."""
    return (
        tiny.TEMPLATE.replace("START", "<|vision_start|>")
        .replace(" IMAGE ", "<|image_pad|>")
        .replace(" VIDEO ", "<|video_pad|>")
        .replace("END", "<|vision_end|>")
        .replace("THINK", opening)
    )


def convert(checkpoint: Path, converter: Path, python: str = sys.executable) -> tuple[Path, Path]:
    """The GGUF file of ``checkpoint`` and that of its vision tower, made beside it by
    ``converter``, llama.cpp's ``convert_hf_to_gguf.py``."""
    files = [
        checkpoint.parent / f"{checkpoint.name}.gguf",
        checkpoint.parent / f"mmproj-{checkpoint.name}.gguf",
    ]
    for file, more in zip(files, ([], ["--mmproj"]), strict=True):
        subprocess.run(
            [
                *(python, converter, checkpoint),
                *("--outtype", "f32", "--outfile", file, *more),
            ],
            check=True,
            capture_output=True,
        )
    return files[0], files[1]
