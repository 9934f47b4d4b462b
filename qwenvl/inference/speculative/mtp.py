"""Multi-token prediction by the model's own MTP head: drafts for a row that is alone."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...models.patches import mtp_head
from ...models.patches.mtp_head import MTP_CONTEXT, MTPHead

if TYPE_CHECKING:
    from ..model_runner import ModelRunner

FORESEEN = 3
"""Tokens drafted at once; the makers advise 2 to 4."""


class MTPDraft:
    """What the heads know of one row: the states of its tokens with the tokens behind them, and
    their own keys and values. Where the row's beginning is missing, guesses are a little worse."""

    def __init__(self, decoder: ModelRunner, head: MTPHead):
        from transformers import DynamicCache

        self._decoder, self._mtp = decoder, head
        self._embed = decoder.model.get_input_embeddings()
        self._rotary = decoder.model.get_decoder().rotary_emb
        self._head = decoder.model.get_output_embeddings()
        self._new: deque[tuple[Tensor, Tensor]] = deque(maxlen=MTP_CONTEXT)
        self._cache: Any = DynamicCache()

    def note(self, hidden: Tensor, tokens: Tensor) -> None:
        """The model made ``hidden`` ``[n, size]`` of tokens that were followed by ``tokens``
        ``[n]``. Of what nobody asks for guesses behind, the oldest is let go."""
        self._new.append((hidden, tokens))

    def states(self, count: int) -> Tensor:
        """Room for so many."""
        return self._mtp.fc.weight.new_empty(count, self._mtp.fc.out_features)

    def guess(self, count: int = FORESEEN) -> list[int]:
        """The tokens that may come next."""
        hidden, tokens = (torch.cat(part)[None] for part in zip(*self._new, strict=True))
        self._new.clear()
        hidden = self._pass(hidden, tokens)
        length = self._cache.get_seq_length()
        guessed = [self._likeliest(hidden)]
        while len(guessed) < count:
            hidden = self._pass(hidden[:, -1:], guessed[-1])
            guessed.append(self._likeliest(hidden))
        # What it made of guesses goes: the model may say otherwise.
        (layer,) = self._cache.layers
        layer.keys, layer.values = layer.keys[:, :, :length], layer.values[:, :, :length]
        return torch.cat(guessed, 1)[0].tolist()

    def _likeliest(self, hidden: Tensor) -> Tensor:
        return self._head(hidden[:, -1:]).argmax(-1)

    def _pass(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        past, new = self._cache.get_seq_length(), tokens.shape[1]
        # All are words, one behind the other: only their distances count.
        places = torch.arange(past, past + new, device=tokens.device)
        visible = torch.arange(past + new, device=tokens.device) <= places[:, None]
        return self._mtp(
            hidden,
            self._embed(tokens),
            position_embeddings=self._rotary(hidden, places.expand(3, 1, -1)),
            attention_mask=self._decoder.mask(visible, hidden.dtype)[None, None],
            past_key_values=self._cache,
            use_cache=True,
        )


def draft(decoder: ModelRunner, ids: Sequence[int], token: int) -> MTPDraft | None:
    """For a row whose prompt ``ids`` the model has just read to its end, and which goes on with
    ``token``; None where the model has no heads."""
    head = mtp_head.of(decoder.model)
    if head is None:
        return None
    made, states = MTPDraft(decoder, head), head.pop_hidden_states()
    following = torch.tensor([*ids, token][-states.shape[1] :], device=states.device)
    made.note(states[0], following)
    return made
