"""Calls of a CLIP's ``tokenize``, ``generate`` and ``decode``, whose arguments differ by release.

What a call takes is read from its signature. What happens within ``generate`` is watched by torch's
own hooks: every token goes through the input embeddings, every picture through the vision tower.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...qwenvl.errors import BadOption, UnsuitableModel
from .clip_models import Encoder
from .progress import without_progress

Tokens = dict[str, list[list[tuple[Any, ...]]]]
"""What ``tokenize`` gives: by the encoder's name rows of tokens with weights, pictures among
them."""

_EMBEDDING = re.compile(r"(?<=\s)embedding:")

OnToken = Callable[[int], None]
OnPicture = Callable[[Tensor, Tensor], None]
"""Is called with a picture's normalised patches ``[n, values]`` and its grid ``[[t, h, w]]``."""


class ClipCalls:
    """The calls of one CLIP."""

    def __init__(self, encoder: Encoder):
        self._encoder, self._clip = encoder, encoder.clip
        tokenizer = getattr(self._clip, "tokenizer", None)
        self._tokenize = _parameters(getattr(tokenizer, "tokenize_with_weights", None))
        self._generate = _parameters(self._clip.generate)
        self._decode = _parameters(self._clip.decode)

    def tokens(self, text: str, images: Sequence[Tensor]) -> Tokens:
        """``text``, which begins with ``<|im_start|>`` so that no template is put around it, with
        ``images``, each ``[1, H, W, 3]`` of 0 to 1, in the places of its image tokens. Raises
        ``UnsuitableModel`` where they do not get there."""
        options: dict[str, Any] = {}
        if "skip_template" in self._tokenize:
            options["skip_template"] = True
        if images and "images" in self._tokenize:
            options["images"] = list(images)
        elif images:
            options["image"] = _one_batch(images)
        tokens: Tokens = self._clip.tokenize(_unweighted(text), **options)
        placed = sum(not isinstance(token[0], (int, float)) for token in self.row(tokens))
        if placed != len(images):
            raise UnsuitableModel(
                f"ComfyUI put {placed} of {len(images)} pictures into the prompt of this text "
                "encoder. Choose another type in Load CLIP, or update ComfyUI."
            )
        return tokens

    def row(self, tokens: Tokens) -> list[tuple[Any, ...]]:
        """The prompt's tokens, each with its weight behind it; pictures are a token each."""
        return next(iter(tokens.values()))[0]

    def ids(self, text: str) -> tuple[int, ...]:
        """Token ids of ``text`` within a conversation."""
        start = "<|im_start|>"
        return tuple(token[0] for token in self.row(self.tokens(f"{start}{text}", ())))[1:]

    def generate(self, tokens: Tokens, options: Mapping[str, Any]) -> list[int]:
        """Generated token ids, the end token included. ``options``: those that this ComfyUI does
        not know are left out (see ``unknown``)."""
        # Drafts (mtp) go through the embeddings as well, and could not be told from tokens.
        wanted = {**options, "mtp": False}
        known = {name: value for name, value in wanted.items() if name in self._generate}
        with without_progress():
            found = self._clip.generate(tokens, **known)
        return [int(token) for token in torch.as_tensor(found).flatten().tolist()]

    def unknown(self, options: Mapping[str, Any]) -> list[str]:
        """Names of ``options`` that this ComfyUI's ``generate`` does not take."""
        return [name for name in options if name not in self._generate]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ``ids`` without special tokens."""
        options = {"skip_special_tokens": True} if "skip_special_tokens" in self._decode else {}
        text: str = self._clip.decode(list(ids), **options) if ids else ""
        return text

    @contextmanager
    def watched(self, on_token: OnToken, on_picture: OnPicture) -> Iterator[None]:
        """While the block runs, ``on_token`` is called with each token that ``generate`` chose, and
        ``on_picture`` before each picture is looked at. What they raise ends ``generate``."""
        seen_prompt = False

        def token(_module: Any, args: tuple[Any, ...]) -> None:
            nonlocal seen_prompt
            if seen_prompt and args and args[0].numel() == 1:
                on_token(int(args[0]))
            seen_prompt = True

        def picture(_module: Any, args: tuple[Any, ...]) -> None:
            on_picture(*args[:2])

        hooks = [
            self._encoder.embeddings.register_forward_pre_hook(token),
            self._encoder.vision_tower.register_forward_pre_hook(picture),
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def _parameters(function: Any) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters) if function else frozenset()


def _one_batch(images: Sequence[Tensor]) -> Tensor:
    """For a ComfyUI that takes pictures as one IMAGE."""
    if len({image.shape for image in images}) > 1:
        raise BadOption(
            "This ComfyUI shows its text encoders several pictures only where all have one size. "
            "Ask about one at a time, scale them to one size, or update ComfyUI."
        )
    return torch.cat(list(images))


def _unweighted(text: str) -> str:
    """``text`` such that ComfyUI's tokenizer reads what stands there: it takes a backslash before a
    bracket away, and an embedding's file for a word behind ``embedding:``."""
    escaped = text.replace("\\(", "\\\\(").replace("\\)", "\\\\)")
    return _EMBEDDING.sub("embedding :", escaped)
