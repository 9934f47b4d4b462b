"""Memory model: bytes that inference takes beside the weights (KV cache, activations, logits)."""

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
from ..prompting.prompt import Prompt
from .kv_cache import BLOCK_TOKENS
from .prefix_cache import MAX_BYTES
from .sequence import new_row

_MARGIN = 1.2  # allocators round up and leave gaps


@dataclass(frozen=True)
class TokenNeed:
    """Tokens of one request: ``prompt`` (images included), the longest ``answer`` it can get,
    ``image`` tokens of the prompt, ``suffix``: those behind the last image (0 without one), and
    ``encoded``: image tokens that are in the vision tower at once (None: all; see
    ``Prompt.encoded_tokens``)."""

    prompt: int
    answer: int
    image: int = 0
    suffix: int = 0
    encoded: int | None = None


def token_need(prompt: Prompt) -> TokenNeed:
    prefix = prompt.image_prefix
    return TokenNeed(
        prompt=len(prompt.ids),
        answer=new_row(prompt, 0).max_output,
        image=prompt.image_tokens,
        suffix=len(prompt.ids) - prefix if prefix else 0,
        encoded=prompt.encoded_tokens,
    )


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
    """Bytes that one model takes.

    ``kv``: keys and values of a token. ``linear_state``: state of a row in linear attention,
    whatever its length. ``prefill``: activations of a prompt token. ``mask``: of each pair of a
    suffix token and a prompt token where the images are cached (else there is none). ``scores``:
    of each pair of prompt tokens. ``vision``: activations of an image token in the vision tower.
    ``features``: its vision features. ``logits``: of a row.
    """

    kv: int
    linear_state: int
    prefill: int
    mask: int
    scores: int
    vision: int
    features: int
    logits: int

    def peak_bytes(self, needs: Sequence[TokenNeed]) -> int:
        """Bytes at the worst moment of running ``needs`` at once: prompts are prefilled one after
        the other, and every row has a slot as long as the longest."""
        longest = max(need.prompt for need in needs) + max(need.answer for need in needs)
        length = -(-longest // BLOCK_TOKENS) * BLOCK_TOKENS
        slot = length * self.kv + self.linear_state + self.logits
        # The states of a single active row are copied before a verification.
        slots = len(needs) * slot + min(len(needs), 2) * self.linear_state
        prefill = max(map(self._prefill_bytes, needs))
        return int(_MARGIN * (slots + self._prefix_cache_bytes(needs) + prefill))

    def _prefix_cache_bytes(self, needs: Sequence[TokenNeed]) -> int:
        """Prefixes of the prompts with images, and the images' features."""
        cached = [
            need.prompt * self.kv + self.linear_state + need.image * self.features
            for need in needs
            if need.image
        ]
        return min(sum(cached), MAX_BYTES)

    def _prefill_bytes(self, need: TokenNeed) -> int:
        # The vision tower is done before the language model begins, so the larger one counts.
        pairs = need.suffix * self.mask + need.prompt * self.scores
        encoded = need.image if need.encoded is None else need.encoded
        return max(need.prompt * (self.prefill + pairs), encoded * self.vision)

    @classmethod
    def from_model(cls, model: Any) -> MemoryModel:
        """Counted from the shapes in a loaded model's config."""
        text, vision = model.config.get_text_config(), getattr(model.config, "vision_config", None)
        size = model.dtype.itemsize
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        kinds = getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers
        linear = sum(kind == "linear_attention" for kind in kinds)
        eager = model.config._attn_implementation == "eager"
        # Residual, its norm, queries, keys and values repeated for their groups, the MLP.
        width = 8 * text.hidden_size + 3 * _mlp_width(text) + 4 * head * text.num_attention_heads
        delta_rule = 8 * text.hidden_size * size + _delta_rule_bytes(text, size) if linear else 0
        if "logits_to_keep" not in inspect.signature(model.forward).parameters:
            width += text.vocab_size  # such a model computes logits of every prompt token
        return cls(
            kv=2 * (len(kinds) - linear) * text.num_key_value_heads * head * size,
            linear_state=linear * _linear_state_bytes(text) if linear else 0,
            prefill=max(size * width, delta_rule),
            mask=1 + size,
            # Without a fused kernel: every head's, in float32 too, and a mask for all.
            scores=1 + size + text.num_attention_heads * (size + 8) if eager else 0,
            vision=vision.spatial_merge_size**2 * _patch_bytes(vision, size) if vision else 0,
            features=text.hidden_size * size * (1 + len(_deepstack_layers(vision))),
            logits=text.vocab_size * (size + 3 * torch.float32.itemsize),
        )


def _mlp_width(text: Any) -> int:
    """Inner width of the MLP; of a mixture of experts, of those that one token goes through."""
    experts = getattr(text, "moe_intermediate_size", 0) * getattr(text, "num_experts_per_tok", 0)
    shared = getattr(text, "shared_expert_intermediate_size", 0) or 0
    return experts + shared if experts else text.intermediate_size


def _linear_state_bytes(text: Any) -> int:
    """State of one gated delta-rule layer: a float32 matrix per head, and the last few inputs of
    its convolution."""
    keys = text.linear_num_key_heads * text.linear_key_head_dim
    values = text.linear_num_value_heads * text.linear_value_head_dim
    matrix = text.linear_num_value_heads * text.linear_key_head_dim * text.linear_value_head_dim
    return 4 * (matrix + (2 * keys + values) * text.linear_conv_kernel_dim)


def _delta_rule_bytes(text: Any, size: int) -> int:
    """One prompt token in a gated delta-rule layer as plain torch computes it: float32, in chunks
    of 64 tokens that attend to one another, with keys repeated for each head of values."""
    heads = text.linear_num_value_heads
    keys, values = text.linear_key_head_dim, text.linear_value_head_dim
    inputs = 2 * text.linear_num_key_heads * keys + 2 * heads * values
    return 4 * heads * (5 * 64 + 6 * keys + 4 * values) + size * inputs


def _deepstack_layers(vision: Any) -> Sequence[int]:
    """Layers of the vision tower, if there is one, whose features go into the language model too
    (Qwen3-VL)."""
    return getattr(vision, "deepstack_visual_indexes", None) or ()


def _patch_bytes(vision: Any, size: int) -> int:
    """One patch on its way through the vision tower."""
    width = getattr(vision, "embed_dim", None) or vision.hidden_size
    inner = getattr(vision, "intermediate_size", None) or int(width * vision.mlp_ratio)
    pixels = 3 * vision.patch_size**2
    # Twice as bytes, while pixels are put into patches, and once as numbers.
    return pixels * (2 + size) + size * (12 * width + 3 * inner)


def out_of_memory_error(
    need: TokenNeed, memory_model: MemoryModel, free: int, patch_factor: int
) -> OutOfMemory:
    """The error for one request that does not fit into ``free`` bytes, saying what would."""

    def fits(changed: TokenNeed) -> bool:
        return memory_model.peak_bytes([changed]) <= free

    def with_image(tokens: int) -> TokenNeed:
        text = need.prompt - need.image
        encoded = None if need.encoded is None else min(need.encoded, tokens)
        return dataclasses.replace(need, prompt=text + tokens, image=tokens, encoded=encoded)

    takes = readable_size(memory_model.peak_bytes([need]))
    message = (
        f"Memory ran out for a single request: {need.prompt} tokens, {need.image} of them its "
        f"pictures', and up to {need.answer} new ones take about {takes} beside the weights, and "
        f"{readable_size(free)} is free."
    )
    fitting = _largest_below(need.image, lambda tokens: fits(with_image(tokens)))
    if fitting:
        pixels = fitting * patch_factor**2
        message += f" With max_pixels {pixels} in the Loader ({fitting} tokens) it should fit."
    elif shorter := _largest_below(
        need.answer, lambda tokens: fits(dataclasses.replace(need, answer=tokens))
    ):
        message += f" With max_new_tokens {shorter} it should fit."
    elif need.prompt > 2 * need.image:
        message += " Shorten the prompt."
    return OutOfMemory(f"{message} 4bit, 8bit or a smaller model leave more room.")


def _largest_below(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number under ``limit`` that ``fits``; 0 if none does."""
    return bisect.bisect_left(range(1, limit), True, key=lambda number: not fits(number))
