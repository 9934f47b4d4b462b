"""Cold start: from the first request to its first token, in a fresh process.

The weight files are in the system's cache and everything else is cold. Each start is a process of
its own, which holds one of three things when the request comes: torch alone, what ComfyUI 0.24
holds once it is up, or that and the model's class as well. Python's compiled files are there, as
they are from an installation's second start on. The request shows one small picture and asks for
one token. Beside it stand the time to read the bytes of the weights into a small buffer, and how
long the same takes once more with another picture: the pass through the model itself, which no
loader can spare.
"""

from __future__ import annotations

import atexit
import importlib
import itertools
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from . import ROOT, load_pack, loading, models
from .figures import Figure, figure

REPEATS = 5
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
SIDE = 64
"""Of the picture. What a larger one takes longer is no loader's doing."""
CASES = {"nano": ("fp32",), "2B": ("bf16", "fp32"), "8B": ("bf16",)}
"""The bundled checkpoint, the shapes of Qwen3-VL (bf16 on disk), and the types to load them in."""
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
    """A line for each case and host; seconds are medians."""
    for name, precisions in CASES.items():
        for precision, host in itertools.product(precisions, HOSTS):
            read, runs = _starts(name, precision, host, "cpu")
            found = {key: round(statistics.median(run[key] for run in runs), 4) for key in runs[0]}
            yield {
                "case": f"{name} as {precision}, {host} imported",
                "read": round(read, 4),
                "added": round(found["total"] - found["again"], 4),
                **found,
            }


def first_request_overhead(name: str, wanted: float | None, case: str) -> Figure:
    """Extra seconds of the first request over the second, against reading the weights' bytes: on
    the CPU, with what a running ComfyUI has imported."""
    read, runs = _starts(case, "bf16", "comfyui", "cpu")
    total, again, second = (
        statistics.median(run[key] for run in runs) for key in ("total", "again", "second_loader")
    )
    note = (
        f"{total:.2f} s for the first token, {again:.2f} s for the next picture's, "
        f"{1000 * second:.1f} ms for a second loader"
    )
    return figure(name, [(run["total"] - run["again"], read) for run in runs], wanted, note)


def start(name: str, wanted: float | None, case: str, device: str) -> Figure:
    """Seconds to the first token against reading the weights' bytes, with what a running ComfyUI
    has imported."""
    read, runs = _starts(case, "bf16", "comfyui", device)
    again = statistics.median(run["again"] for run in runs)
    note = f"{again:.2f} s for the next picture's"
    return figure(name, [(run["total"], read) for run in runs], wanted, note)


@cache
def _starts(
    case: str, precision: str, host: str, device: str
) -> tuple[float, list[dict[str, float]]]:
    """Seconds of reading the weights' bytes, the minimum of several, and of several starts."""
    with tempfile.TemporaryDirectory(prefix="first-token-") as compiled:
        folder = _checkpoint(case)
        options = (precision, host, device, compiled)
        _start_in_subprocess(folder, *options)  # compiles what is imported
        runs = [_start_in_subprocess(folder, *options) for _ in range(REPEATS)]
        return min(loading.read_seconds(folder) for _ in range(REPEATS)), runs


@cache
def _checkpoint(case: str) -> Path:
    """The checkpoint's folder, deleted when the process ends."""
    if case == "nano":
        return ROOT / "nano" / "checkpoint"
    folder = Path(tempfile.mkdtemp(prefix="first-token-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = models.FULL[case]
    text = {"model_type": "qwen3_vl_text", **config["text_config"]}
    make(folder, {"model_type": "qwen3_vl", **config, "text_config": text})
    return folder


def make(folder: Path, config: dict[str, Any]) -> None:
    """A whole checkpoint: weights in bf16, and a tokenizer as large as Qwen's."""
    loading.make(folder, config, "bf16")
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


def _start_in_subprocess(
    folder: Path, precision: str, host: str, device: str, compiled: str
) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.first_token", str(folder), precision, host, device]
    # Compiled files are used whatever the environment says, and none is left behind.
    env = {name: os.environ[name] for name in os.environ if name != "PYTHONDONTWRITEBYTECODE"}
    env["PYTHONPYCACHEPREFIX"] = compiled
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True, env=env)
    return json.loads(done.stdout.splitlines()[-1])


def _import_as_host(host: str) -> None:
    for number in range(1 + list(HOSTS).index(host)):
        for name in list(HOSTS.values())[number]:
            module, _, attribute = name.partition(":")
            found = importlib.import_module(module)
            if attribute:
                getattr(found, attribute)


def measure_start(folder: str, precision: str, host: str, device: str) -> dict[str, float]:
    """Seconds of one start in this process: ``open`` (the files are checked, the tokenizer is
    loaded), ``weights`` (the class is imported, the weights are read) and ``answer`` make up
    ``total``. Then ``again``, another picture, and ``second_loader``, which asks for the same."""
    _import_as_host(host)
    load_pack()
    import torch
    from qwen_vl_suite.qwenvl.model_cache import CACHE
    from qwen_vl_suite.qwenvl.observer import Observer
    from qwen_vl_suite.qwenvl.types import LocalSpec, Request, Sampling

    def request() -> Request:
        picture = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8)
        sampling = Sampling(max_new_tokens=1)
        return Request.ask(images=(picture,), prompt="What is this?", sampling=sampling)

    def spec() -> LocalSpec:
        return LocalSpec(folder, precision=precision, device=device)

    torch.ones(1, device=device)  # a host has begun to use it
    first, other = request(), request()
    marks = [time.perf_counter()]

    def mark() -> None:
        marks.append(time.perf_counter())

    with CACHE.lease(spec()) as backend:
        mark()
        backend.load_weights(0, Observer())
        mark()
        backend.generate([first])
        mark()
        backend.generate([other])
        mark()
    with CACHE.lease(spec()) as backend:
        backend.load_weights(0, Observer())
    mark()
    names = ("open", "weights", "answer", "again", "second_loader")
    steps = dict(zip(names, (b - a for a, b in itertools.pairwise(marks)), strict=True))
    return {"total": marks[3] - marks[0], **steps}


if __name__ == "__main__":
    # With a folder, a type, a host and a device: one start, in this process. Else all.
    for line in [measure_start(*sys.argv[1:])] if sys.argv[1:] else first_token():
        print(json.dumps(line), flush=True)
