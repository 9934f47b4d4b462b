"""Training samples: what the model is shown of a scene, a card or a clip, and the truth about it.

The truth goes by merged token, in the order of the prompt: of a clip, pair of frames by pair.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from . import scenes

PATCH, MERGE = 16, 2
CELL = PATCH * MERGE  # pixels per side of one merged token
MIN_PIXELS, MAX_PIXELS = 40 * CELL * CELL, 49 * CELL * CELL  # `size` of the processor: pixel counts
MAX_FRAMES = 16
# `size` of the video processor: pixels of all frames together
MIN_CLIP_PIXELS, MAX_CLIP_PIXELS = 40 * CELL * CELL, MAX_FRAMES * 30 * CELL * CELL
CHARS = scenes.LETTERS + scenes.DIGITS
NO_CHAR = len(CHARS)
_COLOURS = list(scenes.COLOURS)
_LEAST_SHARE = 0.02  # of a cell: less than that is not seen
_UNDER_WAY = 0.04  # an event is to be seen in frames from this share of it to the rest of it


@dataclass
class Sample:
    """`pixels` uint8 [frames, 3, h, w], one frame of a picture; `labels` by name, [N, ...], -1 for
    none. `shapes`, `keys` and `events` are bool [N] each, where they are; `lines` have the token
    and the half of each character; `anchors` are the tokens at the middle of each shape."""

    truth: Any
    pixels: torch.Tensor
    stamps: tuple[str, ...]
    labels: dict[str, np.ndarray]
    shapes: list[np.ndarray] = field(default_factory=list)
    anchors: list[int] = field(default_factory=list)
    lines: list[list[tuple[int, int]]] = field(default_factory=list)
    keys: list[np.ndarray] = field(default_factory=list)
    events: list[np.ndarray] = field(default_factory=list)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of merged tokens of a picture or of a pair of frames."""
        return self.pixels.shape[2] // CELL, self.pixels.shape[3] // CELL


def fit(width: int, height: int) -> tuple[int, int]:
    """The (width, height) the processor resizes to: multiples of 32, FEWEST to MOST pixels.

    Same arithmetic as `smart_resize` of transformers' Qwen2-VL image processor.
    """
    return _fit(width, height, 1, 1, MIN_PIXELS, MAX_PIXELS)


def fit_clip(width: int, height: int, frames: int) -> tuple[int, int]:
    """The same for the frames of a clip: `smart_resize` of the Qwen3-VL video processor."""
    even = 2 * round(frames / 2)
    return _fit(width, height, frames, even, MIN_CLIP_PIXELS, MAX_CLIP_PIXELS)


def _fit(
    width: int, height: int, frames: int, counted: int, least: int, most: int
) -> tuple[int, int]:
    h, w = max(CELL, round(height / CELL) * CELL), max(CELL, round(width / CELL) * CELL)
    if counted * h * w > most:
        beta = (frames * height * width / most) ** 0.5
        h, w = (max(CELL, int(v / beta / CELL) * CELL) for v in (height, width))
    elif counted * h * w < least:
        beta = (least / (frames * height * width)) ** 0.5
        h, w = (int(-(-v * beta // CELL)) * CELL for v in (height, width))
    return w, h


def resize(picture) -> torch.Tensor:
    """PIL picture to uint8 [3, h, w], resized as the processor does (bicubic, antialias)."""
    return resized(np.asarray(picture)[None], fit(*picture.size))[0]


def resized(frames: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """uint8 [frames, H, W, 3] to [frames, 3, h, w]; `size` is (w, h)."""
    pixels = torch.from_numpy(frames.copy()).permute(0, 3, 1, 2)
    return F.interpolate(pixels, size[::-1], mode="bicubic", antialias=True)


def sampled_times(seconds: float, source_rate: float, rate: float = 2.0) -> list[float]:
    """The times of the frames that a model is shown of a clip of `source_rate` frames a second: an
    even number, `rate` a second, spread from the first frame to the last."""
    total = max(4, round(seconds * source_rate))
    number = min(max(int(seconds * rate + 1e-6), 4), MAX_FRAMES, total) // 2 * 2
    return [float(i) / source_rate for i in np.linspace(0, total - 1, number).round().astype(int)]


def stamps(times: Sequence[float]) -> tuple[str, ...]:
    """What stands before each pair of frames, as the processor writes it."""
    return tuple(f"<{(a + b) / 2:.1f} seconds>" for a, b in _pairs(times))


def _pairs(times: Sequence[float]) -> list[tuple[float, float]]:
    even = [*times, times[-1]] if len(times) % 2 else list(times)
    return list(zip(even[::2], even[1::2], strict=True))


def _labels(n: int) -> dict[str, np.ndarray]:
    """Nothing anywhere, on `n` tokens."""
    none = lambda *shape: np.full((n, *shape), -1)  # noqa: E731
    return dict(
        kind=np.zeros(n, np.int64),
        rank=none(),
        shape=none(),
        colour=none(),
        char=np.full((n, 2), NO_CHAR),
        index=none(2),
        line=none(2),
        last=none(3),  # the last shape? the line's last character, in either half?
        box=np.full((n, 6), -1.0, np.float32),
        key=np.zeros(n, np.int64),
        centre=np.zeros(n, np.int64),
        event=np.zeros(n, np.int64),
        colour2=none(),
        order=none(),
        start=np.zeros(n, np.float32),
        stamp=np.zeros(n, np.float32),
    )


class _Grid:
    """The merged tokens of one picture, resized from `size` pixels to `fitted`."""

    def __init__(self, size: tuple[int, int], fitted: tuple[int, int]):
        self.size = size
        self.columns, self.rows = fitted[0] // CELL, fitted[1] // CELL
        self.n = self.columns * self.rows
        self.sx, self.sy = fitted[0] / size[0] / CELL, fitted[1] / size[1] / CELL
        self.left = np.tile(np.arange(self.columns), self.rows)
        self.top = np.repeat(np.arange(self.rows), self.columns)

    def share(self, box) -> np.ndarray:
        """How much of each token a box in pixels covers, [n]."""
        x1, y1, x2, y2 = box[0] * self.sx, box[1] * self.sy, box[2] * self.sx, box[3] * self.sy
        return np.clip(np.minimum(self.left + 1, x2) - np.maximum(self.left, x1), 0, 1) * np.clip(
            np.minimum(self.top + 1, y2) - np.maximum(self.top, y1), 0, 1
        )

    def cell(self, x: float, y: float) -> int:
        """The token at a point."""
        column = max(0, min(self.columns - 1, int(x * self.sx)))
        return max(0, min(self.rows - 1, int(y * self.sy))) * self.columns + column

    def flat(self, box) -> tuple[float, ...]:
        """A box and its middle, 0 to 1."""
        width, height = self.size
        x1, y1, x2, y2 = box[0] / width, box[1] / height, box[2] / width, box[3] / height
        return x1, y1, x2, y2, (x1 + x2) / 2, (y1 + y2) / 2


def _covered(share: np.ndarray) -> np.ndarray:
    return share >= min(0.45, share.max() * 0.9)


def _put_line(grid: _Grid, labels: dict, line: scenes.Line, k: int) -> list[tuple[int, int]]:
    """Labels the tokens of the characters of a line; they are returned."""
    cells = []
    for c, (x, y) in enumerate(line.centres):
        half = min(2 * grid.columns - 1, int(2 * x * grid.sx))
        cell = min(grid.rows - 1, int(y * grid.sy)) * grid.columns + half // 2
        labels["kind"][cell] = 2
        labels["char"][cell, half % 2] = CHARS.index(line.text[c])
        labels["index"][cell, half % 2], labels["line"][cell, half % 2] = c, k
        labels["last"][cell, 1 + half % 2] = c == len(line.text) - 1
        labels["box"][cell] = grid.flat(line.box)
        cells.append((cell, half % 2))
    return cells


def of_scene(scene: scenes.Scene) -> Sample:
    """A picture of shapes and lines."""
    grid = _Grid(scene.picture.size, fit(*scene.picture.size))
    sample = Sample(scene, resize(scene.picture)[None], (), _labels(grid.n))
    labels = sample.labels
    for k, item in enumerate(scene.shapes):
        covered, anchor = _covered(grid.share(item.box)), grid.cell(*item.centre)
        labels["kind"][covered], labels["rank"][covered] = 1, k
        labels["last"][covered, 0] = k == len(scene.shapes) - 1
        labels["shape"][covered] = scenes.SHAPES.index(item.kind)
        labels["colour"][covered] = _COLOURS.index(item.colour)
        labels["box"][covered] = grid.flat(item.box)
        labels["centre"][anchor] = 1
        sample.shapes.append(covered)
        sample.anchors.append(anchor)
    sample.lines = [_put_line(grid, labels, line, k) for k, line in enumerate(scene.lines)]
    return sample


def of_card(card: scenes.Card) -> Sample:
    """A card: its values are lines, its keys are seen as words."""
    grid = _Grid(card.picture.size, fit(*card.picture.size))
    sample = Sample(card, resize(card.picture)[None], (), _labels(grid.n))
    for k, item in enumerate(card.fields):
        covered = grid.share(item.label.box) > 0
        x1, y1, _, y2 = item.label.box
        row = grid.cell(x1, (y1 + y2) / 2) // grid.columns
        covered &= grid.top == row
        sample.labels["kind"][covered] = 3
        sample.labels["key"][covered] = 1 + scenes.CARD_KEYS.index(item.key)
        sample.labels["line"][covered] = k
        sample.lines.append(_put_line(grid, sample.labels, item.line, k))
        sample.keys.append(covered)
    return sample


def of_clip(clip: scenes.Clip, times: Sequence[float]) -> Sample:
    """A clip, of which the frames at `times` are shown."""
    fitted = fit_clip(*clip.size, len(times))
    grid, pairs = _Grid(clip.size, fitted), _pairs(times)
    frames = resized(clip.frames(times), fitted)
    if len(frames) % 2:
        frames = torch.cat((frames, frames[-1:]))
    n = grid.n
    sample = Sample(clip, frames, stamps(times), _labels(n * len(pairs)))
    sample.events = [np.zeros(n * len(pairs), bool) for _ in clip.events]
    sample.shapes = [np.zeros(n * len(pairs), bool) for _ in clip.actors]
    for p, pair in enumerate(pairs):
        part = {name: values[p * n : (p + 1) * n] for name, values in sample.labels.items()}
        part["stamp"][:] = sum(pair) / 2
        for index in range(len(clip.actors)):
            _put_actor(sample, grid, part, index, p, pair)
    return sample


def _put_actor(sample: Sample, grid: _Grid, part: dict, index: int, p: int, pair) -> None:
    """Labels the tokens of one actor in one pair of frames."""
    clip = sample.truth
    places = [place for time in pair if (place := clip.place(index, time))]
    share = np.max([grid.share(place) for place in places] or [np.zeros(grid.n)], 0)
    if share.max() < _LEAST_SHARE:
        return
    covered = _covered(share)
    here = slice(p * grid.n, (p + 1) * grid.n)
    actor = clip.actors[index]
    colour = actor.shape.colour
    part["kind"][covered], part["shape"][covered] = 1, scenes.SHAPES.index(actor.shape.kind)
    if len(set(places)) == 1 and places[0] == actor.shape.box:
        part["box"][covered] = grid.flat(actor.shape.box)
    for k, event in enumerate(clip.events):
        if event.actor != index:
            continue
        done = [event.progress(time) for time in pair]
        if event.verb == "turns" and done[0] >= 1 - _UNDER_WAY:
            colour = event.colour
        if any(_UNDER_WAY <= share <= 1 - _UNDER_WAY for share in done) or done == [0, 1]:
            part["event"][covered] = 1 + scenes.VERBS.index(event.verb)
            part["order"][covered], part["start"][covered] = k, event.start
            if event.verb == "turns":
                part["colour2"][covered] = _COLOURS.index(event.colour)
            sample.events[k][here] |= covered
    part["colour"][covered] = _COLOURS.index(colour)
    sample.shapes[index][here] |= covered
