"""What answering takes beside the weights: the KV cache, a picture's activations, the logits."""

from __future__ import annotations

import bisect
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..checkpoints.files import readable_size
from ..errors import OutOfMemory
from .kv_cache import GRAIN
from .prefix_cache import MOST

_MARGIN = 1.2  # allocators round up and leave gaps


@dataclass(frozen=True)
class TokenNeed:
    """One request in tokens: its prompt (pictures included), the longest answer it can get, how
    many of the prompt's tokens are its pictures, and how many stand behind them."""

    prompt: int
    answer: int
    image: int = 0
    words: int = 0


@dataclass(frozen=True)
class BatchLimits:
    """Admission limits of a batch. ``rows``: with more, a pass has no idle time left to fill.
    ``nbytes``: memory for everything that a batch takes beside the weights (None: no bound)."""

    rows: int = 32
    nbytes: int | None = None

    def admit(
        self, needs: Sequence[TokenNeed], peak_bytes: Callable[[Sequence[TokenNeed]], int]
    ) -> bool:
        """Whether requests that take ``needs`` may run at once."""
        fits = self.nbytes is None or peak_bytes(needs) <= self.nbytes
        return len(needs) <= self.rows and fits


@dataclass(frozen=True)
class MemoryModel:
    """Bytes that one model takes: ``cache`` for each token kept, ``state`` for each row (linear
    attention keeps a matrix, whatever the length), ``prompt`` for each prompt token while it is
    read, ``mask`` for each token it can look at where it stands behind pictures (the others need
    no mask), ``scores`` for each pair of prompt tokens, ``image`` for each picture token while
    pictures are looked at, ``look`` for each of them once they have been, ``row`` for the logits
    of each row."""

    cache: int
    state: int
    prompt: int
    mask: int
    scores: int
    image: int
    look: int
    row: int

    def peak_bytes(self, needs: Sequence[TokenNeed]) -> int:
        """Bytes at the worst moment of answering ``needs`` at once: prompts are read one after
        the other, and every row has a slot as long as the longest."""
        longest = max(need.prompt for need in needs) + max(need.answer for need in needs)
        slot = -(-longest // GRAIN) * GRAIN * self.cache + self.state + self.row
        # Of a row that is left alone in its slot, or with an empty one, states are copied.
        slots = len(needs) * slot + min(len(needs), 2) * self.state
        return int(_MARGIN * (slots + self._seen(needs) + max(map(self._reading, needs))))

    def _seen(self, needs: Sequence[TokenNeed]) -> int:
        """Of what is kept of prompts with pictures, and of the pictures."""
        kept = [n.prompt * self.cache + self.state + n.image * self.look for n in needs if n.image]
        return min(sum(kept), MOST)

    def _reading(self, need: TokenNeed) -> int:
        # A prompt's pictures are looked at before it is read, so the larger of both counts.
        pairs = need.words * self.mask + need.prompt * self.scores
        return max(need.prompt * (self.prompt + pairs), need.image * self.image)

    @classmethod
    def of(cls, model: Any) -> MemoryModel:
        """Counted from the shapes in a loaded model's config."""
        text, vision = model.config.get_text_config(), model.config.vision_config
        size = model.dtype.itemsize
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
        linear = sum(kind == "linear_attention" for kind in kinds)
        eager = model.config._attn_implementation == "eager"
        # Residual, its norm, queries, keys and values repeated for their groups, the MLP.
        width = 8 * text.hidden_size + 3 * _inner(text) + 4 * head * text.num_attention_heads
        delta_rule = 8 * text.hidden_size * size + _delta_rule(text, size) if linear else 0
        if "logits_to_keep" not in inspect.signature(model.forward).parameters:
            width += text.vocab_size  # such a model computes them for every token it reads
        return cls(
            cache=2 * (len(kinds) - linear) * text.num_key_value_heads * head * size,
            state=linear * _linear_state(text) if linear else 0,
            prompt=max(size * width, delta_rule),
            mask=1 + size,
            # Without a fused kernel: every head's, in float32 too, and a mask for all.
            scores=1 + size + text.num_attention_heads * (size + 8) if eager else 0,
            image=vision.spatial_merge_size**2 * _patch(vision, size),
            look=text.hidden_size * size * (1 + len(_deepstack(vision))),
            row=text.vocab_size * (size + 3 * torch.float32.itemsize),
        )


def _inner(text: Any) -> int:
    """Width of the MLP as one token sees it; of a mixture, of the experts it goes through."""
    experts = getattr(text, "moe_intermediate_size", 0) * getattr(text, "num_experts_per_tok", 0)
    shared = getattr(text, "shared_expert_intermediate_size", 0) or 0
    return experts + shared if experts else text.intermediate_size


def _linear_state(text: Any) -> int:
    """Bytes of one gated delta-rule layer's state: a float32 matrix per head, and the last few
    inputs of its convolution."""
    keys = text.linear_num_key_heads * text.linear_key_head_dim
    values = text.linear_num_value_heads * text.linear_value_head_dim
    matrix = text.linear_num_value_heads * text.linear_key_head_dim * text.linear_value_head_dim
    return 4 * (matrix + (2 * keys + values) * text.linear_conv_kernel_dim)


def _delta_rule(text: Any, size: int) -> int:
    """Bytes of one prompt token in a gated delta-rule layer as plain torch computes it: float32,
    in chunks of 64 tokens that look at one another, with keys repeated for each head of values."""
    heads = text.linear_num_value_heads
    keys, values = text.linear_key_head_dim, text.linear_value_head_dim
    inputs = 2 * text.linear_num_key_heads * keys + 2 * heads * values
    return 4 * heads * (5 * 64 + 6 * keys + 4 * values) + size * inputs


def _deepstack(vision: Any) -> Sequence[int]:
    """Layers of the vision tower that give features of their own (Qwen3-VL)."""
    return getattr(vision, "deepstack_visual_indexes", None) or ()


def _patch(vision: Any, size: int) -> int:
    """Bytes of one patch on its way through the vision tower."""
    width = getattr(vision, "embed_dim", None) or vision.hidden_size
    inner = getattr(vision, "intermediate_size", None) or int(width * vision.mlp_ratio)
    pixels = 3 * vision.patch_size**2
    # Twice as bytes, while they are put in order, and once as numbers.
    return pixels * (2 + size) + size * (12 * width + 3 * inner)


def out_of_memory_error(
    need: TokenNeed, costs: MemoryModel, free: int, patch_factor: int
) -> OutOfMemory:
    """The error for one request that does not fit into ``free`` bytes, saying what would."""
    takes = readable_size(costs.peak_bytes([need]))
    words = (
        f"Memory ran out for a single request: {need.prompt} tokens, {need.image} of them its "
        f"pictures', and up to {need.answer} new ones take about {takes} beside the weights, and "
        f"{readable_size(free)} is free."
    )
    words_only = dataclasses.replace(need, prompt=need.prompt - need.image, image=0)
    fitting = _most(
        lambda tokens: costs.peak_bytes([_seen(words_only, tokens)]) <= free, need.image
    )
    if fitting:
        pixels = fitting * patch_factor**2
        words += f" With max_pixels {pixels} in the Loader ({fitting} tokens) it should fit."
    elif shorter := _most(
        lambda tokens: costs.peak_bytes([dataclasses.replace(need, answer=tokens)]) <= free,
        need.answer,
    ):
        words += f" With max_new_tokens {shorter} it should fit."
    elif need.prompt > 2 * need.image:
        words += " Shorten the prompt."
    return OutOfMemory(f"{words} 4bit, 8bit or a smaller model leave more room.")


def _seen(need: TokenNeed, image: int) -> TokenNeed:
    return dataclasses.replace(need, prompt=need.prompt + image, image=image)


def _most(fits: Callable[[int], bool], below: int) -> int:
    """The largest number under ``below`` that ``fits``; 0 if none does."""
    return bisect.bisect_left(range(1, below), True, key=lambda number: not fits(number))
