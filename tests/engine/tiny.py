"""Tiny random-weight checkpoints, one of each family, in the files a real one has.

They answer nonsense, but by the real architectures: what holds for them between two roads
(alone or in a batch, ours or the official processor's) holds for their big sisters.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from qwen_vl_suite.qwenvl.families import FAMILIES
from qwen_vl_suite.qwenvl.types import Family

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|vision_bos|>",
    "<|vision_eos|>",
    "<|IMAGE|>",
    "<|VIDEO|>",
    "<|AUDIO|>",
    "<|audio_bos|>",
    "<|audio_eos|>",
)
THINK = ("<think>", "</think>")
AUDIO = ("<|audio_pad|>", "<|audio_start|>", "<|audio_end|>")
VOCABULARY = 320

TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.content is string %}{{ message.content }}{% else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}START IMAGE END
{%- elif part.type == 'video' -%}START VIDEO END
{%- elif part.type == 'audio' -%}SOUND
{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}<|im_start|>assistant
THINK{% endif -%}"""
SWITCH = (
    "{% if enable_thinking is defined and enable_thinking %}<think>\n"
    "{% else %}<think>\n\n</think>\n\n{% endif %}"
)


# As that of Qwen3: thinking is turned off by an empty thought, and on by nothing.
OPEN = (
    "{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}"
)


def tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=290,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(["a red circle and a blue square in the picture"], trainer)
    core.add_tokens([AddedToken(token, normalized=False) for token in (*THINK, *AUDIO)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )


def _text(**more: Any) -> dict[str, Any]:
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": False,
        "initializer_range": 0.3,
        **more,
    }


_ROPE_2 = {"type": "mrope", "mrope_section": [2, 3, 3]}
_ROPE_3 = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
_ROPE_3_5 = {**_ROPE_3, "rope_theta": 10_000.0}
_AUDIO = {
    "d_model": 32,
    "encoder_layers": 1,
    "encoder_attention_heads": 4,
    "encoder_ffn_dim": 32,
    "output_dim": 64,
    "num_mel_bins": 16,
    "max_source_positions": 32,
    "n_window": 8,
}
_AUDIO_3 = {
    **_AUDIO,
    "downsample_hidden_size": 8,
    "n_window": 50,  # of a thirteenth, which its processor takes for granted
    "n_window_infer": 200,
    "conv_chunksize": 4,
}
_VISION_3 = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "patch_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 64,
    "initializer_range": 0.3,
}
_MOE = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "decoder_sparse_step": 1,
}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "full_attention_interval": 2,
    "layer_types": ["linear_attention", "full_attention"],
    "head_dim": 32,
    "partial_rotary_factor": 0.5,
}
_VISION_2_5 = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 4,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "patch_size": 14,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "window_size": 56,
    "fullatt_block_indexes": [1],
    "initializer_range": 0.3,
}
CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_vl": {
        **_text(rope_scaling=_ROPE_2),
        "vision_config": {
            "depth": 2,
            "embed_dim": 32,
            "hidden_size": 64,
            "num_heads": 4,
            "mlp_ratio": 2,
            "initializer_range": 0.3,
        },
    },
    "qwen2_5_vl": {**_text(rope_scaling=_ROPE_2), "vision_config": _VISION_2_5},
    "qwen2_5_omni": {
        "thinker_config": {
            "model_type": "qwen2_5_omni_thinker",
            "text_config": _text(rope_scaling={**_ROPE_2, "type": "default"}),
            "vision_config": _VISION_2_5,
            "audio_config": _AUDIO,
        },
        "enable_audio_output": False,
    },
    "qwen3_vl": {
        "text_config": _text(head_dim=16, rope_scaling=_ROPE_3),
        "vision_config": {**_VISION_3, "deepstack_visual_indexes": [0]},
    },
    "qwen3_vl_moe": {
        "text_config": _text(head_dim=16, rope_scaling=_ROPE_3, **_MOE),
        "vision_config": {**_VISION_3, "deepstack_visual_indexes": [0]},
    },
    "qwen3_omni_moe": {
        "thinker_config": {
            "model_type": "qwen3_omni_moe_thinker",
            "text_config": _text(head_dim=16, rope_scaling=_ROPE_3, **_MOE),
            "vision_config": {**_VISION_3, "deepstack_visual_indexes": [0]},
            "audio_config": _AUDIO_3,
        },
        "enable_audio_output": False,
    },
    "qwen3_5": {
        "text_config": _text(rope_parameters=_ROPE_3_5, **_LINEAR),
        "vision_config": _VISION_3,
    },
    "qwen3_5_moe": {
        "text_config": _text(
            rope_parameters={**_ROPE_3, "rope_theta": 10_000.0}, **_LINEAR, **_MOE
        ),
        "vision_config": _VISION_3,
    },
}
"""One config of each architecture that sees and that the batch scheduler serves."""

TEXT_CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2": _text(),
    "qwen3": _text(head_dim=16),
    "qwen3_moe": _text(head_dim=16, **_MOE),
    "qwen3_5_text": CONFIGS["qwen3_5"]["text_config"],
    "qwen3_5_moe_text": CONFIGS["qwen3_5_moe"]["text_config"],
}
"""One config of each architecture that reads text only."""

_INDEXED = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 16,
    "indexer_budget": 16,
    "indexer_compress_ratio": 4,
    "hc_count": 2,
    "hc_lowrank": 8,
    "ple_layer_ids": [1],
    "ple_embed_dim": 32,
    "heads_per_ngram": 2,
    "ngram_vocab_size_base": 64,
    "make_ngram_vocab_size_divisible_by": 8,
    "split_ngram_parts": 2,
    "eos_token_id": SPECIAL.index("<|im_end|>"),
    "layer_types": ["linear_attention", "indexed_attention"],
}
EXAMPLES: dict[str, dict[str, Any]] = {
    **CONFIGS,
    **{
        f"{name}_thinker": CONFIGS[name]["thinker_config"]
        for name in ("qwen2_5_omni", "qwen3_omni_moe")
    },
    "qwen4_exp": {
        "text_config": _text(
            rope_parameters={**_ROPE_3_5, "partial_rotary_factor": 0.5},
            **{**_LINEAR, **_MOE, **_INDEXED},
        ),
        "vision_config": _VISION_3,
    },
    **TEXT_CONFIGS,
}
"""One config of each family that can be loaded at all."""


_CODEC = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
_SPEECH: dict[str, dict[str, Any]] = {
    "qwen2_5_omni": {
        "talker_config": {
            **_text(rope_scaling={**_ROPE_2, "type": "default"}, head_dim=16, **_CODEC),
            "vocab_size": 40,
            "embedding_size": 64,
            "tts_text_start_token_id": 300,
            "tts_text_end_token_id": 301,
            "tts_text_pad_token_id": 302,
            "tts_codec_pad_token_id": 32,
            "tts_codec_start_token_id": 33,
            "tts_codec_end_token_id": 34,
            "tts_codec_mask_token_id": 36,
        },
        "token2wav_config": {
            "dit_config": {
                "hidden_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "emb_dim": 16,
                "head_dim": 16,
                "block_size": 8,
                "look_ahead_layers": [0],
                "look_backward_layers": [0],
                "num_embeds": 41,
                "mel_dim": 8,
                "enc_emb_dim": 8,
                "enc_dim": 8,
                "enc_channels": [8, 8, 8, 8, 24],
                "enc_attention_channels": 8,
                "enc_res2net_scale": 2,
                "enc_se_channels": 8,
            },
            "bigvgan_config": {
                "mel_dim": 8,
                "upsample_initial_channel": 16,
                "resblock_kernel_sizes": [3],
                "resblock_dilation_sizes": [[1, 1, 1]],
                "upsample_rates": [5, 3],
                "upsample_kernel_sizes": [11, 7],
            },
        },
    },
    "qwen3_omni_moe": {
        "talker_config": {
            "text_config": {
                **_text(rope_scaling=_ROPE_3, head_dim=16, **_MOE, **_CODEC),
                "vocab_size": 1024 + 64,  # the last 1024 are never spoken
            },
            "code_predictor_config": {
                **_text(head_dim=16, **_CODEC),
                "vocab_size": 64,
                "num_code_groups": 3,
            },
            "num_code_groups": 3,
            "thinker_hidden_size": 64,
            "accept_hidden_layer": 1,
            "spatial_merge_size": 2,
            "codec_eos_token_id": 70,
            "codec_nothink_id": 71,
            "codec_think_bos_id": 72,
            "codec_think_eos_id": 73,
            "codec_pad_id": 74,
            "codec_bos_id": 75,
            "speaker_id": {"chelsie": 77, "ethan": 76},
        },
        "code2wav_config": {
            **_CODEC,
            "num_key_value_heads": 2,
            "codebook_size": 64,
            "head_dim": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_quantizers": 3,
            "upsample_rates": [4, 3],
            "upsampling_ratios": [2],
            "decoder_dim": 16,
            "sliding_window": 8,
        },
        "im_start_token_id": SPECIAL.index("<|im_start|>"),
        "im_end_token_id": SPECIAL.index("<|im_end|>"),
        "tts_pad_token_id": 300,
        "tts_bos_token_id": 301,
        "tts_eos_token_id": 302,
    },
}
"""Speaking halves of whole Omni checkpoints."""


def available(model_type: str) -> bool:
    """Whether the installed transformers has this family at all."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    # Thinkers had classes before they had a place in that table.
    cls = FAMILIES[model_type].transformers_class if model_type in FAMILIES else None
    is_own = cls is not None and not cls.startswith("Auto")
    return model_type in CONFIG_MAPPING_NAMES or (is_own and hasattr(transformers, cls))


def can_be_captured(model_type: str) -> bool:
    """Whether a CUDA graph can hold a decode step: release 4 loops over these models' experts."""
    return model_type not in ("qwen3_omni_moe", "qwen3_moe") or available("qwen3_5")


def make(
    model_type: str,
    folder: Path,
    thinking: str = "",
    seed: int = 3,
    config: dict[str, Any] | None = None,
    mtp: bool = False,
    std: float = 0.3,
    speaks: bool = False,
) -> Path:
    """Writes a checkpoint of ``model_type`` to ``folder``. ``thinking``: "" (never), "always",
    "switch" (off unless asked for) or "open" (on unless asked not to), by the chat template.
    ``config``: other shapes than the tiny ones. ``mtp``: with the MTP head (``mtp.*``) of Qwen3.5
    checkpoints. ``std``: standard deviation of the weights. ``speaks``: with the speaking half of a
    whole Omni checkpoint."""
    import torch
    import transformers

    made = tokenizer()
    special = made.get_added_vocab()
    row = FAMILIES[model_type]
    image, start, end = row.image_token, row.vision_start, row.vision_end
    config = json.loads(json.dumps(config or EXAMPLES[model_type]))
    # In Omni models the vision-language model lies inside a bigger one.
    own = config[row.config_section] if row.config_section else config
    numbers = {
        "image_token": special[image],
        "video_token": special[row.video_token],
        "audio_token": special[row.audio_token],
    }
    if row.sees:
        own |= {f"{name}_id": number for name, number in numbers.items()}
        own |= {"vision_start_token_id": special[start], "vision_end_token_id": special[end]}
    if row.hearing:
        own["audio_start_token_id"] = special[row.hearing.start]
        own["position_id_per_seconds"] = row.hearing.per_second
        own["audio_end_token_id"] = special[row.hearing.end]
    torch.manual_seed(seed)
    cls = getattr(transformers, row.transformers_class or "AutoModelForImageTextToText")
    if row.transformers_class and row.sees:  # the first Omni generation has names of its own
        own |= {f"{name}_index": number for name, number in numbers.items()}
        model = cls(cls.config_class(**own))
    else:
        model = cls.from_config(transformers.AutoConfig.for_model(model_type, **own))
    for name, weight in model.named_parameters():
        # The libraries' own initial values are so small that every answer is one token repeated.
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=std if "embed" not in name else 1.0)
    model.generation_config.repetition_penalty = 1.05
    if speaks:
        model = _whole(model, row, numbers, made)
    model.save_pretrained(folder)
    if speaks and row.speech and row.speech.voices_file:
        voice = {"bos_token": 303, "cond": torch.randn(1, 8), "ref_mel": torch.randn(1, 30, 8)}
        other = {**voice, "bos_token": 304, "cond": torch.randn(1, 8)}
        torch.save({"Ethan": other, "Chelsie": voice}, folder / row.speech.voices_file)
    if row.config_section and not speaks:
        _nest(folder, row)
    if mtp:
        _add_heads(folder, model)
    made.chat_template = (
        TEMPLATE.replace("START", start)
        .replace(" IMAGE ", image)
        .replace(" VIDEO ", row.video_token)
        .replace("END", end)
        .replace("SOUND\n", _sound(row))
        .replace("THINK", {"": "", "always": "<think>\n", "switch": SWITCH, "open": OPEN}[thinking])
    )
    made.save_pretrained(folder)
    if row.sees:
        _add_image_processor(folder, row)
    (folder / "generation_config.json").write_text(
        json.dumps(
            {
                "eos_token_id": [special["<|im_end|>"], special["<|endoftext|>"]],
                "pad_token_id": special["<|endoftext|>"],
                "repetition_penalty": 1.05,
                "temperature": 0.1,
                "do_sample": True,
            }
        )
    )
    return folder


def _add_image_processor(folder: Path, row: Family) -> None:
    token = row.patch_factor**2
    settings = {
        **(_EXTRACTOR if row.hearing else {}),
        "image_processor_type": "Qwen2VLImageProcessorFast",
        "patch_size": row.patch_factor // 2,
        "merge_size": 2,
        "temporal_patch_size": 2,
        "size": {"shortest_edge": 4 * token, "longest_edge": 64 * token},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    if row.watching:
        most = 24 if row.watching.of_all else 6
        video = {"size": {"shortest_edge": 4 * token, "longest_edge": most * token}}
        (folder / "video_preprocessor_config.json").write_text(json.dumps(video))


_EXTRACTOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "feature_size": 16,
    "chunk_length": 30,
    "hop_length": 160,
    "n_fft": 400,
    "sampling_rate": 16_000,
    "padding_value": 0.0,
}


def _sound(row: Family) -> str:
    return f"{row.hearing.start}{row.audio_token}{row.hearing.end}" if row.hearing else ""


def _whole(thinker: Any, row: Family, numbers: dict[str, int], made: Any) -> Any:
    """A whole Omni model around ``thinker``."""
    assert row.speech is not None
    import torch
    import transformers

    speech = json.loads(json.dumps(_SPEECH[row.model_type]))
    own = thinker.config.to_dict()
    talker = speech["talker_config"]
    talker |= {f"{name}_{end}": n for name, n in numbers.items() for end in ("id", "index")}
    shared = ("vision_start_token_id", "audio_start_token_id", "position_id_per_seconds")
    talker |= {name: own[name] for name in shared}
    if row.speech.voices_file:
        talker |= {name: own[name] for name in ("vision_end_token_id", "audio_end_token_id")}
    else:  # roles are told by their first tokens
        speech |= {
            f"{role}_token_id": made.encode(role, add_special_tokens=False)[0]
            for role in ("system", "user", "assistant")
        }
    cls = getattr(transformers, row.speech.transformers_class)
    config = cls.config_class(thinker_config=own, enable_audio_output=True, **speech)
    whole = cls(config)
    for name, weight in whole.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.1 if "embed" not in name else 1.0)
    whole.thinker.load_state_dict(thinker.state_dict())
    return whole


def make_large(folder: Path, hidden: int = 1024, layers: int = 5) -> Path:
    """A Qwen3-VL checkpoint of about 260 MB in float32, in which a process's memory shows."""
    wide = {"hidden_size": hidden, "intermediate_size": 4 * hidden, "num_hidden_layers": layers}
    shape = CONFIGS["qwen3_vl"]
    vision = {**shape["vision_config"], "out_hidden_size": hidden}
    config = {"text_config": {**shape["text_config"], **wide}, "vision_config": vision}
    return make("qwen3_vl", folder, config=config)


def _add_heads(folder: Path, model: Any) -> None:
    """As the hub has them: a layer like those of the model, between parts of its own."""
    import torch
    from safetensors.torch import load_file, save_file

    text = model.get_decoder()
    size, whole = text.config.hidden_size, text.config.layer_types.index("full_attention")
    made = {
        f"layers.0.{name}": torch.randn_like(weight) * 0.3
        for name, weight in text.layers[whole].state_dict().items()
    }
    made["fc.weight"] = torch.randn(size, 2 * size) * 0.3
    for norm in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden"):
        made[f"{norm}.weight"] = torch.randn(size) * 0.1
    weights = load_file(folder / "model.safetensors")
    weights |= {f"mtp.{name}": weight for name, weight in made.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _nest(folder: Path, row: Family) -> None:
    """As the hub has Omni models: the thinker inside a bigger one, under a prefix of its own."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    prefix = row.config_section.removesuffix("_config")
    weights = {f"{prefix}.{name}": tensor for name, tensor in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})
    inner = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": row.model_type,
                row.config_section: inner,
                "enable_audio_output": False,
            }
        )
    )
