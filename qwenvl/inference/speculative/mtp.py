"""MTP drafts (multi-token prediction) by the model's own MTP head, for a row that is alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...models.patches import mtp_head
from ...models.patches.mtp_head import MTP_CONTEXT, MTPHead
from ..kv_cache import cache_argument

if TYPE_CHECKING:
    from ..model_runner import ModelRunner

DRAFT_TOKENS = 3
"""Tokens drafted at once; the makers advise 2 to 4."""


class MTPDraft:
    """Drafting state of one row: hidden states of its tokens, each with the token that followed,
    and the head's own KV cache. Where the row's beginning is missing, drafts are a little worse."""

    def __init__(self, runner: ModelRunner, head: MTPHead):
        from transformers import DynamicCache

        self._runner, self._head = runner, head
        self._embed = runner.model.get_input_embeddings()
        self._rotary = runner.model.get_decoder().rotary_emb
        self._output = runner.model.get_output_embeddings()
        self._new: deque[tuple[Tensor, Tensor]] = deque(maxlen=MTP_CONTEXT)
        self._cache: Any = DynamicCache()
        self._cache_argument = cache_argument(head.layers[0])

    def append(self, hidden: Tensor, tokens: Tensor) -> None:
        """Adds the model's ``hidden`` states ``[n, size]`` of tokens that were followed by
        ``tokens`` ``[n]``. Until the next draft only the newest are kept."""
        self._new.append((hidden, tokens))

    def new_hidden_states(self, count: int) -> Tensor:
        """Uninitialised hidden states ``[count, size]``."""
        return self._head.fc.weight.new_empty(count, self._head.fc.out_features)

    def draft(self, count: int = DRAFT_TOKENS) -> list[int]:
        """The next ``count`` tokens as the head predicts them, one from the other."""
        hidden, tokens = (torch.cat(part)[None] for part in zip(*self._new, strict=True))
        self._new.clear()
        hidden = self._forward(hidden, tokens)
        length = self._cache.get_seq_length()
        drafted = [self._greedy(hidden)]
        while len(drafted) < count:
            hidden = self._forward(hidden[:, -1:], drafted[-1])
            drafted.append(self._greedy(hidden))
        # The cache of drafted tokens goes: the model may reject them.
        (layer,) = self._cache.layers
        layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        return torch.cat(drafted, 1)[0].tolist()

    def _greedy(self, hidden: Tensor) -> Tensor:
        return self._output(hidden[:, -1:]).argmax(-1)

    def _forward(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        past, new = self._cache.get_seq_length(), tokens.shape[1]
        # Text positions, one behind the other: only their distances count.
        positions = torch.arange(past, past + new, device=tokens.device)
        visible = torch.arange(past + new, device=tokens.device) <= positions[:, None]
        return self._head(
            hidden,
            self._embed(tokens),
            position_embeddings=self._rotary(hidden, positions.expand(3, 1, -1)),
            attention_mask=self._runner.additive_mask(visible, hidden.dtype)[None, None],
            use_cache=True,
            **{self._cache_argument: self._cache},
        )


def new_draft(runner: ModelRunner, ids: Sequence[int], token: int) -> MTPDraft | None:
    """For a row whose prompt ``ids`` was just prefilled to its end, and which goes on with
    ``token``; None where the model has no MTP head."""
    head = mtp_head.of(runner.model)
    if head is None:
        return None
    draft, hidden = MTPDraft(runner, head), head.pop_hidden_states()
    following = torch.tensor([*ids, token][-hidden.shape[1] :], device=hidden.device)
    draft.append(hidden[0], following)
    return draft
