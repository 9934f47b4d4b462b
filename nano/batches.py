"""Training batches: packed questions about pictures or clips, and labels for attention supervision.

A batch holds pictures of one grid only, or clips of one grid and length, so that no picture needs
padding. All questions about a picture are packed into one sequence: the picture comes first, and
each conversation attends to the picture and itself alone, at the positions it would have as the
only one. So each picture is encoded once and every conversation is exactly as if alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from . import (
    card_questions,
    clip_questions,
    conversations,
    questions,
    samples,
    scenes,
    tokenizer,
)

ROLES = (
    "char_left",
    "char_right",
    "x1",
    "y1",
    "x2",
    "y2",
    "look",
    "point",
)  # one attention head each
TIMES = ("start", "end")  # the same, in the last layer
STOP = len(ROLES) + 1  # the role of what ends a list
PICTURES = (
    *("shapes", "text", "text", "mixed", "mixed"),
    *("look-alikes", "count", "count", "card", "card"),
)
SOURCE_RATES = (8, 10, 12, 15, 24, 25, 30)  # frames a second of the files that clips stand for


@dataclass
class Batch:
    """B pictures of one grid, or clips of as many pairs, of N merged tokens each, and sequences of
    L tokens."""

    pixels: torch.Tensor  # uint8 [B, frames, 3, 32 rows, 32 columns]
    labels: dict  # labels of each merged token, [B, N, ...]; -1 where there is none
    ids: torch.Tensor  # [B, L]; the picture's tokens hold <|image_pad|> or <|video_pad|>
    turn: torch.Tensor  # [B, L] 0 for the shared prefix, 1.. for conversations, -1 for padding
    positions: torch.Tensor  # [3, B, L]: M-RoPE's time, row, column
    places: torch.Tensor  # [N] where the picture's tokens are in a sequence
    target: torch.Tensor  # [B, L] the next token where it is to be learnt, else -100
    role: torch.Tensor  # [B, L] index in ROLES, -1 unsupervised, len(ROLES) no role, or STOP
    time: torch.Tensor  # [B, L] index in TIMES or -1
    cells: torch.Tensor  # bool [B, L, N] the picture tokens that the role attends to
    about: torch.Tensor  # bool [B, L, N] all shapes the answer is about, at joints
    about_on: torch.Tensor  # bool [B, L]
    counting: torch.Tensor  # bool [B, L]: there `about` holds one token of each thing to count
    upcoming: torch.Tensor  # [B, L, 4] next character, line, shape, event; -1 unknown

    def to(self, device: torch.device) -> Batch:
        """The batch on another device."""
        moved = {
            f.name: getattr(self, f.name).to(device, non_blocking=True)
            for f in fields(self)
            if f.name != "labels"
        }
        labels = {k: v.to(device, non_blocking=True) for k, v in self.labels.items()}
        return Batch(labels=labels, **moved)


class Packer:
    """Samples to sequences. One per process; `ids` caches the tokens of each piece."""

    def __init__(self, tokens=None):
        self.tokens = tokens or tokenizer.build()
        self.cache: dict[str, list[int]] = {}
        token = self.tokens.token_to_id
        self.pad, self.image, self.video = (
            token(f"<|{name}|>") for name in ("endoftext", "image_pad", "video_pad")
        )

    def ids(self, text: str) -> list[int]:
        if text not in self.cache:
            self.cache[text] = self.tokens.encode(text).ids
        return self.cache[text]

    def prefix(
        self, system: str, sample: samples.Sample, wrapped: bool
    ) -> tuple[list[int], np.ndarray, list[int], int]:
        """Tokens up to and including the last <|vision_end|>, their positions [3, tokens], where
        the picture's tokens are, and the position of what follows. `wrapped`: the whole clip
        stands between <|vision_start|> and <|vision_end|> too, as newer processors leave it."""
        head = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
        rows, columns = sample.grid
        n = rows * columns
        ids: list[int] = []
        places: list[int] = []
        positions: list[np.ndarray] = []
        at = 0

        def text(tokens: list[int]) -> None:
            nonlocal at
            ids.extend(tokens)
            positions.append(np.tile(np.arange(at, at + len(tokens)), (3, 1)))
            at += len(tokens)

        outer = ("<|vision_start|>", "<|vision_end|>") if wrapped and sample.stamps else ("", "")
        text(self.ids(head + "<|im_start|>user\n" + outer[0]))
        for stamp in sample.stamps or ("",):
            text(self.ids(stamp + "<|vision_start|>"))
            places += range(len(ids), len(ids) + n)
            ids += [self.video if sample.stamps else self.image] * n
            row, column = np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)
            positions.append(at + np.stack((np.zeros(n, int), row, column)))
            at += max(rows, columns)  # a picture advances the position by its longer side
            text(self.ids("<|vision_end|>"))
        text(self.ids(outer[1]))
        return ids, np.concatenate(positions, 1), places, at

    def sequence(self, sample: samples.Sample, turns: Sequence, system: str, wrapped: bool) -> dict:
        """One sample's sequence as arrays, see Batch."""
        ids, positions, places, after = self.prefix(system, sample, wrapped)
        writer = _Writer(self, sample, ids)
        length = len(ids)
        for number, item in enumerate(turns, 1):
            begin = len(writer.ids)
            while item is not None:
                writer.put(item)
                item = item.then
                if item is not None:
                    writer.plain("<|im_end|>\n<|im_start|>user\n", learnt=1)
            writer.turn += [number] * (len(writer.ids) - begin)
            count = np.arange(after, after + len(writer.ids) - begin)
            positions = np.concatenate((positions, np.tile(count, (3, 1))), 1)
        assert len(writer.ids) == len(writer.turn) == positions.shape[1] > length
        return dict(
            ids=writer.ids,
            turn=writer.turn,
            target=writer.target,
            role=writer.role,
            time=writer.time,
            notes=writer.notes,
            positions=positions,
            places=places,
            labels=sample.labels,
        )

    def collate(
        self,
        drawn: Sequence[samples.Sample],
        turns: Sequence,
        system: str = "",
        wrapped: bool = False,
    ) -> Batch:
        """Samples of one grid with the turns of each to a Batch; see `prefix`."""
        rows = [self.sequence(s, t, system, wrapped) for s, t in zip(drawn, turns, strict=True)]
        longest, n = max(len(r["ids"]) for r in rows), len(rows[0]["places"])
        longest += -longest % 8  # as attention kernels like it
        shape = len(rows), longest
        fills = (("ids", self.pad), ("turn", -1), ("target", -100), ("role", -1), ("time", -1))
        out = {name: np.full(shape, fill) for name, fill in fills}
        cells, about = (np.zeros((*shape, n), bool) for _ in range(2))
        about_on, counting = (np.zeros(shape, bool) for _ in range(2))
        upcoming, positions = np.full((*shape, 4), -1), np.zeros((3, *shape), np.int64)
        for k, row in enumerate(rows):
            for name in out:
                out[name][k, : len(row[name])] = row[name]
            positions[:, k, : len(row["ids"])] = row["positions"]
            for at, its_cells, its_about, counts, next_item in row["notes"]:
                cells[k, at], upcoming[k, at] = its_cells, next_item
                if its_about is not None:
                    about[k, at], about_on[k, at], counting[k, at] = its_about, not counts, counts
        out |= dict(
            cells=cells, about=about, about_on=about_on, counting=counting, upcoming=upcoming,
            positions=positions, places=np.array(rows[0]["places"]),
        )  # fmt: skip
        labels = {
            name: torch.from_numpy(np.stack([r["labels"][name] for r in rows]))
            for name in rows[0]["labels"]
        }
        arrays = {name: torch.from_numpy(value) for name, value in out.items()}
        return Batch(torch.stack([s.pixels for s in drawn]), labels, **arrays)


class _Writer:
    """The sequence of one sample as it grows."""

    def __init__(self, packer: Packer, sample: samples.Sample, ids: list[int]):
        self.packer, self.sample, self.ids = packer, sample, ids
        self.n = len(sample.labels["kind"])
        self.turn, self.target = [0] * len(ids), [-100] * len(ids)
        self.role, self.time = [-1] * len(ids), [-1] * len(ids)
        self.notes: list[tuple] = []  # (position, cells, about or None, counting, upcoming)

    def plain(self, text: str, learnt: int = 0) -> None:
        """Text of which only the first `learnt` tokens are learnt."""
        for j, token in enumerate(self.packer.ids(text)):
            self._add(token, learnt=j < learnt)

    def put(self, item: questions.Turn) -> None:
        """A question and its answer, up to but not including what ends the answer's turn, which is
        learnt."""
        self.plain(f"{item.question}<|im_end|>\n<|im_start|>assistant\n")
        for piece in item.pieces:
            self._put_piece(item, piece)
        end = questions.Piece("<|im_end|>", "stop" if item.kind == "read" else "")
        self._note(item, end)
        if item.then is None:  # nothing follows: only what comes next is learnt
            self.target[-1] = self.packer.ids(end.text)[0]

    def _put_piece(self, item: questions.Turn, piece: questions.Piece) -> None:
        self._note(item, piece)
        for token in self.packer.ids(piece.text):
            self._add(token, learnt=True)

    def _add(self, token: int, learnt: bool) -> None:
        if learnt:
            self.target[-1] = token
            if self.role[-1] < 0:
                self.role[-1] = len(ROLES)
        self.ids.append(token)
        self.target.append(-100)
        self.role.append(-1)
        self.time.append(-1)

    def _note(self, item: questions.Turn, piece: questions.Piece) -> None:
        """What is looked at before the first token of `piece`."""
        cells, role, upcoming = np.zeros(self.n, bool), len(ROLES), [-1, -1, -1, -1]
        if piece.role == "stop":
            role = STOP
        elif piece.role == "char":
            _, k, c = piece.aim
            cell, half = self.sample.lines[k][c]
            cells[cell], role, upcoming = True, half, [c, k, -1, -1]
        elif piece.role == "count":
            for k in item.about or ():
                cells[self.sample.anchors[k]] = True
            self.role[-1] = role
            self.notes.append((len(self.ids) - 1, np.zeros(self.n, bool), cells, True, upcoming))
            return
        elif piece.role:
            cells, upcoming = self._aim(piece.aim)
            if piece.role in TIMES:
                self.time[-1] = TIMES.index(piece.role)
            else:
                role = ROLES.index(piece.role)
        self.role[-1] = role
        about = self._about(item, piece)
        self.notes.append((len(self.ids) - 1, cells, about, False, upcoming))

    def _aim(self, aim: tuple) -> tuple[np.ndarray, list[int]]:
        """The tokens of what is looked at, and its index as shape, line or event."""
        kind, k = aim
        if kind == "shape":
            return self.sample.shapes[k], [-1, -1, k, -1]
        if kind == "event":
            return self.sample.events[k], [-1, -1, -1, k]
        if kind == "key":
            return self.sample.keys[k], [-1, k, -1, -1]
        cells = np.zeros(self.n, bool)
        cells[[cell for cell, _ in self.sample.lines[k]]] = True
        return cells, [-1, k, -1, -1]

    def _about(self, item: questions.Turn, piece: questions.Piece) -> np.ndarray | None:
        if piece.about is not None:
            return self._aim(piece.about)[0] if piece.about else np.zeros(self.n, bool)
        if item.about is None or piece.role not in ("look", "stop", ""):
            return None
        things = self.sample.events if self.sample.stamps else self.sample.shapes
        about = np.zeros(self.n, bool)
        for k in item.about:
            about |= things[k]
        return about


def make(
    packer: Packer, seed: str, size: int, number: int, kinds: tuple[str, ...] = PICTURES
) -> Batch:
    """The batch of this seed: `size` pictures of one grid, with `number` questions each."""
    rng = random.Random(f"nano batch {seed}")
    system = rng.choice(tokenizer.SYSTEMS) if rng.random() < 0.2 else ""
    grid = samples.fit(*scenes.picture_size(rng))
    drawn, turns = [], []
    while len(drawn) < size:
        picture = scenes.picture_size(rng)
        if samples.fit(*picture) == grid:
            sample, asked = _picture(f"train {seed} {len(drawn)}", picture, rng, number, kinds)
            drawn.append(sample)
            turns.append(asked)
    return packer.collate(drawn, turns, system)


def _picture(
    seed: str, size: tuple[int, int], rng: random.Random, number: int, kinds: tuple[str, ...]
) -> tuple[samples.Sample, list]:
    """A picture of one of the kinds, with its questions."""
    kind = rng.choice(kinds)
    if kind == "card" and size[0] >= 1.1 * size[1]:
        card = scenes.draw_card(seed, size)
        return samples.of_card(card), card_questions.turns(card, rng, number)
    if kind in ("count", "look-alikes"):
        group = (scenes.draw_count if kind == "count" else scenes.draw_look_alikes)(seed, size)
        return samples.of_scene(group.scene), conversations.group_turns(group, rng, number)
    scene = scenes.draw(seed, kind if kind != "card" else "mixed", size)
    return samples.of_scene(scene), conversations.turns(scene, rng, number)


def make_clips(packer: Packer, seed: str, size: int, number: int) -> Batch:
    """The batch of this seed: `size` clips of as many frames of one grid, with `number` questions
    each."""
    rng = random.Random(f"nano clips {seed}")
    system = rng.choice(tokenizer.SYSTEMS) if rng.random() < 0.2 else ""
    shape = scenes.draw_clip(f"size {seed}").size
    frames = rng.choice((4, 6, 8, 10, 10, 12, 12, 14, 14, 16, 16))
    drawn, turns = [], []
    while len(drawn) < size:
        source, rate = rng.choice(SOURCE_RATES), 2.0
        if rng.random() < 0.25:
            rate = rng.uniform(1.9, max(2.0, min(4.0, frames / 2.1)))
        seconds = round(max(2.05, (frames + rng.uniform(0.0, 1.9)) / rate), 2)
        clip = scenes.draw_clip(f"train {seed} {len(drawn)}", shape, seconds)
        times = samples.sampled_times(seconds, source, rate)
        if len(times) == frames:
            drawn.append(samples.of_clip(clip, times))
            turns.append(clip_questions.turns(clip, rng, number))
    return packer.collate(drawn, turns, system, rng.random() < 0.3)
