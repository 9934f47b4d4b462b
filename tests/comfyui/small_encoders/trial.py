"""Asks small text encoders in ComfyUI's own Python, beside transformers, and prints what came.

Run in a checkout of ComfyUI with the pack and this folder on the path. Prints one line of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from typing import Any

import comfy.options

comfy.options.enable_args_parsing()

import torch  # noqa: E402
from comfy.cli_args import args  # noqa: E402

args.cpu = True

import encoders  # noqa: E402
from qwen_vl_suite.nodes.host import ClipBackend  # noqa: E402
from qwen_vl_suite.qwenvl.errors import QwenVLError  # noqa: E402
from qwen_vl_suite.qwenvl.types import Image, Message, Request, Sampling  # noqa: E402

WORDS = r"What is here? Say \(x\), embedding:no and <|im_end|>."


def main() -> None:
    has_qwen3vl = importlib.util.find_spec("comfy.text_encoders.qwen3vl") is not None
    found: dict[str, Any] = {"refused": refusals(has_qwen3vl)}
    if has_qwen3vl:
        found |= {"answers": answers(), "places": places()}
    print(json.dumps(found))


def refusals(has_qwen3vl: bool) -> dict[str, str]:
    """Why each encoder that cannot be asked is refused; empty where it is not."""
    makers: dict[str, Any] = {
        "flux2": encoders.klein,
        "qwen_image": encoders.qwen_image,
        "qwen35": encoders.small_qwen35,
        "sd": encoders.stable_diffusion,
    }
    later: dict[str, Any] = {
        "32b": encoders.cut_32b,
        "joyimage": lambda: encoders.qwen3vl("joyimage", "qwen3vl_8b"),
        "headless": headless,
        "4b": encoders.qwen3vl,
        "8b": lambda: encoders.qwen3vl(size="qwen3vl_8b"),
        "krea2": lambda: encoders.qwen3vl("krea2"),
        "ideogram4": lambda: encoders.qwen3vl("ideogram4", "qwen3vl_8b"),
    }
    found = {}
    for name, make in {**makers, **(later if has_qwen3vl else {})}.items():
        try:
            ClipBackend(make())
            found[name] = ""
        except QwenVLError as error:
            found[name] = str(error)
    return found


def headless() -> Any:
    """An 8B whose file had no head."""
    clip = encoders.qwen3vl(size="qwen3vl_8b")
    clip.cond_stage_model.qwen3vl_8b.transformer.model.lm_head.weight.data.zero_()
    return clip


def places() -> list[str]:
    """Where the weights are before a question, behind it, once unloaded, and behind another."""
    backend = ClipBackend(encoders.qwen3vl())
    found, texts = [backend.place], []
    for _ in range(2):
        texts += [response.text for response in backend.generate(requests()[:1])]
        found.append(backend.place)
        backend.offload()
        found.append(backend.place)
    assert texts[0] == texts[1] and backend.nbytes > 0
    return found


def answers() -> list[dict[str, Any]]:
    """Ours beside transformers', of the same weights."""
    found = []
    for size in ("qwen3vl_4b", "qwen3vl_8b"):
        clip = encoders.qwen3vl(size=size)
        backend, official = ClipBackend(clip), Official(clip, size)
        for request in requests():
            (response,) = backend.generate([request])
            assert response.error is None, response.error
            text, sizes = official.answer(request)
            found.append(
                {
                    "text": response.text,
                    "official": text,
                    "sizes": response.input_sizes,
                    "official_sizes": sizes,
                    "prompt_tokens": response.usage.prompt_tokens,
                    "official_tokens": official.prompt_tokens,
                    "finish": response.finish_reason,
                }
            )
    return found


def requests() -> list[Request]:
    noise = torch.Generator().manual_seed(1)
    wide, tall = (
        torch.randint(0, 256, (3, *size), generator=noise, dtype=torch.uint8)
        for size in ((300, 500), (410, 260))
    )
    talk = (
        Message("system", ("Be brief.",)),
        Message("user", ("One: ", Image(wide), " two: ", Image(tall), WORDS)),
        Message("assistant", ("No.",)),
        Message("user", ("Look again.",)),
    )
    sampling = Sampling(max_new_tokens=24)
    return [
        Request.ask((), WORDS, sampling=sampling),
        Request.ask((wide,), WORDS, sampling=sampling),
        Request(talk, sampling=sampling),
    ]


class Official:
    """transformers' own model with the weights of a CLIP."""

    def __init__(self, clip: Any, size: str):
        from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
        from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor

        inner = getattr(clip.cond_stage_model, size).transformer
        config, tower = inner.model.config, inner.visual
        text = {
            **{
                name: getattr(config, name)
                for name in (
                    *("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size"),
                    *("num_attention_heads", "num_key_value_heads", "head_dim", "rms_norm_eps"),
                )
            },
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": config.rope_theta,
                "mrope_section": config.rope_dims,
                "mrope_interleaved": True,
            },
        }
        vision = {
            "hidden_size": tower.hidden_size,
            "intermediate_size": 64,
            "depth": len(tower.blocks),
            "num_heads": tower.num_heads,
            "num_position_embeddings": tower.num_position_embeddings,
            "deepstack_visual_indexes": tower.deepstack_visual_indexes,
            "out_hidden_size": config.hidden_size,
            "patch_size": 16,
        }
        made = Qwen3VLConfig(
            text_config=text,
            vision_config=vision,
            tie_word_embeddings=not config.lm_head,
            image_token_id=151655,
        )
        self.model = Qwen3VLForConditionalGeneration(made).eval()
        names = {"model.lm_head.": "lm_head.", "model.": "model.language_model."}
        names |= {"visual.": "model.visual."}
        weights = {}
        for key, value in inner.state_dict().items():
            old = next(prefix for prefix in names if key.startswith(prefix))
            weights[names[old] + key.removeprefix(old)] = value.float()
        missing, unexpected = self.model.load_state_dict(weights, strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
        self.model.tie_weights()
        self.tokenizer = getattr(clip.tokenizer, size).tokenizer
        half = [0.5] * 3
        self.processor = Qwen2VLImageProcessor(
            patch_size=16,
            image_mean=half,
            image_std=half,
            size={"shortest_edge": 65536, "longest_edge": 12_845_056},
        )
        self.prompt_tokens = 0

    def answer(self, request: Request) -> tuple[str, list[list[int]]]:
        """The text, and the (height, width) of each picture."""
        text = "".join(
            f"<|im_start|>{message.role}\n{''.join(map(self._part, message.parts))}<|im_end|>\n"
            for message in request.messages
        )
        text += "<|im_start|>assistant\n"
        inputs: dict[str, Any] = {}
        sizes = []
        if request.images:
            inputs = dict(self.processor(list(request.images), return_tensors="pt"))
            for grid in inputs["image_grid_thw"].tolist():
                sizes.append([grid[1] * 16, grid[2] * 16])
                pads = "<|pad|>" * (grid[1] * grid[2] // 4)
                text = text.replace("<|image_pad|>", pads, 1)
            text = text.replace("<|pad|>", "<|image_pad|>")
        ids = torch.tensor([self.tokenizer(text)["input_ids"]])
        inputs |= {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        inputs["mm_token_type_ids"] = (ids == 151655).long()
        self.prompt_tokens = ids.shape[1]
        with torch.no_grad():
            made = self.model.generate(
                **inputs, max_new_tokens=24, do_sample=False, eos_token_id=[151643, 151645]
            )
        generated = made[0, ids.shape[1] :].tolist()
        return self.tokenizer.decode(generated, skip_special_tokens=True).strip(), sizes

    def _part(self, part: Any) -> str:
        if isinstance(part, str):
            return part.replace("<|", "< |").replace("embedding:", "embedding :")
        return "<|vision_start|><|image_pad|><|vision_end|>"


if __name__ == "__main__":
    sys.exit(main())
