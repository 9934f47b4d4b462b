"""Benchmark plan: every benchmark, and the figure it is to reach."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import psutil
import torch

from . import (
    constrained,
    decoding,
    first_token,
    folders,
    pixels,
    servers,
    speculation,
    speed,
    video,
)
from .decoding import decode_timer, prefill_timer, single_threaded
from .models import full, plain, small


@dataclass(frozen=True)
class Benchmark:
    """One benchmark. ``run(name, wanted)`` returns one of ``figures.KINDS``, which define
    ``wanted``. ``at_most``: ``wanted`` is an upper limit, of an exponent. ``card``: it needs a
    CUDA device; ``nbytes``: size of a checkpoint that it writes and keeps in the system's cache."""

    key: str
    name: str
    wanted: float | None
    run: Callable[[str, float | None], Any]
    card: bool = False
    at_most: bool = False
    nbytes: int = 0

    @property
    def obstacle(self) -> str:
        """Why it cannot run here; empty where it can."""
        if self.card and not torch.cuda.is_available():
            return "there is no CUDA device"
        room = shutil.disk_usage(tempfile.gettempdir()).free
        if min(psutil.virtual_memory().total, room) < self.nbytes:
            return f"it needs {self.nbytes // 10**9} GB of memory and of room for temporary files"
        return ""


def plan() -> dict[str, Benchmark]:
    """Benchmarks by ``key``, in the order in which they run."""
    parts = (
        _batches,
        _questions,
        _pictures,
        _videos,
        _servers,
        _processor,
        _starts,
        _card_batches,
        _card_decoding,
    )
    return {row.key: row for part in parts for row in part()}


def _batches() -> Iterator[Benchmark]:
    for key, kind, title in (
        ("batch", "qwen3_vl", "Qwen3-VL"),
        ("batch-linear", "qwen3_5", "Qwen3.5"),
    ):
        yield Benchmark(
            key,
            f"16 pictures of 256×256, 48 tokens each, {title}",
            2.5,
            lambda name, wanted, kind=kind: speed.batch(
                name, wanted, small(kind), pictures=16, side=256, tokens=48
            ),
        )
    for key, count, what, wanted in (
        ("plain-road", 16, "16 pictures of 256×256, 16 tokens each", 2.5),
        ("plain-road-single", 1, "one picture of 256×256, 16 tokens", 1),
    ):
        yield Benchmark(
            key,
            f"{what}, Qwen3-VL, the scheduler against optimize: off",
            wanted,
            lambda name, wanted, count=count: speed.plain_road(
                name, wanted, small("qwen3_vl"), plain("qwen3_vl"), count, side=256, tokens=16
            ),
        )
    yield Benchmark(
        "batch-growth",
        "a batch from 1 to 64 pictures",
        1.1,
        lambda name, wanted: speed.batch_growth(
            name, wanted, small("qwen3_vl"), counts=[1, 4, 16, 64], side=256, tokens=16
        ),
        at_most=True,
    )
    yield Benchmark(
        "folder",
        "a folder of 64 pictures of 256×256, 16 tokens each, Qwen3-VL, to text files",
        0.9,
        lambda name, wanted: folders.folder(
            name, wanted, small("qwen3_vl"), pictures=64, side=256, tokens=16
        ),
    )
    yield Benchmark(
        "stream",
        "64 pictures of 128×128, every eighth answer of 128 tokens, the others of 16, Qwen3-VL, as "
        "they come up, against one lot of 16 after another",
        1.2,
        lambda name, wanted: folders.stream(
            name, wanted, small("qwen3_vl"), pictures=64, side=128, tokens=(16, 128), lot=16
        ),
    )


def _questions() -> Iterator[Benchmark]:
    for key, kind, title in (
        ("second-question", "qwen3_vl", "Qwen3-VL"),
        ("second-question-linear", "qwen3_5", "Qwen3.5"),
    ):
        yield Benchmark(
            key,
            f"second question about a 1024×1024 picture, first token, {title}",
            5,
            lambda name, wanted, kind=kind: speed.second_question(
                name, wanted, small(kind), side=1024
            ),
        )
    for key, kind, title in (
        ("next-turn", "qwen3_vl", "Qwen3-VL"),
        ("next-turn-linear", "qwen3_5", "Qwen3.5"),
    ):
        yield Benchmark(
            key,
            f"turn 8 of a conversation about a 1024×1024 picture, first token, {title}",
            5,
            lambda name, wanted, kind=kind: speed.next_turn(
                name, wanted, small(kind), side=1024, turns=8
            ),
        )
    for key, together, how in (
        ("three-tasks", False, "node after node"),
        ("three-tasks-at-once", True, "asked at once"),
    ):
        yield Benchmark(
            key,
            f"describe, read and find on one 1024×1024 picture, 32 tokens each, {how}",
            2,
            lambda name, wanted, together=together: speed.three_tasks(
                name, wanted, small("qwen3_vl"), side=1024, tokens=32, together=together
            ),
        )


def _pictures() -> Iterator[Benchmark]:
    yield Benchmark(
        "pixels",
        "16 pictures of 1024×1024 to pixel values",
        1.6,
        lambda name, wanted: pixels.pixels(name, wanted, "cpu", count=16, side=1024),
    )
    yield Benchmark(
        "pixels-growth",
        "a picture to pixel values, 256×256 to 4096×4096",
        1.1,
        lambda name, wanted: pixels.pixels_growth(
            name, wanted, "cpu", sides=[256, 512, 1024, 2048, 4096]
        ),
        at_most=True,
    )
    yield Benchmark(
        "patch-embedding",
        "patch embedding of 4 pictures of 1024×1024",
        2,
        lambda name, wanted: pixels.patch_embedding(name, wanted, "cpu", count=4, side=1024),
    )
    yield Benchmark(
        "picture-growth",
        "first token about a picture, 256×256 to 1024×1024",
        1.1,
        lambda name, wanted: speed.picture_growth(
            name, wanted, small("qwen3_vl"), sides=[256, 512, 1024]
        ),
        at_most=True,
    )


def _videos() -> Iterator[Benchmark]:
    for key, seconds_apart, apart, wanted in (
        ("video-long", 1, "a second", 20),
        ("video-long-sparse", 10, "ten seconds", None),
    ):
        yield Benchmark(
            key,
            f"128 frames out of an hour of 640×360, keyframes {apart} apart",
            wanted,
            lambda name, wanted, seconds_apart=seconds_apart: video.long_video(
                name, wanted, seconds=3600, keyframes=seconds_apart * video.RATE
            ),
        )


def _servers() -> Iterator[Benchmark]:
    """A server that takes 200 ms a request, as one with a card does for a short caption."""
    yield Benchmark(
        "server-concurrency",
        "128 requests to a server that takes 200 ms for each, 16 at once against one by one",
        12,
        lambda name, wanted: servers.concurrency(name, wanted, seconds=0.2, count=128, at_once=16),
    )
    yield Benchmark(
        "server-jpeg",
        "24 requests with pictures of 1024×1024, sent as JPEG against PNG",
        2,
        lambda name, wanted: servers.jpeg(name, wanted, count=24, at_once=8, side=1024),
    )
    yield Benchmark(
        "server-replicas",
        "96 requests to 1, 2 and 3 servers, each of which takes 200 ms for 4 at once",
        -0.9,
        lambda name, wanted: servers.replicas(
            name, wanted, seconds=0.2, count=96, at_once=4, most=3
        ),
        at_most=True,
    )
    yield Benchmark(
        "server-death",
        "96 requests to 3 such servers, of which one dies midway, against 3 that live",
        0.6,
        lambda name, wanted: servers.death(name, wanted, seconds=0.2, count=96, at_once=4),
    )


def _processor() -> Iterator[Benchmark]:
    """Single requests on a processor, by which its defaults are chosen."""
    for key, what, timed in (
        ("first", "first token about a 512×512 picture", lambda model: prefill_timer(model, 512)),
        ("later", "a later token of one request", lambda model: decode_timer(model, 32)),
    ):
        yield Benchmark(
            f"fp32-{key}",
            f"{what}, fp32 against bf16",
            None,
            lambda name, wanted, timed=timed: decoding.alternating(
                name,
                wanted,
                timed(small("qwen3_vl", "fp32")),
                timed(small("qwen3_vl", "bf16")),
                note="other numbers, so not always the same words",
            ),
        )
        yield Benchmark(
            f"threads-{key}",
            f"{what}, all threads against one",
            None,
            lambda name, wanted, timed=timed: decoding.alternating(
                name, wanted, timed(small("qwen3_vl")), single_threaded(timed(small("qwen3_vl")))
            ),
        )
    for key, kind, title in (
        ("prompt-lookup", "qwen3_vl", "Qwen3-VL"),
        ("prompt-lookup-linear", "qwen3_5", "Qwen3.5"),
    ):
        yield Benchmark(
            key,
            "a list of 3 boxes as grounding writes it, with prompt lookup against without, "
            f"{title}",
            1,
            lambda name, wanted, kind=kind: speculation.prompt_lookup(
                name, wanted, small(kind), boxes=3
            ),
        )
    yield Benchmark(
        "constrained",
        "16 answers held to a JSON schema, 151,936 tokens to choose from, against free ones",
        0.9,
        lambda name, wanted: constrained.masks(
            name, wanted, constrained.model(), rows=16, tokens=48
        ),
    )
    yield Benchmark(
        "constrained-forced",
        "a list of 20 boxes held to a JSON schema, with what it forces as drafts against without",
        1.2,
        lambda name, wanted: constrained.forced(name, wanted, constrained.model(), boxes=20),
    )
    yield Benchmark(
        "verify",
        "a pass over 1 to 17 tokens of one request, as drafts are verified",
        None,
        lambda name, wanted: speculation.cost_of_verifying(
            name, wanted, small("qwen3_vl"), lengths=[1, 2, 3, 5, 9, 17]
        ),
        at_most=True,
    )
    yield Benchmark(
        "floor",
        "a later token of one request against reading the weights once",
        None,
        lambda name, wanted: decoding.bandwidth_floor(name, wanted, small("qwen3_vl"), tokens=32),
    )


def _starts() -> Iterator[Benchmark]:
    """1.3 times as long as reading the weights is a ratio of 1 / 1.3."""
    yield Benchmark(
        "start",
        "what the first request takes longer than the second, against reading the weights' bytes, "
        "Qwen3-VL 8B in bf16",
        0.77,
        lambda name, wanted: first_token.first_request_overhead(name, wanted, "8B"),
        nbytes=20_000_000_000,
    )
    yield Benchmark(
        "start-whole",
        "first request to first token about a 64×64 picture, against reading the weights' bytes, "
        "Qwen3-VL 8B in bf16",
        0.77,
        lambda name, wanted: first_token.start(name, wanted, "8B", "cpu"),
        nbytes=20_000_000_000,
    )


def _card_batches() -> Iterator[Benchmark]:
    shape = "32 pictures of 512×512, 128 tokens each"
    yield Benchmark(
        "card-batch-fp32",
        f"{shape}, Qwen3-VL of 100 M parameters in fp32",
        None,
        lambda name, wanted: speed.batch(
            name,
            wanted,
            small("qwen3_vl", device="cuda"),
            pictures=32,
            side=512,
            tokens=128,
            sample=4,
        ),
        card=True,
    )
    for size in ("2B", "4B", "8B"):
        yield Benchmark(
            f"card-batch-{size}",
            f"{shape}, Qwen3-VL {size} in bf16",
            8,
            lambda name, wanted, size=size: speed.batch(
                name, wanted, full(size), pictures=32, side=512, tokens=128, sample=4
            ),
            card=True,
        )
    yield Benchmark(
        "card-batch-growth",
        "a batch from 1 to 64 pictures, Qwen3-VL 8B in bf16",
        1.1,
        lambda name, wanted: speed.batch_growth(
            name, wanted, full("8B"), counts=[1, 4, 16, 64], side=512, tokens=64
        ),
        card=True,
        at_most=True,
    )
    yield Benchmark(
        "card-folder",
        "a folder of 112 pictures of 512×512, 32 tokens each, Qwen3-VL 2B in bf16, to text files",
        0.9,
        lambda name, wanted: folders.folder(
            name, wanted, full("2B"), pictures=112, side=512, tokens=32
        ),
        card=True,
    )
    yield Benchmark(
        "card-second-question",
        "second question about a 1024×1024 picture, first token, Qwen3-VL 8B in bf16",
        5,
        lambda name, wanted: speed.second_question(name, wanted, full("8B"), side=1024),
        card=True,
    )
    yield Benchmark(
        "card-start",
        "first request to first token about a 64×64 picture, against reading the weights' bytes, "
        "Qwen3-VL 8B in bf16, on the card",
        0.77,
        lambda name, wanted: first_token.start(name, wanted, "8B", "cuda"),
        card=True,
        nbytes=20_000_000_000,
    )
    yield Benchmark(
        "card-pixels",
        "16 pictures of 1024×1024 to pixel values on the card",
        10,
        lambda name, wanted: pixels.pixels(name, wanted, "cuda", count=16, side=1024),
        card=True,
    )


def _card_decoding() -> Iterator[Benchmark]:
    yield Benchmark(
        "card-floor",
        "a later token of one request against reading the weights once, Qwen3-VL 8B in bf16",
        0.75,
        lambda name, wanted: decoding.bandwidth_floor(name, wanted, full("8B"), tokens=256),
        card=True,
    )
    yield Benchmark(
        "card-constrained",
        "16 answers at once held to a JSON schema against free, Qwen3-VL 2B in bf16",
        0.9,
        lambda name, wanted: constrained.masks(
            name, wanted, constrained.on_card(), rows=16, tokens=64
        ),
        card=True,
    )
    yield Benchmark(
        "card-constrained-forced",
        "a list of 20 boxes held to a JSON schema, with what it forces as drafts against without, "
        "Qwen3-VL 2B in bf16",
        1.2,
        lambda name, wanted: constrained.forced(name, wanted, constrained.on_card(), boxes=20),
        card=True,
    )
    yield Benchmark(
        "card-4bit",
        "a later token of one request, Qwen3-VL 8B in 4 bits against bf16",
        2,
        lambda name, wanted: decoding.alternating(
            name,
            wanted,
            decode_timer(full("8B", "4bit"), 256),
            decode_timer(full("8B"), 256),
            note="other numbers, so not always the same words",
        ),
        card=True,
    )
