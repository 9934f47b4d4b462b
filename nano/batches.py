"""Training batches: resized pictures, packed questions, and labels for attention supervision.

A batch holds pictures of one grid only, so that no picture needs padding. All
questions about a picture are packed into one sequence: the picture comes first,
and each turn attends to the picture and itself alone, at the positions it would
have as the only turn. So each picture is encoded once and every turn is exactly
a first turn.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from . import questions, scenes, tokenizer

PATCH, MERGE = 16, 2
CELL = PATCH * MERGE  # pixels per side of one merged token
MIN_PIXELS, MAX_PIXELS = 40 * CELL * CELL, 49 * CELL * CELL  # `size` of the processor: pixel counts
CHARS = scenes.LETTERS + scenes.DIGITS
NO_CHAR = len(CHARS)
KINDS = ("shapes", "text", "text", "mixed")  # reading takes longest to learn
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


def fit(width: int, height: int) -> tuple[int, int]:
    """The (width, height) the processor resizes to: multiples of 32, FEWEST to MOST pixels.

    Same arithmetic as `smart_resize` of transformers' Qwen2-VL image processor.
    """
    h, w = max(CELL, round(height / CELL) * CELL), max(CELL, round(width / CELL) * CELL)
    if h * w > MAX_PIXELS:
        beta = (height * width / MAX_PIXELS) ** 0.5
        h, w = (max(CELL, int(v / beta / CELL) * CELL) for v in (height, width))
    elif h * w < MIN_PIXELS:
        beta = (MIN_PIXELS / (height * width)) ** 0.5
        h, w = (int(-(-v * beta // CELL)) * CELL for v in (height, width))
    return w, h


def resize(picture) -> torch.Tensor:
    """PIL picture to uint8 [3, h, w], resized as the processor does (bicubic, antialias)."""
    width, height = fit(*picture.size)
    pixels = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None]
    return F.interpolate(pixels, (height, width), mode="bicubic", antialias=True)[0]


@dataclass
class Batch:
    """B pictures of one grid, N = rows * columns merged tokens each, and sequences of L tokens."""

    pixels: torch.Tensor  # uint8 [B, 3, 32 rows, 32 columns]
    labels: dict  # labels of each merged token, [B, N, ...]; -1 where there is none
    ids: torch.Tensor  # [B, L]; the picture's tokens hold <|image_pad|>
    turn: torch.Tensor  # [B, L] 0 for the shared prefix, 1.. for turns, -1 for padding
    target: torch.Tensor  # [B, L] the next token where it is to be learnt, else -100
    role: (
        torch.Tensor
    )  # [B, L] index in ROLES, -1 unsupervised, len(ROLES) no role, len(ROLES)+1 stop
    cells: torch.Tensor  # bool [B, L, N] the picture tokens that the role attends to
    about: torch.Tensor  # bool [B, L, N] all shapes the answer is about, at joints
    about_on: torch.Tensor  # bool [B, L]
    upcoming: torch.Tensor  # [B, L, 3] next character index, line index, shape index; -1 unknown
    start: int  # where the picture's tokens begin
    answers: list  # the turns, for inspection


def token_labels(scene: scenes.Scene) -> tuple[dict, list, list]:
    """Labels of each merged token [N, ...]; the tokens of each shape and (with half) character."""
    width, height = scene.picture.size
    w, h = fit(width, height)
    columns, rows = w // CELL, h // CELL
    n = columns * rows
    kind, rank = np.zeros(n, np.int64), np.full(n, -1)
    shape, colour, line_no = np.full(n, -1), np.full(n, -1), np.full((n, 2), -1)
    char, index = np.full((n, 2), NO_CHAR), np.full((n, 2), -1)
    last = np.full((n, 3), -1)  # the last shape? the line's last character, in either half?
    box = np.full((n, 6), -1.0, np.float32)
    shape_cells, char_cells = [], []
    sx, sy = w / width / CELL, h / height / CELL
    left, top = np.tile(np.arange(columns), rows), np.repeat(np.arange(rows), columns)
    for k, item in enumerate(scene.shapes):
        x1, y1, x2, y2 = item.box[0] * sx, item.box[1] * sy, item.box[2] * sx, item.box[3] * sy
        share = np.clip(np.minimum(left + 1, x2) - np.maximum(left, x1), 0, 1) * np.clip(
            np.minimum(top + 1, y2) - np.maximum(top, y1), 0, 1
        )
        covered = share >= min(0.45, share.max() * 0.9)
        kind[covered], rank[covered], last[covered, 0] = 1, k, k == len(scene.shapes) - 1
        shape[covered], colour[covered] = (
            scenes.SHAPES.index(item.kind),
            list(scenes.COLOURS).index(item.colour),
        )
        flat = (
            item.box[0] / width,
            item.box[1] / height,
            item.box[2] / width,
            item.box[3] / height,
        )
        box[covered] = (*flat, (flat[0] + flat[2]) / 2, (flat[1] + flat[3]) / 2)
        shape_cells.append(covered)
    for k, item in enumerate(scene.lines):
        cells = []
        flat = (
            item.box[0] / width,
            item.box[1] / height,
            item.box[2] / width,
            item.box[3] / height,
        )
        for c, (x, y) in enumerate(item.centres):
            half = min(2 * columns - 1, int(2 * x * sx))
            cell = min(rows - 1, int(y * sy)) * columns + half // 2
            kind[cell] = 2
            char[cell, half % 2], index[cell, half % 2] = CHARS.index(item.text[c]), c
            line_no[cell, half % 2] = k
            last[cell, 1 + half % 2] = c == len(item.text) - 1
            box[cell] = (*flat, (flat[0] + flat[2]) / 2, (flat[1] + flat[3]) / 2)
            cells.append((cell, half % 2))
        char_cells.append(cells)
    labels = dict(
        kind=kind,
        rank=rank,
        shape=shape,
        colour=colour,
        char=char,
        index=index,
        line=line_no,
        box=box,
        last=last,
    )
    return labels, shape_cells, char_cells


class Packer:
    """Scenes to sequences. One per process; `ids` caches the tokens of each piece."""

    def __init__(self):
        self.tokens = tokenizer.build()
        self.cache: dict[str, list[int]] = {}
        self.pad, self.image = (
            self.tokens.token_to_id("<|endoftext|>"),
            self.tokens.token_to_id("<|image_pad|>"),
        )

    def ids(self, text: str) -> list[int]:
        if text not in self.cache:
            self.cache[text] = self.tokens.encode(text).ids
        return self.cache[text]

    def prefix(self, system: str, n: int) -> tuple[list[int], int]:
        """Tokens up to and including <|vision_end|>, and where the picture's tokens begin."""
        head = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
        ids = self.ids(head + "<|im_start|>user\n<|vision_start|>")
        return ids + [self.image] * n + self.ids("<|vision_end|>"), len(ids)

    def sequence(self, scene, turns, system: str) -> dict:
        """One scene's sequence as arrays, see Batch."""
        labels, shape_cells, char_cells = token_labels(scene)
        n = len(labels["kind"])
        ids, start = self.prefix(system, n)
        turn, target, role = [0] * len(ids), [-100] * len(ids), [-1] * len(ids)
        notes = []  # (position, cells, about, upcoming)
        for number, item in enumerate(turns, 1):
            about = np.zeros(n, bool)
            for k in item.about or ():
                about |= shape_cells[k]
            prompt_ids = self.ids(f"{item.question}<|im_end|>\n<|im_start|>assistant\n")
            ids += prompt_ids
            target += [-100] * len(prompt_ids)
            role += [-1] * len(prompt_ids)
            for piece in (
                *item.pieces,
                questions.Piece("<|im_end|>", "" if item.kind != "read" else "stop"),
            ):
                cells, role_index, next_item = np.zeros(n, bool), len(ROLES), [-1, -1, -1]
                if piece.role == "stop":
                    role_index = len(ROLES) + 1
                elif piece.role == "char":
                    _, k, c = piece.aim
                    cell, half = char_cells[k][c]
                    cells[cell], role_index, next_item = True, half, [c, k, -1]
                elif piece.role:
                    kind, k = piece.aim
                    if kind == "shape":
                        cells, next_item = shape_cells[k], [-1, -1, k]
                    else:
                        cells[[cell for cell, _ in char_cells[k]]] = True
                        next_item = [-1, k, -1]
                    role_index = ROLES.index(piece.role)
                for j, token in enumerate(self.ids(piece.text)):
                    target[-1], role[-1] = token, role_index if j == 0 else len(ROLES)
                    if j == 0:
                        joint = item.about is not None and piece.role in ("look", "stop", "")
                        notes.append((len(ids) - 1, cells, about if joint else None, next_item))
                    ids.append(token)
                    target.append(-100)
                    role.append(-1)
            ids.pop(), target.pop(), role.pop()  # nothing follows <|im_end|>
            turn += [number] * (len(ids) - len(turn))
        return dict(
            ids=ids,
            turn=turn,
            target=target,
            role=role,
            notes=notes,
            labels=labels,
            start=start,
            n=n,
        )

    def collate(self, drawn: list, rng: random.Random, number: int) -> Batch:
        """(scene, pixels) of one grid, with `number` turns each, to a Batch."""
        system = rng.choice(tokenizer.SYSTEMS) if rng.random() < 0.2 else ""
        turns = [questions.turns(scene, rng, number) for scene, _ in drawn]
        rows = [
            self.sequence(scene, its_turns, system)
            for (scene, _), its_turns in zip(drawn, turns, strict=True)
        ]
        longest, n = max(len(r["ids"]) for r in rows), rows[0]["n"]
        out = {
            name: np.full((len(rows), longest), fill)
            for name, fill in (("ids", self.pad), ("turn", -1), ("target", -100), ("role", -1))
        }
        cells, about = (np.zeros((len(rows), longest, n), bool) for _ in range(2))
        about_on, upcoming = (
            np.zeros((len(rows), longest), bool),
            np.full((len(rows), longest, 3), -1),
        )
        for k, row in enumerate(rows):
            for name in out:
                out[name][k, : len(row[name])] = row[name]
            for at, its_cells, its_about, next_item in row["notes"]:
                cells[k, at], upcoming[k, at] = its_cells, next_item
                if its_about is not None:
                    about[k, at], about_on[k, at] = its_about, True
        labels = {
            name: torch.from_numpy(np.stack([r["labels"][name] for r in rows]))
            for name in rows[0]["labels"]
        }
        arrays = {
            k: torch.from_numpy(v)
            for k, v in (
                *out.items(),
                ("cells", cells),
                ("about", about),
                ("about_on", about_on),
                ("upcoming", upcoming),
            )
        }
        return Batch(
            torch.stack([p for _, p in drawn]),
            labels,
            start=rows[0]["start"],
            answers=turns,
            **arrays,
        )


def make(
    packer: Packer, seed: str, size: int, number: int, kinds: tuple[str, ...] = KINDS
) -> Batch:
    """The batch of this seed: `size` pictures of one grid, with `number` questions each."""
    rng = random.Random(f"nano batch {seed}")
    grid = fit(*scenes.picture_size(rng))
    drawn = []
    while len(drawn) < size:
        picture = scenes.picture_size(rng)
        if fit(*picture) == grid:
            scene = scenes.draw(f"train {seed} {len(drawn)}", rng.choice(kinds), picture)
            drawn.append((scene, resize(scene.picture)))
    return packer.collate(drawn, rng, number)
