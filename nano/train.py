"""Train the bundled model: `python -m nano.train`. What it does and learnt is in README.md."""

from __future__ import annotations

import argparse
import copy
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

# Waiting threads should sleep, and memory should come in large pages: two to eight times
# faster on a shared CPU. Both are read when torch starts, so they are set before it is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import torch

from . import batches, config, feed, forward, losses

SEED = 11
_BEGAN = time.monotonic()
WARM = 50  # warm-up steps of the learning rate
HELD = 0.35  # the share of a stage in which the learning rate stays; then it falls to zero
SAVED_SECONDS = 60.0
SHOWN_STEPS = 25


@dataclass(frozen=True)
class Stage:
    """Ends at the share `until` of the whole training. `parts` are what is trained: the heads
    alone, sight (the vision tower and the heads), or all. `boxes`: the weight of the box loss."""

    name: str
    until: float
    parts: str
    rate: float
    boxes: float


FROM_NOTHING = (
    Stage("see", 0.12, "sight", 4e-3, boxes=3),
    Stage("see boxes", 0.25, "sight", 4e-3, boxes=15),
    Stage("all", 1.0, "all", 3e-3, boxes=15),
)
FROM_WEIGHTS = (Stage("heads", 0.03, "heads", 4e-3, boxes=15), Stage("all", 1.0, "all", 2.5e-3, 15))


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


def batch_loss(fast, heads, token_loss, batch: batches.Batch, talk: bool, boxes: float):
    """All losses of one batch, as (loss, figures)."""
    inner = fast.model
    first, deep = forward.vision_tower(inner.visual, batch.pixels)
    both = first + sum(deep)
    loss, figures = losses.vision_loss(heads, first, both, batch.labels, boxes)
    if not talk:
        return loss, figures
    text = inner.language_model
    embeds = text.embed_tokens(batch.ids).index_copy(1, batch.places, first)
    hidden, weights, states = forward.language_model(
        text,
        embeds,
        batch.positions,
        forward.attention_mask(batch.turn),
        deep,
        batch.places,
        config.SUPERVISED_LAYERS,
    )
    token, token_figures = token_loss(hidden, text.embed_tokens.weight, batch.target)
    attention, attention_figures = losses.attention_loss(weights, batch)
    next_item = losses.next_item_loss(heads, states[config.SUPERVISED_LAYERS[0]], batch)
    loss = 0.5 * loss + 2 * token + 0.5 * attention + 0.3 * next_item
    if batch.pixels.shape[1] > 1:
        timed, time_figures = losses.time_loss(heads, states, batch)
        loss = loss + 0.5 * timed
        figures = {**figures, **time_figures}
    return loss, {
        **figures,
        "speak": token.detach(),
        **token_figures,
        **attention_figures,
        "next": next_item.detach(),
    }


@dataclass
class Progress:
    """How far training is: `done` is a share of 1, by `steps` if their number is given, else by the
    clock, which counts from `since` to `deadline`."""

    deadline: float
    steps: int | None
    first: int = 0  # the steps and the share that an earlier run did
    before: float = 0.0
    step: int = 0
    since: float = field(default_factory=time.monotonic)

    @property
    def done(self) -> float:
        if self.steps is None:
            part = (time.monotonic() - self.since) / (self.deadline - self.since)
        else:
            part = self.step / self.steps if self.steps else 1.0
        return min(1.0, self.before + (1 - self.before) * part)

    @property
    def total(self) -> int:
        return self.first + self.step


class Trainer:
    """Float32 weights, and a copy of them that computes, in bfloat16 on a GPU."""

    def __init__(self, model, heads, device: torch.device):
        self.model, self.heads = model.to(device), heads.to(device)
        dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.fast = copy.deepcopy(self.model).to(dtype)
        self.fast_heads = copy.deepcopy(self.heads).to(dtype)
        rope = self.model.model.language_model.rotary_emb  # stays in float32, as in use
        self.fast.model.language_model.rotary_emb = copy.deepcopy(rope)
        self.master = [*self.model.parameters(), *self.heads.parameters()]
        self.copies = [*self.fast.parameters(), *self.fast_heads.parameters()]
        self.own_heads = {id(p) for p in self.heads.parameters()}
        self.sight = {id(p) for p in self.model.model.visual.parameters()} | self.own_heads
        self.pair = optimizers(self.model, self.heads)
        self.token_loss = losses.TokenLoss(device)

    def step(self, parts: list[batches.Batch], stage: Stage, rate: float) -> list[dict]:
        """One step on all parts; their figures."""
        with torch.no_grad():
            torch._foreach_copy_(self.copies, self.master)
        shown = []
        for batch in parts:
            loss, figures = batch_loss(
                self.fast, self.fast_heads, self.token_loss, batch, stage.parts != "sight",
                stage.boxes,
            )  # fmt: skip
            (loss / len(parts)).backward()
            shown.append(figures)
        trained = {"heads": self.own_heads, "sight": self.sight}.get(stage.parts)
        with_grads = []
        for master, fast in zip(self.master, self.copies, strict=True):
            wanted = fast.grad is not None and (trained is None or id(master) in trained)
            master.grad = fast.grad.float() if wanted else None
            fast.grad = None
            if wanted:
                with_grads.append(master)
        torch.nn.utils.clip_grad_norm_(with_grads, 1.0)
        for optimizer, scale in zip(self.pair, (1.0, 0.5), strict=True):
            for group in optimizer.param_groups:
                group["lr"] = rate * scale
            optimizer.step()
        return shown


class Log:
    """Running means of figures, and a line of them now and then."""

    def __init__(self, path: Path):
        self.path, self.shown = path, {}

    def add(self, figures: list[dict]) -> None:
        for kind, some in zip(("", "clip "), figures, strict=False):
            names = list(some)
            values = torch.stack([torch.as_tensor(some[n]).float() for n in names]).tolist()
            for name, value in zip(names, values, strict=True):
                if value == value:  # a part without shapes has no figure for them
                    old = self.shown.get(kind + name, value)
                    self.shown[kind + name] = 0.8 * old + 0.2 * value

    def line(self, text: str) -> None:
        line = f"{time.monotonic() - _BEGAN:.0f}s {text}"
        print(line, flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")


def save(trainer: Trainer, progress: Progress, args) -> None:
    """The state in two files, and the checkpoint's weights."""
    state = {**trainer.model.state_dict(), **trainer.heads.state_dict(prefix="heads.")}
    state.pop("lm_head.weight", None)
    state = {name: value.float().cpu() for name, value in state.items()}
    sizes, half = 0, sum(v.numel() for v in state.values()) / 2
    parts: tuple[dict, dict] = ({}, {})
    for name, value in state.items():
        parts[sizes > half][name] = value
        sizes += value.numel()
    for number, part in enumerate(parts):
        path = args.work / f"state-{number}.pt"
        about = {"step": progress.total, "done": progress.done, "weights": part}
        torch.save(about, path.with_suffix(".new"))
        path.with_suffix(".new").rename(path)
    config.save(trainer.model, args.checkpoint)


def load(folder: Path, model, heads) -> tuple[int, float]:
    """Puts the saved weights into model and heads; the step and the share that were done."""
    parts = [torch.load(folder / f"state-{number}.pt") for number in range(2)]
    weights = {name: value for part in parts for name, value in part["weights"].items()}
    own = {n: v for n, v in weights.items() if not n.startswith("heads.")}
    model.load_state_dict(own, strict=False)
    model.tie_weights()
    heads.load_state_dict(
        {n.removeprefix("heads."): v for n, v in weights.items() if n.startswith("heads.")},
        strict=False,
    )
    return parts[0]["step"], parts[0]["done"]


def rate_at(stage: Stage, begin: float, done: float, steps: int) -> float:
    """The learning rate of a stage that began at the share `begin`, after `steps` of its steps."""
    if stage.until < 1:
        return stage.rate * min(1.0, (steps + 1) / WARM)
    share = (done - begin) / (1 - begin)
    return stage.rate * min(1.0, (steps + 1) / WARM, max(0.0, 1 - share) / (1 - HELD))


def train(args) -> None:
    device = torch.device(args.device)
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("high")
    torch.backends.cuda.enable_cudnn_sdp(False)  # it plans anew for every length
    for folder in (args.work, args.checkpoint):
        folder.mkdir(parents=True, exist_ok=True)
    log = Log(args.work / "log.txt")
    plan = feed.Plan(str(args.seed), args.pictures, args.clips, args.turns)
    stages = FROM_WEIGHTS if args.from_ else FROM_NOTHING
    model = config.begin_from(args.from_, SEED) if args.from_ else config.begin(SEED)
    heads = losses.Heads()
    progress = Progress(_BEGAN + 60 * args.minutes - args.spare, args.steps)
    if args.resume:
        progress.first, progress.before = load(args.resume, model, heads)
    source = feed.Feed(plan, args.workers, device, progress.first)
    try:
        trainer = Trainer(model, heads, device)
        progress.since = time.monotonic()
        log.line(f"begins at step {progress.first}")
        _run(trainer, source, stages, progress, log, args)
        save(trainer, progress, args)
        log.line("saved")
    finally:
        source.close()


def _run(trainer: Trainer, source: feed.Feed, stages, progress: Progress, log: Log, args) -> None:
    saved, in_stage, begin = time.monotonic(), 0, progress.done
    stage = stages[0]
    while (done := progress.done) < 1:
        while done >= stage.until:
            stage, in_stage, begin = next(s for s in stages if s.until > done), 0, done
        rate = rate_at(stage, 0.0 if progress.before else begin, done, in_stage)
        figures = trainer.step(source.next(), stage, rate)
        in_stage += 1
        progress.step += 1
        if progress.step % 5 == 0 or progress.done >= 1:
            log.add(figures)
        if progress.step % SHOWN_STEPS == 0 or progress.done >= 1:
            shown = " ".join(f"{k} {v:.3f}" for k, v in log.shown.items())
            log.line(
                f"{stage.name} {progress.total} done {done:.3f} rate {rate:.5f} fresh "
                f"{source.fresh} {shown}"
            )
        if time.monotonic() - saved > SAVED_SECONDS:
            save(trainer, progress, args)
            saved = time.monotonic()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    here = Path(__file__).parent / "checkpoint"
    parser.add_argument(
        "--work", type=Path, default=Path("output/nano"), help="where training keeps its state"
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("output/nano/checkpoint"))
    parser.add_argument(
        "--from", dest="from_", type=Path, help=f"a checkpoint to go on from, such as {here}"
    )
    parser.add_argument("--resume", type=Path, help="the --work of a run that did not end")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--minutes", type=float, default=7.0, help="from the start to the end")
    parser.add_argument("--spare", type=float, default=6.0, help="seconds of them to save in")
    parser.add_argument("--steps", type=int, help="so many steps instead, whatever they take")
    parser.add_argument("--workers", type=int, default=max(1, (os.cpu_count() or 2) - 2))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--pictures", type=int, default=128, help="in a step")
    parser.add_argument("--clips", type=int, default=32, help="in a step")
    parser.add_argument("--turns", type=int, default=3, help="conversations about each")
    parser.add_argument("--seed", type=int, default=SEED)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
