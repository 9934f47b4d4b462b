"""Text encoders in the graph: which CLIPs can see pictures and write text, told by looking at them.

ComfyUI loads Qwen models as text encoders of image generators, some with all that they need to see
and to write, some without. Nothing is told by a file's name: classes, settings and modules say what
a CLIP is, and what it lacks is the reason for which it is refused.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

import torch

from ...qwenvl.errors import UnsuitableModel
from ...qwenvl.families import FAMILIES
from ...qwenvl.types import Family

_LARGEST_TIED = 2560
"""Hidden size of the largest Qwen models whose token embeddings are their head as well."""

_ADVICE = (
    "Load Qwen3-VL 4B or 8B by Load CLIP with the type of a generator that reads pictures, such as "
    "ideogram4, or connect the Qwen-VL Loader instead."
)


@dataclass(frozen=True)
class Encoder:
    """A CLIP that can see and write. ``wrapper``: ComfyUI's text encoder model, which clones of the
    CLIP share; ``transformer``: the Qwen model in it."""

    clip: Any
    wrapper: Any
    transformer: Any
    family: Family

    @property
    def embeddings(self) -> torch.nn.Module:
        """The input embeddings, which every token goes through."""
        found: torch.nn.Module = self.transformer.get_input_embeddings()
        return found

    @property
    def shape(self) -> str:
        """The layers and the hidden size, by which the models of a family are told apart."""
        config = self.transformer.model.config
        names = ("num_hidden_layers", "hidden_size")
        return "x".join(str(getattr(config, name, "")) for name in names)

    @property
    def vision_tower(self) -> torch.nn.Module:
        found: torch.nn.Module = self.transformer.visual
        return found

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer."""
        return frozenset(self.transformer.model.config.stop_tokens)

    @property
    def context_length(self) -> int | None:
        """Tokens; None where the encoder does not say."""
        return getattr(self.transformer.model.config, "max_position_embeddings", None)

    def work_bytes(self, prompt: int, answer: int, patches: int) -> int:
        """Bytes that ComfyUI needs beside the weights for an answer of ``answer`` tokens: the KV
        cache, which it sets aside as a whole, and by estimate the pass over the ``prompt`` tokens,
        its causal mask, and that of the tower over ``patches`` in float32. What the encoder does
        not say of its size is left out."""
        config, tower = self.transformer.model.config, self.vision_tower
        names = ("num_hidden_layers", "num_key_value_heads", "head_dim", "intermediate_size")
        layers, heads, head_dim, intermediate = (getattr(config, name, 0) for name in names)
        cache = 2 * 2 * layers * heads * head_dim * (prompt + answer)
        passes = prompt * intermediate * 3 * 2 + prompt**2 * 2
        return cache + passes + patches * getattr(tower, "hidden_size", 0) * 12 * 4


def encoder_of(clip: Any) -> Encoder:
    """The encoder in ``clip``. Raises ``UnsuitableModel`` with the reason where it cannot see, or
    cannot write, or ComfyUI does not let it do either rightly."""
    wrapper = getattr(clip, "cond_stage_model", None)
    inner = getattr(wrapper, str(getattr(wrapper, "clip", "")), None)
    transformer = getattr(inner, "transformer", None)
    name = _name(wrapper, transformer)
    family = _family(name)
    if transformer is None or family is None:
        what = type(wrapper).__name__.rstrip("_")
        raise UnsuitableModel(
            f"This CLIP ({what}) is none of Qwen's vision-language models, so it cannot be asked. "
            f"{_ADVICE}"
        )
    reason = _unable(clip, inner, transformer)
    if reason:
        raise UnsuitableModel(f"The text encoder {name} cannot be asked: {reason} {_ADVICE}")
    return Encoder(clip, wrapper, transformer, family)


def _name(wrapper: Any, transformer: Any) -> str:
    """ComfyUI's name of the encoder, such as ``qwen3vl_4b``."""
    own = getattr(transformer, "model_type", None)
    return own if isinstance(own, str) else str(getattr(wrapper, "clip", ""))


def _family(name: str) -> Family | None:
    """ComfyUI joins what transformers parts by underscores, and leaves out that a model sees."""
    base = name.lower().partition("_")[0]
    known = (row for row in FAMILIES.values() if row.sees and not row.is_original)
    rows = {row.model_type.replace("_", ""): row for row in known}
    return rows.get(base) or rows.get(f"{base}vl")


def _unable(clip: Any, inner: Any, transformer: Any) -> str:
    """Why the encoder cannot see and write; empty where it can."""
    model = getattr(transformer, "model", None)
    config = getattr(model, "config", None)
    if not all(hasattr(clip, method) for method in ("tokenize", "generate", "decode")):
        return "this ComfyUI is too old to write with a text encoder; update it."
    if getattr(transformer, "visual", None) is None:
        return (
            "it was loaded without its vision tower. ComfyUI leaves that out for types flux and "
            "flux2, and files of text encoders without pictures have none."
        )
    if not hasattr(transformer, "generate") or config is None:
        return "this ComfyUI uses it to condition pictures only and cannot write with it."
    if getattr(config, "final_norm", True) is False:
        return (
            f"it is cut to its first {config.num_hidden_layers} layers, without the norm and the "
            "head behind the last, as image generators need of Qwen3-VL 32B."
        )
    return _headless(transformer, config) or _misplaced(inner, transformer)


def _headless(transformer: Any, config: Any) -> str:
    head = getattr(transformer.model, "lm_head", getattr(transformer, "lm_head", None))
    if head is None and config.hidden_size > _LARGEST_TIED:
        return (
            "its head, which turns what it computes into words, is not there: a model of this size "
            "has one of its own, and this ComfyUI does not load it."
        )
    weight = getattr(head, "weight", None)
    if weight is not None and not _is_filled(weight):
        return "the file that it was loaded from lacks its head (lm_head)."
    return ""


def _is_filled(weight: torch.Tensor) -> bool:
    """Whether there are values in a matrix, looked at in a few rows: what no file held is
    all zeros, or holds what is no number."""
    if type(weight) not in (torch.Tensor, torch.nn.Parameter):  # quantised: it came from a file
        return True
    rows = weight.detach()[:: max(1, len(weight) // 8)][:8].float()
    return bool(rows.isfinite().all()) and bool(rows.any())


def _misplaced(inner: Any, transformer: Any) -> str:
    """Whether the code that writes for all encoders alike, and knows nothing of pictures' places,
    writes for this one: Qwen models were trained on three positions a token (M-RoPE)."""
    owner = next(cls for cls in type(inner).__mro__ if "generate" in vars(cls))
    known = inspect.signature(transformer.generate).parameters
    takes_positions = "position_ids" in known or any(
        parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values()
    )
    if owner.__name__ == "SDClipModel" or not takes_positions:
        return (
            "this ComfyUI does not tell it the positions of a picture (M-RoPE) while it writes, so "
            "its answers and boxes would be wrong. A newer ComfyUI may, or another type in Load "
            "CLIP."
        )
    return ""
