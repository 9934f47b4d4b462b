"""Losses: next token, labels of image tokens, attention supervision, and the next item's index.

The linear heads here exist only during training; the checkpoint does not
contain them. Because they are linear, they make the model keep its knowledge
in a form that attention can carry.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import scenes, tokenizer
from .batches import NO_CHAR, ROLES, Batch
from .config import WAVES, WIDTH, waves

INDEXES, LINES, RANKS = 10, 3, 4  # most characters in a line, lines, shapes in a scene
SLOWNESS = torch.tensor([3, 3, 3, 2.5, 2, 1.5, 0.5, 0])  # weights of the waves
LOOK, STOP = ROLES.index("look"), len(ROLES) + 1
SIZES = dict(
    kind=3,
    rank=RANKS,
    shape=len(scenes.SHAPES),
    colour=len(scenes.COLOURS),
    char=2 * (NO_CHAR + 1),
    index=2 * INDEXES,
    line=2 * LINES,
    box=6 * 2 * len(WAVES),
)


class Heads(nn.Module):
    """Linear probes of merged tokens with deepstack, of merged tokens alone, and of text states."""

    def __init__(self):
        super().__init__()
        self.sight = nn.Linear(WIDTH, sum(SIZES.values()))
        self.first = nn.Linear(WIDTH, sum(SIZES[k] for k in ("kind", "rank", "shape", "colour")))
        self.last = nn.Linear(WIDTH, 6)  # is it the last one: yes or no, three times
        self.next = nn.Linear(WIDTH, INDEXES + LINES + RANKS)


def _cross_entropy(logits: Tensor, target: Tensor, weight=None) -> Tensor:
    """Cross-entropy over the last axis, where target is not -1."""
    return F.cross_entropy(logits.flatten(0, -2).float(), target.flatten(), weight, ignore_index=-1)


def _accuracy(logits: Tensor, target: Tensor) -> float:
    known = target >= 0
    return (logits.argmax(-1) == target)[known].float().mean().item()


def _split(joined: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Splits the joint output of a linear head by name."""
    return dict(zip(names, joined.split([SIZES[n] for n in names], -1), strict=True))


def vision_loss(
    heads: Heads, first: Tensor, both: Tensor, labels: dict, boxes: float
) -> tuple[Tensor, dict]:
    """Loss of the heads on merged tokens [B, N, WIDTH], and their accuracies."""
    out = _split(heads.sight(both), tuple(SIZES))
    early = ("kind", "rank", "shape", "colour")
    from_first = _split(heads.first(first), early)
    class_weights = torch.ones(NO_CHAR + 1, dtype=torch.float32)
    class_weights[NO_CHAR] = 0.2  # most halves hold no character
    char = out["char"].unflatten(-1, (2, -1))
    index, line = out["index"].unflatten(-1, (2, -1)), out["line"].unflatten(-1, (2, -1))
    loss = (
        4 * _cross_entropy(char, labels["char"], class_weights)
        + 0.5 * _cross_entropy(index, labels["index"])
        + 0.5 * _cross_entropy(line, labels["line"])
    )
    for name in early:
        loss = loss + 0.3 * (
            _cross_entropy(out[name], labels[name]) + _cross_entropy(from_first[name], labels[name])
        )
    last = heads.last(both).unflatten(-1, (3, 2))
    loss = loss + _cross_entropy(last, labels["last"])
    known = labels["kind"] > 0
    predicted_waves = out["box"][known].unflatten(-1, (6, -1)).float()
    truth = labels["box"][known]
    # Low frequencies weigh more: high ones are ambiguous until the low ones give the period.
    error = (predicted_waves - waves(truth)).square().mean((0, 1)).view(2, -1).mean(0)
    loss = loss + boxes * (error * SLOWNESS).mean()
    with torch.no_grad():
        has_char = labels["char"] != NO_CHAR
        grid = waves(torch.linspace(0, 1, 501))
        off = ((predicted_waves[:64] @ grid.T).argmax(-1) / 500 - truth[:64]).abs()
        figures = dict(
            char=(char.argmax(-1) == labels["char"])[has_char].float().mean().item(),
            blank=(char.argmax(-1) == labels["char"])[~has_char].float().mean().item(),
            index=_accuracy(index, labels["index"]),
            line=_accuracy(line, labels["line"]),
            shape=_accuracy(out["shape"], labels["shape"]),
            colour=_accuracy(out["colour"], labels["colour"]),
            rank=_accuracy(out["rank"], labels["rank"]),
            last=_accuracy(last, labels["last"]),
            off=off.mean().item(),
            waves=error[5].item(),
        )
    return loss, figures


def attention_loss(weights: dict, batch: Batch, n: int) -> tuple[Tensor, dict]:
    """Loss of the supervised attention [B, heads, L, L].

    Each role's head attends to its cells, and all other heads away from the picture.
    """
    early, late = (w[..., batch.start : batch.start + n] for _, w in sorted(weights.items()))
    epsilon = 1e-5
    role = batch.role
    at = (role >= 0) & (role < len(ROLES))
    b, where = at.nonzero(as_tuple=True)
    mass = (late[b, role[at], where] * batch.cells[at]).sum(-1)
    loss = -(mass + epsilon).log().mean()
    away = 1 - late.sum(-1)  # [B, heads, L]
    number = torch.arange(len(ROLES))
    idle = (role[:, None] >= 0) & (role[:, None] != number[:, None]) & (number[:, None] != LOOK)
    idle[:, LOOK] = role == STOP
    loss = loss - (away[idle].clamp_min(0) + epsilon).log().mean()
    on = batch.about_on
    some = batch.about.any(-1)
    about_mass = torch.where(some, (early[:, 0] * batch.about).sum(-1), 1 - early[:, 0].sum(-1))[on]
    loss = loss - (about_mass.clamp_min(0) + epsilon).log().mean()
    return loss, dict(
        look=mass.mean().item(), away=away[idle].mean().item(), about_mass=about_mass.mean().item()
    )


def next_item_loss(heads: Heads, state: Tensor, batch: Batch) -> Tensor:
    """Loss of predicting the next character index, line, shape from text states [B, L, WIDTH]."""
    known = (batch.upcoming >= 0).any(-1)
    parts = heads.next(state[known]).split([INDEXES, LINES, RANKS], -1)
    return sum(
        _cross_entropy(part, batch.upcoming[known][:, k])
        for k, part in enumerate(parts)
        if (batch.upcoming[known][:, k] >= 0).any()
    )


class TokenLoss:
    """Cross-entropy of the next token, with soft targets around coordinates."""

    def __init__(self, spread: float = 4.0):
        tokens = tokenizer.build()
        self.first_ids = [tokens.encode(form).ids[0] for form in ("[0", ", 0")]
        self.offsets = torch.arange(-12, 13)
        self.share = torch.softmax(-0.5 * (self.offsets / spread) ** 2, 0)

    def __call__(self, hidden: Tensor, table: Tensor, target: Tensor) -> tuple[Tensor, dict]:
        """hidden [B, L, WIDTH], embedding table [V, WIDTH], target [B, L]."""
        at = target >= 0
        targets = target[at]
        logits = F.linear(hidden[at], table).float()
        soft_targets = torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)
        number = torch.zeros_like(targets, dtype=torch.bool)
        for first_id in self.first_ids:
            in_range = (targets >= first_id) & (targets <= first_id + tokenizer.LIMIT)
            near = (targets[in_range, None] + self.offsets).clamp(
                first_id, first_id + tokenizer.LIMIT
            )
            soft = torch.zeros(len(near), logits.shape[1])
            soft_targets[in_range] = soft.scatter_add_(1, near, self.share.expand(len(near), -1))
            number |= in_range
        guess = logits.detach().argmax(-1)
        off = (guess - targets)[number].abs().float().clamp_max(500).mean().item() / 1000
        right = (guess == targets)[~number].float().mean().item()
        return F.cross_entropy(logits, soft_targets), dict(token=right, coord=off)
