"""What training asks besides the next token: to see, to look at the right place, to count.

The helpers here are linear heads that live only during training; the
checkpoint does not contain them. Being linear, they make the model keep what
it knows in a form that attention can carry.
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
    """Linear readings of merged tokens with deepstack, of merged tokens alone, of text."""

    def __init__(self):
        super().__init__()
        self.sight = nn.Linear(WIDTH, sum(SIZES.values()))
        self.first = nn.Linear(WIDTH, sum(SIZES[k] for k in ("kind", "rank", "shape", "colour")))
        self.last = nn.Linear(WIDTH, 6)  # so that a list can end: yes or no, three times
        self.next = nn.Linear(WIDTH, INDEXES + LINES + RANKS)


def _choice(logits: Tensor, target: Tensor, weight=None) -> Tensor:
    """Cross-entropy over the last axis, where target is not -1."""
    return F.cross_entropy(logits.flatten(0, -2).float(), target.flatten(), weight, ignore_index=-1)


def _share(logits: Tensor, target: Tensor) -> float:
    known = target >= 0
    return (logits.argmax(-1) == target)[known].float().mean().item()


def _split(joined: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """The named readings out of one joined linear output."""
    return dict(zip(names, joined.split([SIZES[n] for n in names], -1), strict=True))


def seeing(
    heads: Heads, first: Tensor, both: Tensor, seen: dict, boxes: float
) -> tuple[Tensor, dict]:
    """Loss of the readings from merged tokens [B, N, WIDTH], and shares that are right."""
    out = _split(heads.sight(both), tuple(SIZES))
    early = ("kind", "rank", "shape", "colour")
    again = _split(heads.first(first), early)
    rare = torch.ones(NO_CHAR + 1, dtype=torch.float32)
    rare[NO_CHAR] = 0.2  # most halves hold no character
    char = out["char"].unflatten(-1, (2, -1))
    index, line = out["index"].unflatten(-1, (2, -1)), out["line"].unflatten(-1, (2, -1))
    loss = (
        4 * _choice(char, seen["char"], rare)
        + 0.5 * _choice(index, seen["index"])
        + 0.5 * _choice(line, seen["line"])
    )
    for name in early:
        loss = loss + 0.3 * (_choice(out[name], seen[name]) + _choice(again[name], seen[name]))
    last = heads.last(both).unflatten(-1, (3, 2))
    loss = loss + _choice(last, seen["last"])
    known = seen["kind"] > 0
    spelled = out["box"][known].unflatten(-1, (6, -1)).float()
    truth = seen["box"][known]
    # Slow waves first: fast ones cannot be told before the slow ones say which period it is.
    error = (spelled - waves(truth)).square().mean((0, 1)).view(2, -1).mean(0)
    loss = loss + boxes * (error * SLOWNESS).mean()
    with torch.no_grad():
        held = seen["char"] != NO_CHAR
        grid = waves(torch.linspace(0, 1, 501))
        off = ((spelled[:64] @ grid.T).argmax(-1) / 500 - truth[:64]).abs()
        figures = dict(
            char=(char.argmax(-1) == seen["char"])[held].float().mean().item(),
            blank=(char.argmax(-1) == seen["char"])[~held].float().mean().item(),
            index=_share(index, seen["index"]),
            line=_share(line, seen["line"]),
            shape=_share(out["shape"], seen["shape"]),
            colour=_share(out["colour"], seen["colour"]),
            rank=_share(out["rank"], seen["rank"]),
            last=_share(last, seen["last"]),
            off=off.mean().item(),
            waves=error[5].item(),
        )
    return loss, figures


def looking(weights: dict, batch: Batch, n: int) -> tuple[Tensor, dict]:
    """Loss of the watched attention [B, heads, L, L].

    Each role's head looks at its cells, and all other heads away from the picture.
    """
    early, late = (w[..., batch.start : batch.start + n] for _, w in sorted(weights.items()))
    tiny = 1e-5
    role = batch.role
    at = (role >= 0) & (role < len(ROLES))
    b, where = at.nonzero(as_tuple=True)
    mass = (late[b, role[at], where] * batch.cells[at]).sum(-1)
    loss = -(mass + tiny).log().mean()
    away = 1 - late.sum(-1)  # [B, heads, L]
    number = torch.arange(len(ROLES))
    idle = (role[:, None] >= 0) & (role[:, None] != number[:, None]) & (number[:, None] != LOOK)
    idle[:, LOOK] = role == STOP
    loss = loss - (away[idle].clamp_min(0) + tiny).log().mean()
    on = batch.about_on
    some = batch.about.any(-1)
    meant = torch.where(some, (early[:, 0] * batch.about).sum(-1), 1 - early[:, 0].sum(-1))[on]
    loss = loss - (meant.clamp_min(0) + tiny).log().mean()
    return loss, dict(
        look=mass.mean().item(), away=away[idle].mean().item(), meant=meant.mean().item()
    )


def counting(heads: Heads, state: Tensor, batch: Batch) -> Tensor:
    """Loss of reading off the text state [B, L, WIDTH] the next character index, line, shape."""
    known = (batch.upcoming >= 0).any(-1)
    parts = heads.next(state[known]).split([INDEXES, LINES, RANKS], -1)
    return sum(
        _choice(part, batch.upcoming[known][:, k])
        for k, part in enumerate(parts)
        if (batch.upcoming[known][:, k] >= 0).any()
    )


class Speaking:
    """Cross-entropy of the next token; a coordinate's neighbours get a share."""

    def __init__(self, spread: float = 4.0):
        tokens = tokenizer.build()
        self.begins = [tokens.encode(form).ids[0] for form in ("[0", ", 0")]
        self.offsets = torch.arange(-12, 13)
        self.share = torch.softmax(-0.5 * (self.offsets / spread) ** 2, 0)

    def __call__(self, hidden: Tensor, table: Tensor, target: Tensor) -> tuple[Tensor, dict]:
        """hidden [B, L, WIDTH], embedding table [V, WIDTH], target [B, L]."""
        at = target >= 0
        want = target[at]
        logits = F.linear(hidden[at], table).float()
        hoped = torch.zeros_like(logits).scatter_(1, want[:, None], 1.0)
        number = torch.zeros_like(want, dtype=torch.bool)
        for begin in self.begins:
            mine = (want >= begin) & (want <= begin + tokenizer.LIMIT)
            near = (want[mine, None] + self.offsets).clamp(begin, begin + tokenizer.LIMIT)
            soft = torch.zeros(len(near), logits.shape[1])
            hoped[mine] = soft.scatter_add_(1, near, self.share.expand(len(near), -1))
            number |= mine
        guess = logits.detach().argmax(-1)
        off = (guess - want)[number].abs().float().clamp_max(500).mean().item() / 1000
        right = (guess == want)[~number].float().mean().item()
        return F.cross_entropy(logits, hoped), dict(token=right, coord=off)
