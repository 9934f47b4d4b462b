"""From the first request to its first token, in a process that never answered before.

The weight files are in the system's cache and everything else is cold. Each start is a process of
its own, which holds one of three things when the request comes: torch alone, what ComfyUI 0.24
holds once it is up, or that and the model's class as well. The request shows one picture of
512x512 and asks for one token, on the CPU. Beside it stands the time to read the bytes of the
weights into a small buffer, and how long the same takes once more with another picture: the pass
through the model itself, which no loader can spare.
"""

from __future__ import annotations

import importlib
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from . import ROOT, load_pack, loading
from .figures import Figure, figure

REPEATS = 3
_WANTED = 1.3
_WORDS = 151_643  # in the tokenizers of Qwen2-VL to Qwen3-VL
_PICTURES = {
    "image_processor_type": "Qwen2VLImageProcessorFast",
    "patch_size": 16,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}
CASES = {
    "nano": ("fp32",),
    "1.5 GB": ("bf16", "fp32"),
    "4 GB": ("bf16", "fp32"),
}
"""Checkpoints (bf16 on disk but for nano) and the types that they are loaded in."""
HOSTS = {
    "torch": ("torch",),
    "comfyui": (
        "scipy.optimize",
        "torch._dynamo",
        "torch.distributed.tensor",
        "torchaudio",
        "torchvision",
        "transformers:CLIPTokenizer",
        "transformers:Qwen2Tokenizer",
        "transformers:T5TokenizerFast",
    ),
    "class": ("transformers:AutoTokenizer", "transformers:Qwen3VLForConditionalGeneration"),
}
"""What a host has imported, each on top of those before it."""


def first_token() -> Iterator[dict[str, Any]]:
    """A figure for every case and host; seconds are medians."""
    for name, precisions in CASES.items():
        with _checkpoint(name) as folder:
            read = min(loading.read_seconds(folder) for _ in range(REPEATS))
            for precision in precisions:
                for host in HOSTS:
                    runs = [_apart(folder, precision, host) for _ in range(REPEATS)]
                    found = {
                        key: round(statistics.median(run[key] for run in runs), 4)
                        for key in runs[0]
                    }
                    yield {
                        "case": f"{name} as {precision}, {host} imported",
                        "wanted": _WANTED,
                        "ratio": round(found["total"] / read, 2),
                        "reading_alone": round(read, 4),
                        **found,
                    }


def start(name: str, wanted: float | None, case: str, precision: str, host: str) -> Figure:
    """One case and host: the first token against reading the weights' bytes."""
    with _checkpoint(case) as folder:
        read = min(loading.read_seconds(folder) for _ in range(REPEATS))
        runs = [_apart(folder, precision, host) for _ in range(REPEATS)]
    again, later = (
        statistics.median(run[key] for run in runs) for key in ("again", "second_loader")
    )
    note = f"{again:.2f} s for the next picture's, {1000 * later:.1f} ms for a second loader"
    return figure(name, [(run["total"], read) for run in runs], wanted, note)


@contextmanager
def _checkpoint(name: str) -> Iterator[Path]:
    if name == "nano":
        yield ROOT / "nano" / "checkpoint"
        return
    with tempfile.TemporaryDirectory(prefix="first-token-") as folder:
        make(Path(folder), name)
        yield Path(folder)


def make(folder: Path, shape: str) -> None:
    """A whole checkpoint: weights, and a tokenizer as large as Qwen's."""
    loading.make(folder, shape, "bf16")
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder)
    ids = {
        f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{token}|>")
        for name, token in (
            ("image", "image_pad"),
            ("video", "video_pad"),
            ("vision_start", "vision_start"),
            ("vision_end", "vision_end"),
        )
    }
    _change(folder / "config.json", ids)
    # As the hub's files have it; spares transformers a second look into tokenizer.json.
    tokens = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    decoder = {str(token.pop("id")): token for token in tokens}
    more = {"tokenizer_class": "Qwen2Tokenizer", "added_tokens_decoder": decoder}
    _change(folder / "tokenizer_config.json", more)
    (folder / "preprocessor_config.json").write_text(json.dumps(_PICTURES))


def _change(file: Path, more: dict[str, Any]) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def _tokenizer() -> Any:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    sys.path.append(str(ROOT / "tests" / "engine"))
    import tiny

    some = random.Random(0)
    words = sorted(pre_tokenizers.ByteLevel.alphabet())
    known, merges = set(words), []
    while len(words) < _WORDS:
        left, right = some.choice(words), some.choice(words)
        if len(left + right) <= 12 and left + right not in known:
            known.add(left + right)
            words.append(left + right)
            merges.append((left, right))
    vocabulary = {word: number for number, word in enumerate(words)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, normalized=False) for token in tiny.SPECIAL])
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.chat_template = (
        tiny.TEMPLATE.replace("START", "<|vision_start|>")
        .replace(" IMAGE ", "<|image_pad|>")
        .replace("END", "<|vision_end|>")
        .replace("THINK", "")
    )
    return made


def _apart(folder: Path, precision: str, host: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.first_token", str(folder), precision, host]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _be_host(host: str) -> None:
    for number in range(1 + list(HOSTS).index(host)):
        for name in list(HOSTS.values())[number]:
            module, _, attribute = name.partition(":")
            found = importlib.import_module(module)
            if attribute:
                getattr(found, attribute)


def here(folder: str, precision: str, host: str) -> dict[str, float]:
    """Seconds of one start in this process: ``open`` (the files are checked, the tokenizer is
    loaded), ``weights`` (the class is imported, the weights are read) and ``answer`` make up
    ``total``. Then ``again``, another picture, and ``second_loader``, which asks for the same."""
    _be_host(host)
    load_pack()
    import torch
    from qwen_vl_suite.qwenvl.backend import Watch
    from qwen_vl_suite.qwenvl.cache import CACHE
    from qwen_vl_suite.qwenvl.types import ModelSpec, Request, Sampling

    def request() -> Request:
        picture = torch.randint(0, 256, (3, 512, 512), dtype=torch.uint8)
        sampling = Sampling(max_new_tokens=1)
        return Request(images=(picture,), prompt="What is this?", sampling=sampling)

    def spec() -> ModelSpec:
        return ModelSpec(folder, precision=precision, device="cpu")

    first, other = request(), request()
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    with CACHE.lease(spec()) as backend:
        mark()
        backend.bring(0, Watch())
        mark()
        backend.generate([first])
        mark()
        backend.generate([other])
        mark()
    with CACHE.lease(spec()) as backend:
        backend.bring(0, Watch())
    mark()
    names = ("open", "weights", "answer", "again", "second_loader")
    steps = dict(zip(names, (b - a for a, b in itertools.pairwise(marks)), strict=True))
    return {"total": marks[3] - marks[0], **steps}


if __name__ == "__main__":
    # With a folder, a type and a host: one start, in this process. Else all, each in its own.
    for line in [here(*sys.argv[1:])] if sys.argv[1:] else first_token():
        print(json.dumps(line), flush=True)
