"""A CLIP as ComfyUI hands it to nodes, of torch modules that say what a script wants.

``tokenize`` and ``generate`` go the ways of the real ones: pictures take the places of their image
tokens, every token goes through the input embeddings, every picture through the vision tower.
Their signatures are those of several releases (``RELEASES``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

END, PAD, IMAGE, THINK_END = 1, 2, 3, 4
_SPECIAL = {"<|im_end|>": END, "<|image_pad|>": IMAGE, "</think>": THINK_END}
_PIECE = re.compile(r"<\|\w+\|>|</?think>|.", re.DOTALL)
FIRST = 16
"""The id of the first character."""


def ids_of(text: str) -> list[int]:
    found = []
    for piece in _PIECE.findall(text):
        found.append(_SPECIAL.get(piece, PAD if len(piece) > 1 else FIRST + ord(piece)))
    return found


def text_of(ids: Sequence[int]) -> str:
    names = {THINK_END: "</think>"}
    return "".join(names.get(i, chr(i - FIRST) if i >= FIRST else "") for i in ids)


class _Embeddings(nn.Module):
    def forward(self, ids: Tensor, out_dtype: Any = None) -> Tensor:
        return ids[..., None].float()


class _Tower(nn.Module):
    def forward(self, patches: Tensor, grid: Tensor) -> Tensor:
        return patches


class SDClipModel:
    """Named as ComfyUI's: its ``generate`` knows nothing of pictures."""

    def __init__(self, transformer: Any):
        self.transformer = transformer

    def generate(self, tokens: Any, **options: Any) -> list[int]:
        return self.transformer.generate(tokens, position_ids=None, **options)


class Qwen3VLClipModel(SDClipModel):
    def generate(self, tokens: Any, **options: Any) -> list[int]:
        return self.transformer.generate(tokens, position_ids=1, **options)


class Transformer(nn.Module):
    """``say``: what is written next, given the prompt's tokens and the options; all of it, without
    an end token where the limit is to be what ends it."""

    def __init__(self, say: Callable[[list[Any], dict[str, Any]], str], **settings: Any):
        super().__init__()
        self.say = say
        self.model_type = settings.pop("model_type", "qwen3vl_4b")
        self.mean = settings.pop("mean", 0.5)
        self.swallows = settings.pop("swallows", False)
        self.through_embeddings = settings.pop("through_embeddings", True)
        config = {
            "hidden_size": 64,
            "num_hidden_layers": 3,
            "final_norm": True,
            "stop_tokens": [END],
            "max_position_embeddings": 20_000,
        }
        self.model = nn.Module()
        self.model.config = SimpleNamespace(**{**config, **settings.pop("config", {})})
        self.model.embed_tokens = _Embeddings()
        self.visual = settings.pop("visual", _Tower())
        if (head := settings.pop("lm_head", None)) is not None:
            self.model.lm_head = SimpleNamespace(weight=head)
        assert not settings, settings
        self.calls: list[dict[str, Any]] = []
        self.pictures: list[Tensor] = []

    def get_input_embeddings(self) -> nn.Module:
        return self.model.embed_tokens

    def generate(self, tokens: Any, position_ids: Any = None, **options: Any) -> list[int]:
        row = [token[0] for token in next(iter(tokens.values()))[0]]
        self.calls.append({**options, "row": row, "position_ids": position_ids})
        self.model.embed_tokens(torch.tensor([[i for i in row if isinstance(i, int)]]))
        for embed in row:
            if isinstance(embed, dict) and not self.swallows:
                self._look(embed["data"])
        written = ids_of(self.say(row, options))
        made: list[int] = []
        for token in written[: options["max_length"]]:
            made.append(token)
            if self.through_embeddings:
                self.model.embed_tokens(torch.tensor([[token]]))
            if token == END:
                break
        return made

    def _look(self, image: Tensor) -> None:
        """As ComfyUI resizes a picture and scales its values."""
        self.pictures.append(image)
        (height, width), limits = image.shape[1:3], (3136, 12_845_056)
        high, wide = (round(side / 32) * 32 for side in (height, width))
        if high * wide < limits[0]:
            grow = math.sqrt(limits[0] / (height * width))
            high, wide = (math.ceil(side * grow / 32) * 32 for side in (height, width))
        resized = nn.functional.interpolate(image.movedim(-1, 1), (high, wide), mode="bilinear")
        patches = (resized[0] - self.mean) / 0.5
        cut = patches.unfold(1, 16, 16).unfold(2, 16, 16).permute(1, 2, 0, 3, 4).flatten(0, 1)
        twice = cut[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1)
        self.visual(twice, torch.tensor([[1, high // 16, wide // 16]]))


def _placed(text: str, images: Sequence[Tensor]) -> dict[str, Any]:
    row: list[tuple[Any, ...]] = [(i, 1.0) for i in ids_of(text)]
    following = iter(images)
    for at, token in enumerate(row):
        if token[0] == IMAGE and (image := next(following, None)) is not None:
            row[at] = ({"type": "image", "data": image}, 1.0)
    return {"qwen3vl_4b": [row]}


class _List:
    """0.33: pictures as a list."""

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, images: Any = (), **_: Any) -> Any:  # fmt: skip  # noqa: E501
        return _placed(text, images)


class _Batch:
    """Pictures as one IMAGE."""

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, image: Any = None) -> Any:  # fmt: skip  # noqa: E501
        return _placed(text, () if image is None else [one[None] for one in image])


class _Template:
    """Later: a template that is put around the text unless it is told not to."""

    def tokenize_with_weights(self, text: str, return_word_ids: bool = False, images: Any = (), skip_template: bool = False, system_prompt: str = "") -> Any:  # fmt: skip  # noqa: E501
        assert skip_template
        return _placed(text, images)


class FakeCLIP:
    """0.33's."""

    tokenizer_class: type = _List

    def __init__(
        self,
        say: Callable[[list[Any], dict[str, Any]], str] | str = "Yes.<|im_end|>",
        inner: type = Qwen3VLClipModel,
        **settings: Any,
    ):
        def speak(row: list[Any], options: dict[str, Any]) -> str:
            return say if isinstance(say, str) else say(row, options)

        self.transformer = Transformer(speak, **settings)
        name = self.transformer.model_type
        model = inner(self.transformer)

        class TEModel_:
            clip = name

        self.cond_stage_model = TEModel_()
        setattr(self.cond_stage_model, name, model)
        self.tokenizer = self.tokenizer_class()
        self.patcher = SimpleNamespace(model=self.cond_stage_model, model_size=lambda: 123)

    def tokenize(self, text: str, return_word_ids: bool = False, **kwargs: Any) -> Any:
        return self.tokenizer.tokenize_with_weights(text, return_word_ids, **kwargs)

    def generate(self, tokens: Any, do_sample: bool = True, max_length: int = 256, temperature: float = 1.0, top_k: int = 50, top_p: float = 0.95, min_p: float = 0.0, repetition_penalty: float = 1.0, seed: Any = None, presence_penalty: float = 0.0) -> Any:  # fmt: skip  # noqa: E501
        options = {k: v for k, v in locals().items() if k not in ("self", "tokens")}
        return self._inner.generate(tokens, **options)

    @property
    def _inner(self) -> Any:
        return getattr(self.cond_stage_model, self.cond_stage_model.clip)

    def decode(self, token_ids: Any, skip_special_tokens: bool = True) -> str:
        assert skip_special_tokens
        return text_of(token_ids)


class Older(FakeCLIP):
    """Without presence_penalty; pictures as one IMAGE; the ids in a tensor."""

    tokenizer_class = _Batch

    def generate(self, tokens: Any, do_sample: bool = True, max_length: int = 256, temperature: float = 1.0, top_k: int = 50, top_p: float = 0.95, min_p: float = 0.0, repetition_penalty: float = 1.0, seed: Any = None) -> Any:  # type: ignore[override]  # fmt: skip  # noqa: E501
        options = {k: v for k, v in locals().items() if k not in ("self", "tokens")}
        return torch.tensor([self._inner.generate(tokens, **options)])

    def decode(self, token_ids: Any) -> str:  # type: ignore[override]
        return text_of(token_ids)


class Newer(FakeCLIP):
    """With drafts (mtp), which must be off, and a template to be skipped."""

    tokenizer_class = _Template

    def generate(self, tokens: Any, do_sample: bool = True, max_length: int = 256, temperature: float = 1.0, top_k: int = 50, top_p: float = 0.95, min_p: float = 0.0, repetition_penalty: float = 1.0, seed: Any = None, presence_penalty: float = 0.0, mtp: bool = True) -> Any:  # type: ignore[override]  # fmt: skip  # noqa: E501
        assert mtp is False
        options = {k: v for k, v in locals().items() if k not in ("self", "tokens", "mtp")}
        return self._inner.generate(tokens, **options)


RELEASES = {"older": Older, "0.33": FakeCLIP, "newer": Newer}
