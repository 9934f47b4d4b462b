"""Batches drawn ahead of training by other processes, handed over as files in memory.

Files rather than queues or shared tensors: they need no descriptors and no room in a container's
own limits, and reading one is one copy, during which training goes on.
"""

from __future__ import annotations

import os
import pickle
import queue
import random
import shutil
import tempfile
import threading
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import batches, tokenizer

_POLL = 0.003  # seconds
_ALIGNED = 64  # bytes
_KEPT = 60  # steps that are shown again where no new one is ready

Parts = list[batches.Batch]


@dataclass(frozen=True)
class Plan:
    """What the parts of a step are: `pictures` of the first, `clips` of the second, with `turns`
    questions each."""

    seed: str
    pictures: int
    clips: int
    turns: int

    def part(self, packer: batches.Packer, number: int) -> batches.Batch:
        """The part of that number, counted from the first step on."""
        name = f"{self.seed} {number}"
        if number % 2:
            return batches.make_clips(packer, name, self.clips, self.turns)
        return batches.make(packer, name, self.pictures, self.turns)


class Feed:
    """Steps in order, from number `first` on, each as its parts on `device`; `ahead` parts are
    drawn before they are wanted. Without workers each is drawn when it is wanted.

    On a GPU a step is not waited for: one of the last ones is shown again. `fresh` counts those
    that were not."""

    def __init__(
        self, plan: Plan, workers: int, device: torch.device, first: int = 0, ahead: int = 60
    ):
        self.plan, self.device, self.fresh = plan, device, 0
        self._next, self._workers = 2 * first, workers
        self._kept: deque[Parts] = deque(maxlen=_KEPT)
        if workers:
            self._start(workers, ahead)
        else:
            self._packer = batches.Packer()

    def _start(self, workers: int, ahead: int) -> None:
        import torch.multiprocessing as mp

        memory = Path("/dev/shm")
        roomy = memory.is_dir() and shutil.disk_usage(memory).free > 12 << 30
        self._folder = Path(tempfile.mkdtemp(prefix="nano-", dir=memory if roomy else None))
        context = mp.get_context("spawn")
        self._taken, self._used = (context.Value("l", self._next) for _ in range(2))
        shared = (self.plan, str(self._folder), tokenizer.build().to_str(), ahead)
        # Workers are told by their environment: torch reads it when it is imported.
        os.environ["OMP_NUM_THREADS"] = "1"
        self._processes = [
            context.Process(target=_draw, args=(shared, self._taken, self._used), daemon=True)
            for _ in range(workers)
        ]
        for process in self._processes:
            process.start()
        self._ready: queue.Queue[Parts | Exception] = queue.Queue(3)
        threading.Thread(target=self._read, daemon=True).start()

    def next(self) -> Parts:
        """The next step. Raises RuntimeError if the processes that draw have died."""
        if not self._workers:
            self.fresh += 1
            self._next += 2
            numbers = self._next - 2, self._next - 1
            return [self.plan.part(self._packer, n).to(self.device) for n in numbers]
        try:
            parts = self._ready.get(block=not self._kept or self.device.type != "cuda")
        except queue.Empty:
            # The parts of a step are chosen apart, so that they meet in new pairs.
            return [random.choice(self._kept)[k] for k in range(2)]
        if isinstance(parts, Exception):
            raise parts
        self._kept.append(parts)
        self.fresh += 1
        return parts

    def close(self) -> None:
        """Ends the processes that this feed started, and removes what they drew."""
        if self._workers:
            for process in self._processes:
                process.terminate()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self) -> None:
        number, reader = self._next, _Reader(self.device)
        try:
            while True:
                parts = []
                for _ in range(2):
                    parts.append(reader.read(self._awaited(number)))
                    number += 1
                    with self._used.get_lock():
                        self._used.value = number
                self._ready.put(parts)
        except Exception as error:
            self._ready.put(error)

    def _awaited(self, number: int) -> Path:
        path = self._folder / str(number)
        while not path.exists():
            time.sleep(_POLL)
            if not all(process.is_alive() for process in self._processes):
                raise RuntimeError("A process that draws batches has died.")
        return path


class _Reader:
    """Reads parts into one buffer, and from there to the device in one piece."""

    def __init__(self, device: torch.device):
        self.device, self.is_cuda = device, device.type == "cuda"
        self.stream = torch.cuda.Stream(device) if self.is_cuda else None
        self.buffer = torch.empty(0, dtype=torch.uint8)

    def read(self, path: Path) -> batches.Batch:
        size = path.stat().st_size
        if size > len(self.buffer):
            self.buffer = torch.empty(size * 5 // 4, dtype=torch.uint8, pin_memory=self.is_cuda)
        view = memoryview(self.buffer.numpy())[:size]
        done = 0
        with path.open("rb", buffering=0) as file:
            while done < size:
                done += file.readinto(view[done:])
        path.unlink()
        with torch.cuda.stream(self.stream) if self.is_cuda else nullcontext():
            moved = self.buffer[:size].to(self.device, copy=True)
        if self.stream:
            self.stream.synchronize()
            moved.record_stream(torch.cuda.default_stream(self.device))
        length = int.from_bytes(view[:8], "little")
        found: dict[str, torch.Tensor] = {}
        for name, dtype, shape, at in pickle.loads(view[8 : 8 + length]):
            count = int(np.prod(shape)) * np.dtype(dtype).itemsize
            kind = torch.from_numpy(np.empty(0, dtype)).dtype
            found[name] = moved[at : at + count].view(kind).view(shape)
        labels = {n: found.pop(f"labels {n}") for n in _names(found, "labels ")}
        return batches.Batch(labels=labels, **found)


def _names(found: dict, prefix: str) -> list[str]:
    return [name.removeprefix(prefix) for name in found if name.startswith(prefix)]


def _write(batch: batches.Batch, path: Path) -> None:
    """All tensors of a batch in one file, behind the length of a table of them, and the table."""
    arrays = {f.name: getattr(batch, f.name) for f in fields(batch) if f.name != "labels"}
    arrays |= {f"labels {name}": value for name, value in batch.labels.items()}
    listed, at = [], 1 << 14
    for name, value in arrays.items():
        array = value.numpy()
        listed.append((name, array.dtype.str, array.shape, at))
        at += -(-array.nbytes // _ALIGNED) * _ALIGNED
    head = pickle.dumps(listed)
    with path.with_suffix(".part").open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for (_, _, _, start), value in zip(listed, arrays.values(), strict=True):
            file.seek(start)
            file.write(np.ascontiguousarray(value.numpy()).data)
        file.truncate(at)
    path.with_suffix(".part").rename(path)


def _draw(shared: tuple[Plan, str, str, int], taken: Any, used: Any) -> None:
    """Main function of a process that draws: takes numbers and writes their parts."""
    from tokenizers import Tokenizer

    torch.set_num_threads(1)
    plan, folder, spelled, ahead = shared
    packer = batches.Packer(Tokenizer.from_str(spelled))
    parent = os.getppid()
    while os.getppid() == parent:  # else nobody is left to draw for
        with taken.get_lock():
            number = taken.value
            taken.value = number + 1
        while number >= used.value + ahead and os.getppid() == parent:
            time.sleep(_POLL)
        _write(plan.part(packer, number), Path(folder) / str(number))
