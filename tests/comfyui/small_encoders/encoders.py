"""Small text encoders of ComfyUI's own classes: its code, with fewer and narrower layers."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.sd
import comfy.text_encoders.qwen35 as qwen35
import torch

_TEXT = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_TOWER = {"hidden_size": 32, "intermediate_size": 64, "depth": 3, "num_heads": 4}
_TOWER |= {"num_position_embeddings": 64}


def qwen3vl(kind: str = "qwen3vl", size: str = "qwen3vl_4b", seed: int = 0) -> Any:
    """A Qwen3-VL of random weights, as ComfyUI loads it for the type ``kind``."""
    with _narrow(_TEXT, [4, 2, 2], 16, {**_TOWER, "deepstack_visual_indexes": [0, 1]}):
        module = importlib.import_module(f"comfy.text_encoders.{kind}")
        options = {"model_type": size} if kind == "qwen3vl" else {}
        makers = {"ideogram4": "te_qwen3vl"}
        tokenizers = {
            "ideogram4": "Ideogram4Qwen3VLTokenizer",
            "joyimage": "JoyImageTokenizer",
            "krea2": "Krea2Tokenizer",
        }
        te = getattr(module, makers.get(kind, "te"))(**options)
        named = tokenizers.get(kind)
        tokenizer = getattr(module, named) if named else module.tokenizer(model_type=size)
        return _random(_clip(te, tokenizer, f"{size}_model_config", _TEXT), seed)


def nano(checkpoint: Path) -> Any:
    """The bundled model in ComfyUI's class of Qwen3-VL, with its own tokenizer in the place of
    Qwen's, of whose tokens it knows another number for a picture's."""
    from safetensors.torch import load_file

    config = json.loads((checkpoint / "config.json").read_text())
    text, tower = config["text_config"], config["vision_config"]
    shape = {name: text[name] for name in (*_TEXT, "vocab_size", "rope_theta")}
    vision = {name: tower[name] for name in (*_TOWER, "deepstack_visual_indexes")}
    sections = text["rope_parameters"]["mrope_section"]
    with _narrow(shape, sections, text["head_dim"], vision, stop_tokens=[2, 0]):
        import comfy.text_encoders.qwen3vl as module

        te = module.te(model_type="qwen3vl_4b")
        tokenizer = _nano_tokenizer(module, checkpoint, config["image_token_id"])
        clip = _clip(te, tokenizer, "qwen3vl_4b_model_config", shape)
    names = {"model.language_model.": "model.", "model.visual.": "visual."}
    weights = {
        next(
            new + key.removeprefix(old) for old, new in names.items() if key.startswith(old)
        ): value
        for key, value in load_file(checkpoint / "model.safetensors").items()
    }
    missing, unexpected = clip.cond_stage_model.load_sd(weights)
    assert not missing and not unexpected, (missing, unexpected)
    return clip


def _nano_tokenizer(module: Any, checkpoint: Path, image_id: int) -> Any:
    from transformers import PreTrainedTokenizerFast

    class NanoTokenizer(module.Qwen3VLTokenizer):
        def __init__(self, embedding_directory: Any = None, tokenizer_data: Any = None):
            super().__init__(embedding_directory, tokenizer_data or {}, "qwen3vl_4b")
            inner = self.qwen3vl_4b
            inner.tokenizer = PreTrainedTokenizerFast.from_pretrained(checkpoint)

        def tokenize_with_weights(
            self, text: str, *args: Any, images: Any = (), **kwargs: Any
        ) -> Any:
            tokens = super().tokenize_with_weights(text, *args, **kwargs)
            following = iter(images)
            for row in tokens.values():
                for at, token in enumerate(row[0]):
                    if token[0] == image_id and (image := next(following, None)) is not None:
                        row[0][at] = ({"type": "image", "data": image}, *token[1:])
            return tokens

    return NanoTokenizer


def cut_32b() -> Any:
    """Qwen3-VL 32B as MiniMax's generator needs it: without the norm and the head at its end."""
    with _narrow(_TEXT, [4, 2, 2], 16, {**_TOWER, "deepstack_visual_indexes": [0, 1]}):
        module = importlib.import_module("comfy.text_encoders.minimax")
        return _clip(module.te(), module.MiniMaxH3Tokenizer, "qwen3vl_32b_model_config", _TEXT)


def klein() -> Any:
    """Qwen3-VL loaded with type flux2."""
    module = importlib.import_module("comfy.text_encoders.flux")
    te = module.klein_te(model_type="qwen3_4b")
    return _clip(te, module.KleinTokenizer, "qwen3_4b_model_config", _klein_text())


def _klein_text() -> dict[str, int]:
    # It taps layers up to the 27th.
    return {**_TEXT, "num_hidden_layers": 28}


def qwen_image() -> Any:
    """Qwen-Image's Qwen2.5-VL 7B, as wide as it is."""
    module = importlib.import_module("comfy.text_encoders.qwen_image")
    narrow = {**_TEXT, "hidden_size": 3584, "num_hidden_layers": 1, "vocab_size": 64}
    # The tower is built as large as it is, so its weights are left out.
    te, options = module.te(), {"initial_device": torch.device("meta")}
    return _clip(te, module.QwenImageTokenizer, "qwen25_7b_model_config", narrow, options)


def small_qwen35() -> Any:
    """Qwen3.5."""
    before = dict(qwen35.QWEN35_VISION_DEFAULTS)
    shape = {**_TEXT, "head_dim": 16, "layer_types": ["full_attention"] * 3}
    qwen35.QWEN35_VISION_DEFAULTS.update(_TOWER)
    try:
        te = qwen35.te(model_type="qwen35_2b")

        def tokenizer(**_: Any) -> Any:
            """Its own has a large vocabulary, and is not asked."""
            return SimpleNamespace()

        return _clip(te, tokenizer, "qwen35_2b_model_config", shape)
    finally:
        qwen35.QWEN35_VISION_DEFAULTS.update(before)


def stable_diffusion() -> Any:
    """CLIP-L."""
    from comfy import sd1_clip

    clip = SimpleNamespace(cond_stage_model=sd1_clip.SD1ClipModel())
    return clip


class _narrow:
    """While the block runs, ComfyUI builds Qwen3-VL in this shape."""

    def __init__(
        self,
        text: dict[str, Any],
        sections: list[int],
        head: int,
        vision: dict[str, Any],
        stop_tokens: list[int] | None = None,
    ):
        import comfy.text_encoders.qwen3vl as module

        self._module, self._vision = module, vision
        self._own = {"rope_dims": sections, "head_dim": head}
        if stop_tokens:
            self._own["stop_tokens"] = stop_tokens

    def __enter__(self) -> None:
        module = self._module
        self._before = (
            dict(module.QWEN3VL_CONFIGS),
            dict(module.QWEN3VL_VISION),
            dict(module.QWEN3VL_VISION_COMMON),
        )
        for size, config in self._before[0].items():
            narrow = type(config.__name__, (config,), dict(self._own))
            module.QWEN3VL_CONFIGS[size] = dataclasses.dataclass(narrow)
            module.QWEN3VL_VISION[size] = {}
        module.QWEN3VL_VISION_COMMON.update(self._vision)

    def __exit__(self, *_: Any) -> None:
        module, (configs, vision, common) = self._module, self._before
        module.QWEN3VL_CONFIGS.update(configs)
        module.QWEN3VL_VISION.update(vision)
        module.QWEN3VL_VISION_COMMON.clear()
        module.QWEN3VL_VISION_COMMON.update(common)


def _clip(
    te: Any,
    tokenizer: Any,
    name: str,
    config: dict[str, Any],
    options: dict[str, Any] | None = None,
) -> Any:
    target = SimpleNamespace(params={}, clip=te, tokenizer=tokenizer)
    return comfy.sd.CLIP(target, model_options={name: config, **(options or {})})


def _random(clip: Any, seed: int) -> Any:
    """Norms at one, the rest at random."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in clip.cond_stage_model.named_parameters():
        if name.endswith("norm.weight") or "norm1.weight" in name or "norm2.weight" in name:
            weight.data.fill_(1.0)
        elif "norm" in name:
            weight.data.zero_()
        else:
            noise = torch.randn(weight.shape, generator=generator)
            weight.data.copy_(noise * (0.2 if weight.ndim > 1 else 0.02))
    return clip
