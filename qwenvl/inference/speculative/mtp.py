"""Heads that guess several tokens at once, as Qwen3.5 checkpoints bring them (``mtp.*``).

Such a head is one more layer of the model: from what the model made of a token, and the token that
followed it, it makes what the model will make of that one, and so guesses the next; and from its
own guess the one behind. It was trained with the model, and is often right.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ...checkpoints.integrity import require_weight_files
from ...checkpoints.safetensors_header import tensor_names
from ...checkpoints.tensors import MTP_PREFIX
from ...models.footprint import MTP_MODEL_TYPES

if TYPE_CHECKING:
    from ..model_runner import ModelRunner

log = logging.getLogger(__name__)

FORESEEN = 3
"""Tokens guessed at once; the makers advise 2 to 4."""
_LONGEST = 256  # tokens of a prompt that a head reads: those nearest to the answer


class MTPHead(nn.Module):
    """The parts of ``mtp.*``, under their names in the checkpoint, in the shapes of ``model``.

    ``heard``: the states ``[rows, tokens, hidden]`` of the model's last pass, at most
    ``_LONGEST`` tokens, once ``put_into`` has put it there."""

    def __init__(self, model: Any):
        super().__init__()
        text = model.get_decoder()
        config = copy.deepcopy(text.config)
        config.layer_types, config.num_hidden_layers = ["full_attention"], 1
        own = text.config._attn_implementation
        config._attn_implementation = "eager" if own == "eager" else "sdpa"
        size, norm, eps = config.hidden_size, type(text.norm), config.rms_norm_eps
        self.fc = nn.Linear(2 * size, size, bias=False)
        self.pre_fc_norm_embedding = norm(size, eps=eps)
        self.pre_fc_norm_hidden = norm(size, eps=eps)
        self.layers = nn.ModuleList([type(text.layers[0])(config, 0)])
        self.norm = norm(size, eps=eps)
        self.heard: list[Tensor] = []

    def forward(self, hidden: Tensor, embedded: Tensor, **layer: Any) -> Tensor:
        """``[1, n, hidden]`` from the states of ``n`` tokens and the embeddings of those that
        followed them. ``layer``: what the model's layers are given besides."""
        pair = (self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(hidden))
        made = self.fc(torch.cat(pair, -1))
        for part in self.layers:
            made = part(made, **layer)
        return self.norm(made)

    def take(self) -> Tensor:
        """The states ``[rows, n, size]`` of the model's last pass, which are let go."""
        (states,), self.heard = self.heard, []
        return states

    def hear(self, _norm: nn.Module, _inputs: object, out: Tensor) -> None:
        """A hook behind the model's last norm."""
        self.heard = [out if out.shape[1] <= _LONGEST else out[:, -_LONGEST:].clone()]


def put_into(model: Any, path: Path) -> None:
    """Gives a loaded ``model`` the heads in its checkpoint ``path``, as ``model.mtp``; nothing
    where it has none, or none that fit this model as they are (quantised ones, say): then it
    answers without."""
    devices = {parameter.device for parameter in model.parameters()}
    if model.config.model_type not in MTP_MODEL_TYPES or len(devices) > 1:
        return
    chosen = require_weight_files(path)
    stored = {
        name.removeprefix(MTP_PREFIX): torch.Size(part["shape"])
        for name, part in chosen.tensors.items()
        if name.startswith(MTP_PREFIX)
    }
    if not stored:
        return
    with torch.device("meta"):
        heads = MTPHead(model)
    wanted = {name: weight.shape for name, weight in heads.state_dict().items()}
    if stored != wanted:
        log.info("%s: its heads for several tokens are of an unknown form, and not used", path.name)
        return
    (device,), dtype = devices, model.get_decoder().norm.weight.dtype
    found = _read(path, chosen.files)
    fitting = {name: weight.to(device, dtype) for name, weight in found.items()}
    heads.load_state_dict(fitting, assign=True)
    model.mtp = heads.requires_grad_(False).eval()
    model.get_decoder().norm.register_forward_hook(heads.hear)


def _read(path: Path, files: Iterable[str]) -> dict[str, Tensor]:
    from safetensors import safe_open

    found: dict[str, Tensor] = {}
    for name in files:
        parts = [part for part in tensor_names(path / name) if part.startswith(MTP_PREFIX)]
        with safe_open(path / name, "pt") as file:
            found |= {part.removeprefix(MTP_PREFIX): file.get_tensor(part) for part in parts}
    return found


def of(model: Any) -> MTPHead | None:
    """Those that ``put_into`` gave to ``model``."""
    found = getattr(model, "mtp", None)
    return found if isinstance(found, MTPHead) else None


class MTPDraft:
    """What the heads know of one row: the states of its tokens with the tokens behind them, and
    their own keys and values. Where the row's beginning is missing, guesses are a little worse."""

    def __init__(self, decoder: ModelRunner, heads: MTPHead):
        from transformers import DynamicCache

        self._decoder, self._heads = decoder, heads
        self._embed = decoder.model.get_input_embeddings()
        self._rotary = decoder.model.get_decoder().rotary_emb
        self._head = decoder.model.get_output_embeddings()
        self._new: deque[tuple[Tensor, Tensor]] = deque(maxlen=_LONGEST)
        self._cache: Any = DynamicCache()

    def note(self, hidden: Tensor, tokens: Tensor) -> None:
        """The model made ``hidden`` ``[n, size]`` of tokens that were followed by ``tokens``
        ``[n]``. Of what nobody asks for guesses behind, the oldest is let go."""
        self._new.append((hidden, tokens))

    def states(self, count: int) -> Tensor:
        """Room for so many."""
        return self._heads.fc.weight.new_empty(count, self._heads.fc.out_features)

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
        return self._heads(
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
    heads = of(decoder.model)
    if heads is None:
        return None
    made, states = MTPDraft(decoder, heads), heads.take()
    following = torch.tensor([*ids, token][-states.shape[1] :], device=states.device)
    made.note(states[0], following)
    return made
