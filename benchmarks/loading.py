"""Loading: peak memory and time, `python -m benchmarks.loading --json`.

Writes checkpoints of random weights in the shape of Qwen3-VL (1.3 to 1.5 GB, several shards) to a
temporary folder and loads them on the CPU, each load in a process of its own. Memory is what the
process holds at its peak beyond what it held after its imports: in all, and without the files that
are mapped into memory, which the system can take back at any time. It includes one look at every
weight after loading, for mapped weights cost nothing before. Times are the best of several with
the files in the system's cache, beside the time it takes to read as many bytes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from . import ROOT, load_pack

SHARD = 500_000_000
REPEATS = 3
_ROPE = {"rope_type": "default", "mrope_section": [24, 20, 20], "mrope_interleaved": True}
_TEXT = {
    "vocab_size": 32_768,
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "rope_scaling": _ROPE,
    "tie_word_embeddings": False,
}
_EXPERTS = {
    "num_hidden_layers": 4,
    "num_experts": 32,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 768,
    "decoder_sparse_step": 1,
}
_VISION = {
    "depth": 12,
    "hidden_size": 1024,
    "num_heads": 16,
    "intermediate_size": 4096,
    "out_hidden_size": 2048,
    "deepstack_visual_indexes": [3, 6, 9],
}


SHAPES: dict[str, dict[str, Any]] = {
    "dense": {
        "model_type": "qwen3_vl",
        "text_config": {"model_type": "qwen3_vl_text", **_TEXT},
        "vision_config": _VISION,
        "tie_word_embeddings": False,
    },
    "experts": {
        "model_type": "qwen3_vl_moe",
        "text_config": {"model_type": "qwen3_vl_moe_text", **_TEXT, **_EXPERTS},
        "vision_config": _VISION,
        "tie_word_embeddings": False,
    },
}
CASES = (
    ("dense", "bf16", "bf16"),
    ("dense", "fp16", "fp16"),
    ("dense", "bf16", "fp32"),
    ("experts", "bf16", "bf16"),
    ("experts", "bf16", "fp32"),
)


@dataclasses.dataclass(frozen=True)
class Load:
    """One load in a fresh process. Sizes in bytes: ``peak`` in all, ``peak_anonymous`` without
    mapped files. ``seconds``: until the model is loaded; ``seconds_touched``: until every weight
    was read once."""

    weights: int
    peak: int
    peak_anonymous: int
    seconds: float
    seconds_touched: float


def make(folder: Path, config: dict[str, Any], stored: str) -> None:
    """Writes a checkpoint whose ``config.json`` is ``config``, a tensor at a time."""
    import torch

    dtype, name = {"bf16": (torch.bfloat16, "BF16"), "fp16": (torch.float16, "F16")}[stored]
    (folder / "config.json").write_text(json.dumps(config))
    some = torch.randn(1 << 24).mul_(0.02).to(dtype).view(torch.uint8).numpy().tobytes()
    shards: list[dict[str, tuple[int, ...]]] = [{}]
    for tensor, dims in stored_shapes(folder).items():
        if 2 * sum(map(math.prod, [*shards[-1].values(), dims])) > SHARD and shards[-1]:
            shards.append({})
        shards[-1][tensor] = dims
    index = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        write(folder / file, shard, name, some)
        index |= dict.fromkeys(shard, file)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": index})
    )


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of tensors as in published checkpoints."""
    import torch
    import transformers

    with torch.device("meta"):
        config = transformers.AutoConfig.from_pretrained(folder)
        model = transformers.AutoModelForImageTextToText.from_config(config)
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        found.pop("lm_head.weight", None)
    for name, (*experts, _, _) in [item for item in found.items() if ".experts." in item[0]]:
        # Newer releases hold experts the other way round than files do.
        hidden, inner = _TEXT["hidden_size"], _EXPERTS["moe_intermediate_size"]
        found[name] = (
            (*experts, hidden, 2 * inner) if "gate_up" in name else (*experts, inner, hidden)
        )
    return found


def write(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str, some: bytes) -> None:
    """A safetensors file of 2-byte numbers, filled with ``some`` over and over."""
    header, end = {}, 0
    for name, shape in shapes.items():
        begin, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for begin in range(0, end, len(some)):
            file.write(some[: end - begin])


def read_seconds(folder: Path) -> float:
    """Seconds to read the weights' bytes and do nothing with them."""
    buffer = bytearray(1 << 24)
    started = time.perf_counter()
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass
    return time.perf_counter() - started


class Peak(threading.Thread):
    """Peak memory of this process since this was created, sampled every few milliseconds."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._stopped = threading.Event()
        self._base = self._peak = _memory()

    def run(self) -> None:
        while not self._stopped.wait(0.003):
            self._sample()

    def stop(self) -> tuple[int, int]:
        """Peak bytes above the start: in all, and without mapped files."""
        self._sample()
        self._stopped.set()
        return self._peak[0] - self._base[0], self._peak[1] - self._base[1]

    def _sample(self) -> None:
        now = _memory()
        self._peak = max(self._peak[0], now[0]), max(self._peak[1], now[1])


def _memory() -> tuple[int, int]:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return tuple(1024 * int(fields[name].split()[0]) for name in ("VmRSS", "RssAnon"))  # type: ignore[return-value]


def load_in_process(folder: Path, precision: str) -> Load:
    """Loads in this process, which must not have loaded a big model before."""
    pack = load_pack()
    import torch
    from qwen_vl_suite.qwenvl import families, types
    from qwen_vl_suite.qwenvl.checkpoints import files, library
    from qwen_vl_suite.qwenvl.models import loading, model_tensors

    def load(path: Path) -> Any:
        spec = types.LocalSpec(str(path), precision=precision, device="cpu")
        family = families.family_of(files.read_settings(path, "config.json"))
        with torch.no_grad():
            return loading.load_model(path, spec, family, lambda done, total: None)

    assert pack
    load(library.BUNDLED)  # everything is imported now
    watch = Peak()
    watch.start()
    started = time.perf_counter()
    model = load(folder)
    loaded = time.perf_counter()
    for parameter in model.parameters():
        parameter.data.view(-1).view(torch.uint8)[::4096].max()
    touched = time.perf_counter()
    peak, anonymous = watch.stop()
    return Load(
        model_tensors.model_bytes(model), peak, anonymous, loaded - started, touched - started
    )


def load_in_subprocess(folder: Path, precision: str) -> Load:
    """``load_here`` in a process of its own, the best times and the highest peaks of several."""
    command = [sys.executable, "-m", "benchmarks.loading", "--one", str(folder), precision]
    runs = []
    for _ in range(REPEATS):
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(Load(**json.loads(done.stdout.splitlines()[-1])))
    return Load(
        weights=runs[0].weights,
        peak=max(run.peak for run in runs),
        peak_anonymous=max(run.peak_anonymous for run in runs),
        seconds=min(run.seconds for run in runs),
        seconds_touched=min(run.seconds_touched for run in runs),
    )


def measure() -> dict[str, Any]:
    import torch
    import transformers

    found: dict[str, Any] = {
        "transformers": transformers.__version__,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cases": [],
    }
    for shape, stored, precision in CASES:
        with tempfile.TemporaryDirectory(prefix="loading-") as name:
            folder = Path(name)
            make(folder, SHAPES[shape], stored)
            size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
            read = min(read_seconds(folder) for _ in range(REPEATS))
            load = load_in_subprocess(folder, precision)
        found["cases"].append(
            {
                "case": f"{shape}, {stored} to {precision}",
                "checkpoint_bytes": size,
                "weights_bytes": load.weights,
                "peak_to_weights": round(load.peak / load.weights, 3),
                "peak_anonymous_to_weights": round(load.peak_anonymous / load.weights, 3),
                "seconds_reading_alone": round(read, 3),
                "seconds_loading": round(load.seconds, 3),
                "seconds_loading_and_looking": round(load.seconds_touched, 3),
            }
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    parser.add_argument("--one", nargs=2, metavar=("FOLDER", "PRECISION"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, precision = options.one
        print(json.dumps(dataclasses.asdict(load_in_process(Path(folder), precision))))
        return
    found = measure()
    if options.json:
        print(json.dumps(found, indent=2))
        return
    for case in found["cases"]:
        print(*(f"{name}: {value}" for name, value in case.items()), sep="\n  ")


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
