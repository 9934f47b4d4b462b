"""Reference: what transformers' own processors and ``generate`` answer, with none of our code but
the token ids that stand for images and ends."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from qwen_vl_suite.qwenvl.checkpoints.files import read_settings
from qwen_vl_suite.qwenvl.families import family_of
from qwen_vl_suite.qwenvl.models.loading import model_class
from qwen_vl_suite.qwenvl.types import Request


class Reference:
    def __init__(self, folder: Path, template: Any):
        from transformers import AutoImageProcessor

        family = family_of(read_settings(folder, "config.json"))
        cls = model_class(folder, family)
        self.model = cls.from_pretrained(str(folder), dtype=torch.float32).eval()
        self.processor = AutoImageProcessor.from_pretrained(folder)
        self.chat_template = template
        self.image = family.image_token

    def __call__(self, request: Request) -> list[int]:
        template, made = self.chat_template, self.chat_template.tokenizer
        shown = [{"type": "image"} for _ in request.images]
        text = made.apply_chat_template(
            [
                *([{"role": "system", "content": request.system}] if request.system else []),
                {"role": "user", "content": [*shown, {"type": "text", "text": request.prompt}]},
            ],
            tokenize=False,
            add_generation_prompt=True,
        )
        inputs = {}
        if request.images:
            inputs = dict(self.processor(images=list(request.images), return_tensors="pt"))
        first, *others = text.split(self.image)
        for grid, words in zip(inputs.get("image_grid_thw", ()), others, strict=True):
            first += self.image * (int(grid.prod()) // 4) + words
        inputs |= made(first, return_tensors="pt")
        if "mm_token_type_ids" in inspect.signature(self.model.forward).parameters:
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == template.image_token_id).long()
        return self.generate(inputs, request)

    def generate(self, inputs: Mapping[str, Any], request: Request) -> list[int]:
        """The tokens that it continues ``inputs`` with."""
        template = self.chat_template
        # Of the tokenizer; transformers 4.57 refuses what no model takes.
        given = {name: value for name, value in inputs.items() if name != "token_type_ids"}
        with torch.no_grad():
            out = self.model.generate(
                **given,
                max_new_tokens=request.sampling.max_new_tokens,
                do_sample=False,
                repetition_penalty=1.0,  # else the checkpoint's own applies
                eos_token_id=sorted(template.eos_ids),
                suppress_tokens=sorted(template.media_token_ids),
                pad_token_id=template.pad_id,
            )
        new = out[0, inputs["input_ids"].shape[1] :].tolist()
        return [token for token in new if token not in template.eos_ids]
