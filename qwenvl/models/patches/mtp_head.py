"""Patch: the MTP head of a checkpoint (Qwen3.5: ``mtp.*``), which transformers leaves unread.

Multi-token prediction: one more decoder layer, trained with the model. From the model's hidden
state of a token and the embedding of the token behind it, the layer predicts the hidden state
there, and so drafts the token after that; from its own prediction it drafts the next one.

Nothing is replaced: the head is added as ``model.mtp``, and a hook behind the model's last norm
records its output. The model itself computes what it did before.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...checkpoints.integrity import require_weight_files
from ...checkpoints.safetensors_header import tensor_names
from ...types import Family

log = logging.getLogger(__name__)

MTP_CONTEXT = 256
"""Tokens of a prompt that the head sees: the last ones, next to the answer."""


class MTPHead(nn.Module):
    """MTP head: the modules of ``mtp.*`` under their names in the checkpoint, shaped for ``model``.

    ``last_hidden`` holds the hidden states ``[rows, tokens, hidden]`` of the model's last forward
    pass, of at most ``MTP_CONTEXT`` tokens, or is empty. It is a list, so that they are not taken
    for one of the model's weights.
    """

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
        self.last_hidden: list[Tensor] = []

    def forward(self, hidden: Tensor, embedded: Tensor, **layer_options: Any) -> Tensor:
        """Predicted hidden states ``[1, n, hidden]``.

        ``hidden``: those of ``n`` tokens; ``embedded``: the embeddings of the tokens that follow
        them, both ``[1, n, hidden]``. ``layer_options`` go to the decoder layer: position
        embeddings, attention mask, cache.
        """
        pair = (self.pre_fc_norm_embedding(embedded), self.pre_fc_norm_hidden(hidden))
        states = self.fc(torch.cat(pair, -1))
        for layer in self.layers:
            states = layer(states, **layer_options)
        return self.norm(states)

    def pop_hidden_states(self) -> Tensor:
        """The hidden states of the model's last forward pass, no longer held here."""
        (states,), self.last_hidden = self.last_hidden, []
        return states

    def record(self, _norm: nn.Module, _inputs: object, output: Tensor) -> None:
        """The forward hook behind the model's last norm."""
        long = output.shape[1] > MTP_CONTEXT
        self.last_hidden = [output[:, -MTP_CONTEXT:].clone() if long else output]


def apply(model: Any, path: Path, family: Family) -> None:
    """Adds to a loaded ``model`` of ``family`` the MTP head of its checkpoint ``path`` as
    ``model.mtp``.

    Does nothing where the checkpoint has none, where its tensors do not fit as they are (quantised
    ones, say), or where the model is split over devices: answers then come without drafts.
    """
    devices = {parameter.device for parameter in model.parameters()}
    prefix = family.mtp_prefix
    if not prefix or len(devices) > 1:
        return
    chosen = require_weight_files(path)
    stored = {
        name.removeprefix(prefix): torch.Size(entry["shape"])
        for name, entry in chosen.tensors.items()
        if name.startswith(prefix)
    }
    if not stored:
        return
    with torch.device("meta"):
        head = MTPHead(model)
    expected = {name: weight.shape for name, weight in head.state_dict().items()}
    if stored != expected:
        log.info("%s: its MTP head is of an unknown form, and not used", path.name)
        return
    (device,), dtype = devices, model.get_decoder().norm.weight.dtype
    weights = _read(path, chosen.files, prefix)
    converted = {name: weight.to(device, dtype) for name, weight in weights.items()}
    head.load_state_dict(converted, assign=True)
    model.mtp = head.requires_grad_(False).eval()
    model.get_decoder().norm.register_forward_hook(head.record)


def of(model: Any) -> MTPHead | None:
    """The head that ``apply`` added to ``model``."""
    head = getattr(model, "mtp", None)
    return head if isinstance(head, MTPHead) else None


def _read(path: Path, files: Iterable[str], prefix: str) -> dict[str, Tensor]:
    from safetensors import safe_open

    weights: dict[str, Tensor] = {}
    for file in files:
        names = [name for name in tensor_names(path / file) if name.startswith(prefix)]
        with safe_open(path / file, "pt") as opened:
            weights |= {name.removeprefix(prefix): opened.get_tensor(name) for name in names}
    return weights
