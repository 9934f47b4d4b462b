"""Losses: next token, labels of image tokens, attention supervision, and the next item's index.

The linear heads here exist only during training; the checkpoint does not
contain them. Because they are linear, they make the model keep its knowledge
in a form that attention can carry.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import clip_questions, scenes, tokenizer
from .batches import ROLES, STOP, TIMES, Batch
from .config import WAVES, WIDTH, waves
from .samples import NO_CHAR

INDEXES, LINES, RANKS, EVENTS = 10, 4, 8, 3  # most characters of a line, lines, shapes, events
SLOWNESS = (3, 3, 3, 2.5, 2, 1.5, 0.5, 0)  # weights of the waves
LOOK = ROLES.index("look")
EPSILON = 1e-5
BOX_WAVES, TIME_WAVES = 6 * 2 * len(WAVES), 2 * len(WAVES)
SIZES = dict(
    kind=4,
    rank=RANKS,
    shape=len(scenes.SHAPES),
    colour=len(scenes.COLOURS),
    char=2 * (NO_CHAR + 1),
    index=2 * INDEXES,
    line=2 * LINES,
    box=BOX_WAVES,
    key=1 + len(scenes.CARD_KEYS),
    centre=2,
    event=1 + len(scenes.VERBS),
    colour2=len(scenes.COLOURS),
    since=TIME_WAVES,
)
EARLY = ("kind", "rank", "shape", "colour", "key", "centre", "event", "colour2")
RARE = ("key", "centre", "event")  # most tokens have none of them
SINCE = 4.0  # seconds: the time from an event's start to a pair of frames is spelled in this range


class Heads(nn.Module):
    """Linear probes of merged tokens with deepstack, of merged tokens alone, and of text states."""

    def __init__(self):
        super().__init__()
        self.sight = nn.Linear(WIDTH, sum(SIZES.values()))
        self.first = nn.Linear(WIDTH, sum(SIZES[k] for k in EARLY))
        self.last = nn.Linear(WIDTH, 6)  # is it the last one: yes or no, three times
        self.next = nn.Linear(WIDTH, INDEXES + LINES + RANKS + EVENTS)
        self.stamp = nn.Linear(WIDTH, TIME_WAVES)  # of a pair of frames
        self.order = nn.Linear(WIDTH, EVENTS)  # which event is under way
        self.start = nn.Linear(WIDTH, TIME_WAVES)  # when it started
        class_weights = torch.ones(NO_CHAR + 1)
        class_weights[NO_CHAR] = 0.2  # most halves hold no character
        for name in RARE:
            rare = torch.ones(SIZES[name])
            rare[0] = 0.15
            self.register_buffer(f"{name}_weights", rare, persistent=False)
        self.register_buffer("char_weights", class_weights, persistent=False)
        self.register_buffer("slowness", torch.tensor(SLOWNESS), persistent=False)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of the values where the mask is true; 0 where it nowhere is."""
    return (values.float() * mask).sum() / mask.sum().clamp_min(1)


def _cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy over the last axis, where target is not -1; 0 where it nowhere is."""
    flat, known = target.flatten(), target.flatten() >= 0
    weight = None if weight is None else weight.float()
    each = F.cross_entropy(
        logits.flatten(0, -2).float(), flat, weight, ignore_index=-1, reduction="none"
    )
    share = known.float() if weight is None else weight[flat.clamp_min(0)] * known
    return each.sum() / share.sum().clamp_min(1)


def _accuracy(logits: Tensor, target: Tensor) -> Tensor:
    return _rate(logits.argmax(-1) == target, target >= 0)


def _rate(right: Tensor, known: Tensor) -> Tensor:
    """The share of what is right; NaN where nothing is known."""
    return (right & known).sum() / known.sum()


def _split(joined: Tensor, names: tuple[str, ...]) -> dict[str, Tensor]:
    """Splits the joint output of a linear head by name."""
    return dict(zip(names, joined.split([SIZES[n] for n in names], -1), strict=True))


def _wave_loss(heads: Heads, predicted: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Loss of spelled numbers [..., values, 2 * len(WAVES)] against `truth` [..., values].

    Low frequencies weigh more: high ones are ambiguous until the low ones give the period."""
    error = (predicted.float() - waves(truth)).square().unflatten(-1, (2, -1)).mean(-2)
    weighted = (error * heads.slowness.float()).mean(-1)
    return _mean(weighted, known[..., None].expand_as(weighted))


def _off(predicted: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """How far numbers are off, of the first few."""
    grid = waves(torch.linspace(0, 1, 501, device=truth.device))
    at = known.flatten().nonzero()[:256, 0]
    some = predicted.flatten(0, -3)[at].float(), truth.flatten(0, -2)[at]
    return ((some[0] @ grid.T).argmax(-1) / 500 - some[1]).abs().mean()


def vision_loss(
    heads: Heads, first: Tensor, both: Tensor, labels: dict, boxes: float
) -> tuple[Tensor, dict]:
    """Loss of the heads on merged tokens [B, N, WIDTH], and their accuracies."""
    out = _split(heads.sight(both), tuple(SIZES))
    from_first = _split(heads.first(first), EARLY)
    char = out["char"].unflatten(-1, (2, -1))
    index, line = out["index"].unflatten(-1, (2, -1)), out["line"].unflatten(-1, (2, -1))
    loss = (
        4 * _cross_entropy(char, labels["char"], heads.char_weights)
        + 0.5 * _cross_entropy(index, labels["index"])
        + 0.5 * _cross_entropy(line, labels["line"])
    )
    for name in EARLY:
        weights = getattr(heads, f"{name}_weights") if name in RARE else None
        for said in (out, from_first):
            share = 1.0 if name in RARE else 0.3
            loss = loss + share * _cross_entropy(said[name], labels[name], weights)
    last = heads.last(both).unflatten(-1, (3, 2))
    loss = loss + _cross_entropy(last, labels["last"])
    box, known = out["box"].unflatten(-1, (6, -1)), labels["box"][..., 0] >= 0
    loss = loss + boxes * _wave_loss(heads, box, labels["box"], known)
    event = labels["event"] > 0
    since = ((labels["stamp"] - labels["start"]) / SINCE + 0.5).clamp(0, 1)[..., None]
    passed = out["since"].unflatten(-1, (1, -1))
    loss = loss + boxes * _wave_loss(heads, passed, since, event)
    with torch.no_grad():
        has_char = labels["char"] != NO_CHAR
        figures = dict(
            char=_rate(char.argmax(-1) == labels["char"], has_char),
            blank=_rate(char.argmax(-1) == labels["char"], ~has_char),
            index=_accuracy(index, labels["index"]),
            line=_accuracy(line, labels["line"]),
            shape=_accuracy(out["shape"], labels["shape"]),
            colour=_accuracy(out["colour"], labels["colour"]),
            rank=_accuracy(out["rank"], labels["rank"]),
            last=_accuracy(last, labels["last"]),
            key=_rate(out["key"].argmax(-1) == labels["key"], labels["key"] > 0),
            centre=_rate(out["centre"].argmax(-1) == labels["centre"], labels["centre"] > 0),
            event=_rate(out["event"].argmax(-1) == labels["event"], event),
            colour2=_accuracy(out["colour2"], labels["colour2"]),
            off=_off(box, labels["box"], known),
            since=_off(passed, since, event) * SINCE,
        )
    return loss, figures


def time_loss(heads: Heads, states: list[Tensor], batch: Batch) -> tuple[Tensor, dict]:
    """Loss of the heads on the text states of a clip's tokens: the time of each pair of frames
    early, then which event is under way, then when it started."""
    labels = batch.labels
    early, middle, late = (state[:, batch.places] for state in states[:3])
    event, everywhere = labels["event"] > 0, torch.ones_like(labels["event"], dtype=torch.bool)
    stamp = (labels["stamp"] / clip_questions.LONGEST)[..., None]
    start = (labels["start"] / clip_questions.LONGEST)[..., None]
    said = heads.start(late).unflatten(-1, (1, -1))
    order = heads.order(middle)
    loss = _cross_entropy(order, labels["order"])
    loss = loss + 5 * _wave_loss(
        heads, heads.stamp(early).unflatten(-1, (1, -1)), stamp, everywhere
    )
    loss = loss + 15 * _wave_loss(heads, said, start, event)
    with torch.no_grad():
        off = _off(said, start, event) * clip_questions.LONGEST
    return loss, dict(order=_accuracy(order, labels["order"]), start=off)


def _role_mass(late: Tensor, role: Tensor, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Attention [B, heads, L, N] of each role's head to its cells [B, L, N]; where it counts."""
    on = (role >= 0) & (role < late.shape[1]) & cells.any(-1)
    index = role.clamp(0, late.shape[1] - 1)[:, None, :, None].expand(-1, 1, -1, late.shape[-1])
    return (late.gather(1, index)[:, 0] * cells).sum(-1), on


def attention_loss(weights: dict, batch: Batch) -> tuple[Tensor, dict]:
    """Loss of the supervised attention [B, heads, L, L].

    Each role's head attends to its cells, and all other heads away from the picture. One head that
    counts divides itself between the things and the token before the picture.
    """
    whole = [w for _, w in sorted(weights.items())]
    early, late, last = (w[..., batch.places] for w in whole)
    role = batch.role
    mass, on = _role_mass(late, role, batch.cells)
    loss = -_mean((mass + EPSILON).log(), on)
    away = (1 - late.sum(-1)).clamp_min(0)  # [B, heads, L]
    number = torch.arange(len(ROLES), device=role.device)
    timed = (batch.time >= 0)[:, None]
    idle = (role[:, None] >= 0) & (role[:, None] != number[:, None]) & (number[:, None] != LOOK)
    idle = idle & ~timed & ~batch.counting[:, None]
    look_only = torch.zeros_like(idle)
    look_only[:, LOOK] = role == STOP
    idle = torch.where(number[:, None] == LOOK, look_only, idle)
    loss = loss - _mean((away + EPSILON).log(), idle)
    head = early[:, 0]
    about_mass = torch.where(
        batch.about.any(-1), (head * batch.about).sum(-1), 1 - head.sum(-1)
    ).clamp_min(0)
    loss = loss - _mean((about_mass + EPSILON).log(), batch.about_on)
    sink = whole[0][:, 1].index_select(-1, batch.places[:1] - 1)[..., 0]
    each = (early[:, 1] + EPSILON).log() * batch.about
    share = 1 / (1 + batch.about.sum(-1))
    loss = loss - _mean((each.sum(-1) + (sink + EPSILON).log()) * share, batch.counting)
    times, timed_on = _role_mass(last[:, : len(TIMES)], batch.time, batch.cells)
    loss = loss - _mean((times + EPSILON).log(), timed_on)
    return loss, dict(
        look=_mean(mass.detach(), on),
        away=_mean(away.detach(), idle),
        about_mass=_mean(about_mass.detach(), batch.about_on),
        time_mass=_mean(times.detach(), timed_on),
    )


def next_item_loss(heads: Heads, state: Tensor, batch: Batch) -> Tensor:
    """Loss of predicting the next character, line, shape, event from text states [B, L, WIDTH]."""
    parts = heads.next(state).split([INDEXES, LINES, RANKS, EVENTS], -1)
    return sum(_cross_entropy(part, batch.upcoming[..., k]) for k, part in enumerate(parts))


class TokenLoss:
    """Cross-entropy of the next token, with soft targets around coordinates and times."""

    def __init__(self, device: torch.device, spread: float = 4.0, time_spread: float = 0.7):
        tokens = tokenizer.build()
        size = tokens.get_vocab_size()
        self.offsets = torch.arange(-12, 13, device=device)
        spreads = torch.tensor([[spread], [time_spread]], device=device)
        self.shares = torch.softmax(-0.5 * (self.offsets / spreads) ** 2, -1)
        # The tokens between which the neighbours of each token lie: of any other, itself.
        self.low = torch.arange(size, device=device)
        self.high = self.low.clone()
        self.is_time = torch.zeros(size, dtype=torch.bool, device=device)
        self.is_number = torch.zeros(size, dtype=torch.bool, device=device)
        times = tokenizer.times()
        for first, number in (("[0", 1001), (", 0", 1001), (times[0], len(times))):
            at = tokens.encode(first).ids[0]
            self.low[at : at + number], self.high[at : at + number] = at, at + number - 1
            self.is_number[at : at + number] = True
            self.is_time[at : at + number] = first == times[0]

    def __call__(self, hidden: Tensor, table: Tensor, target: Tensor) -> tuple[Tensor, dict]:
        """hidden [B, L, WIDTH], embedding table [V, WIDTH], target [B, L]."""
        at = target >= 0
        targets = target[at]
        logits = F.linear(hidden[at], table).float().log_softmax(-1)
        near = targets[:, None] + self.offsets
        near = near.clamp(self.low[targets][:, None], self.high[targets][:, None])
        time = self.is_time[targets]
        loss = -(logits.gather(1, near) * self.shares[time.long()]).sum(-1).mean()
        guess, number = logits.detach().argmax(-1), self.is_number[targets]
        off = (guess - targets).abs().float()
        return loss, dict(
            token=_rate(guess == targets, ~number),
            coord=_mean(off.clamp_max(500), number & ~time) / 1000,
            time=_rate(off <= 2, time),
        )
