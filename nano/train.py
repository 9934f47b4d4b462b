"""Train the bundled model: `python -m nano.train`. Stages, times and lessons are in README.md."""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

# Waiting threads should sleep, and memory should come in large pages: two to eight times
# faster on a shared CPU. Both are read when torch starts, so they are set before it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from . import batches, config, forward, losses

SEED = 7
PARTS = 4  # each step is divided into so many parts, which free processes take
WARM = 50  # warm-up steps of the learning rate


@dataclass(frozen=True)
class Stage:
    """`rates` are the learning rates at its start and end, `boxes` the weight of the box loss."""

    name: str
    steps: int
    pictures: int  # per part
    turns: int  # per picture; 0 trains the vision tower alone
    talk: int  # every n-th part has questions, the others train vision alone
    rates: tuple[float, float]
    boxes: float


STAGES = (
    Stage("see", 750, 8, 0, 1, (4e-3, 4e-3), boxes=3),
    Stage("see boxes", 750, 8, 0, 1, (4e-3, 3e-3), boxes=15),
    Stage("speak", 300, 10, 4, 1, (4e-3, 4e-3), boxes=15),
    Stage("see more", 800, 10, 4, 4, (2.5e-3, 2e-3), boxes=15),
    Stage("read", 400, 10, 3, 2, (2.2e-3, 1.65e-3), boxes=15),
    Stage("settle", 1300, 10, 3, 2, (1.8e-3, 2e-5), boxes=15),
)


def optimizers(model, heads):
    """Muon for the matrices inside the layers, AdamW for everything else."""
    inside = [
        p
        for n, p in model.named_parameters()
        if p.dim() == 2 and (".blocks." in n or ".layers." in n)
    ]
    known = {id(p) for p in inside}
    rest = [p for p in [*model.parameters(), *heads.parameters()] if id(p) not in known]
    return (
        torch.optim.Muon(
            inside, lr=1.0, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=1.0, betas=(0.9, 0.98), weight_decay=0.0),
    )


def batch_loss(fast, heads, token_loss, batch, talk: bool, boxes: float):
    """All losses of one batch, as (loss, figures)."""
    inner = fast.model
    first, deep = forward.vision_tower(inner.visual, batch.pixels)
    both = first + sum(deep)
    loss, figures = losses.vision_loss(heads, first, both, batch.labels, boxes)
    if not talk:
        return loss, figures
    n, text = first.shape[1], inner.language_model
    embeds = text.embed_tokens(batch.ids)
    embeds = torch.cat((embeds[:, : batch.start], first, embeds[:, batch.start + n :]), 1)
    rows, columns = batch.pixels.shape[2] // batches.CELL, batch.pixels.shape[3] // batches.CELL
    position_ids = forward.mrope_positions(batch.turn, batch.start, rows, columns)
    hidden, weights, states = forward.language_model(
        text,
        embeds,
        position_ids,
        forward.attention_mask(batch.turn),
        deep,
        batch.start,
        config.SUPERVISED_LAYERS,
    )
    token, token_figures = token_loss(hidden, text.embed_tokens.weight, batch.target)
    attention, attention_figures = losses.attention_loss(weights, batch, n)
    next_item = losses.next_item_loss(heads, states[config.SUPERVISED_LAYERS[0]], batch)
    loss = 0.5 * loss + 2 * token + 0.5 * attention + 0.3 * next_item
    return loss, {
        **figures,
        "speak": token.item(),
        **token_figures,
        **attention_figures,
        "count": next_item.item(),
    }


class Shared:
    """Shared memory of the processes: weights, gradient sums, and the count of parts taken."""

    def __init__(self, total: int, workers: int):
        import torch.multiprocessing as mp

        mp.set_sharing_strategy("file_system")
        self.context = mp.get_context("spawn")
        self.weights = torch.zeros(total, dtype=torch.bfloat16).share_memory_()
        self.gradients = torch.zeros(workers, total).share_memory_()
        self.taken = self.context.Value("l", 0)  # parts handed out since the stage began
        self.begin, self.end = (self.context.Barrier(workers) for _ in range(2))


class Worker:
    """A bfloat16 copy of model and heads whose weights live in shared memory."""

    def __init__(self, shared: Shared, rank: int, stage: Stage):
        self.shared, self.rank, self.stage = shared, rank, stage
        self.model, self.heads = config.begin(SEED).bfloat16(), losses.Heads().bfloat16()
        self.token_loss, self.packer = losses.TokenLoss(), batches.Packer()
        self.parameters = [*self.model.parameters(), *self.heads.parameters()]
        sizes = [p.numel() for p in self.parameters]
        for p, flat in zip(self.parameters, shared.weights.split(sizes), strict=True):
            p.data = flat.view_as(p)
        self.sums = shared.gradients[rank].split(sizes)

    def work(self, step: int) -> dict:
        """Take parts of this step until none is left; returns their last figures."""
        figures: dict = {}
        self.shared.gradients[self.rank].zero_()
        while True:
            with self.shared.taken.get_lock():
                part = self.shared.taken.value
                if part >= (step + 1) * PARTS:
                    return figures
                self.shared.taken.value = part + 1
            stage = self.stage
            turns = stage.turns if part % stage.talk == 0 else 0
            name = f"{SEED} {stage.name} {part}"
            batch = batches.make(self.packer, name, stage.pictures, turns)
            loss, news = batch_loss(
                self.model, self.heads, self.token_loss, batch, turns > 0, stage.boxes
            )
            (loss / PARTS).backward()
            figures.update(news)
            for p, flat in zip(self.parameters, self.sums, strict=True):
                if p.grad is not None:
                    flat += p.grad.flatten()
                    p.grad = None


def serve(shared: Shared, rank: int, stage: Stage, steps: int) -> None:
    """Main function of a worker process."""
    torch.set_num_threads(1)
    worker = Worker(shared, rank, stage)
    for step in range(steps):
        shared.begin.wait()
        worker.work(step)
        shared.end.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("output/nano"), help="where training keeps its state"
    )
    parser.add_argument("--checkpoint", type=Path, default=Path(__file__).parent / "checkpoint")
    parser.add_argument("--workers", type=int, default=2, help="processes, of one thread each")
    parser.add_argument("--stage", help="do only this stage, from the weights that --weights names")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--steps", type=int, help="steps of that stage, if not its own")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.work.mkdir(parents=True, exist_ok=True)
    model, heads = config.begin(SEED), losses.Heads()
    if args.weights:
        state = torch.load(args.weights)
        model.load_state_dict(state["model"])
        heads.load_state_dict(state["heads"], strict=False)
    for stage in STAGES:
        if args.stage in (None, stage.name):
            run(model, heads, stage, args)
    config.save(model, args.checkpoint)


def run(model, heads, stage: Stage, args) -> None:
    """One stage: bfloat16 forward and backward in all workers, float32 weights here."""
    name, (high, low) = stage.name, stage.rates
    steps = args.steps or stage.steps
    master = [*model.parameters(), *heads.parameters()]
    sizes = [p.numel() for p in master]
    shared = Shared(sum(sizes), args.workers)
    others = [
        shared.context.Process(target=serve, args=(shared, rank, stage, steps), daemon=True)
        for rank in range(1, args.workers)
    ]
    for process in others:
        process.start()
    worker = Worker(shared, 0, stage)
    pair = optimizers(model, heads)
    began, shown = time.time(), {}
    for step in range(steps):
        with torch.no_grad():
            for p, flat in zip(master, shared.weights.split(sizes), strict=True):
                flat.copy_(p.flatten())
        shared.begin.wait()
        figures = worker.work(step)
        shared.end.wait()
        for p, flat in zip(master, shared.gradients.sum(0).split(sizes), strict=True):
            p.grad = flat.view_as(p)
        torch.nn.utils.clip_grad_norm_(master, 1.0)
        rate = min(1, (step + 1) / WARM) * (high + (low - high) * step / steps)
        for optimizer, scale in zip(pair, (1.0, 0.5), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            optimizer.step()
        for key, value in figures.items():
            if value == value:  # a part without shapes has no figure for them
                shown[key] = 0.95 * shown.get(key, value) + 0.05 * value
        if step % 25 == 24:
            print(
                f"{name} {step + 1}/{steps} {time.time() - began:.0f}s lr {rate:.4f} "
                + " ".join(f"{k} {v:.3f}" for k, v in shown.items()),
                flush=True,
            )
        if step % 100 == 99 or step == steps - 1:
            torch.save(
                {"model": model.state_dict(), "heads": heads.state_dict()},
                args.work / f"{name}.pt",
            )


if __name__ == "__main__":
    main()
