"""A real ComfyUI with the pack in it, for tests that need one.

``COMFYUI`` names a checkout; ``COMFYUI_PYTHON`` the Python that has its requirements and ours
(else the checkout's own environment, else the one ``make comfy`` makes, else this Python). Models,
inputs, outputs, settings and the database lie in a temporary folder: the checkout is only read.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PICTURES = ROOT / "example_workflows" / "pictures"
PRETEND_CARD = Path(__file__).resolve().parent / "pretend_card"
_PLACES = {"--cpu", "--gpu-only", "--highvram", "--lowvram", "--novram"}
_START_LIMIT = 300
_RUN_LIMIT = 300


class Server:
    """The HTTP side of a ComfyUI, as far as the tests use it."""

    def __init__(self, url: str, base: Path, pid: int):
        self.url, self.base, self.pid = url, base, pid

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=60) as response:
            return json.load(response)

    def post(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return json.loads(response.read() or b"null")
        except urllib.error.HTTPError as error:
            return json.loads(error.read())

    def start(self, prompt: dict[str, Any], client_id: str = "") -> str:
        """Queues a workflow in API form. Fails on any error that ComfyUI sees before the run."""
        client_id = client_id or uuid.uuid4().hex
        answer = self.post("/prompt", {"prompt": prompt, "client_id": client_id})
        # A workflow with a bad node can still be accepted for the sake of its other nodes.
        assert answer.get("node_errors") == {}, answer
        return answer["prompt_id"]

    def run(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """Outputs by node id of a workflow. Fails on any error a node reports."""
        entry = self.finished(self.start(prompt))
        status = entry["status"]
        assert status["status_str"] == "success", status["messages"]
        return entry["outputs"]

    def ends(self, prompt_id: str) -> dict[str, Any]:
        """What ComfyUI reported of a workflow until it ended, by kind of message."""
        return dict(self.finished(prompt_id)["status"]["messages"])

    def free(self, done: Callable[[], object], **what: bool) -> None:
        """Asks ComfyUI to free ``what`` (its models and all memory) until ``done``. Asked while it
        is between two looks at its queue, ComfyUI heeds it only at the next prompt."""
        for _ in range(12):
            self.post("/free", what or {"unload_models": True, "free_memory": True})
            for _ in range(15):
                if done():
                    return
                time.sleep(0.2)
        raise AssertionError("ComfyUI was asked to free its memory and did not.")

    def finished(self, prompt_id: str) -> dict[str, Any]:
        deadline = time.monotonic() + _RUN_LIMIT
        while time.monotonic() < deadline:
            # The history stays empty for a moment after the last node has run.
            entry = self.get(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry.get("status"):
                return entry
            time.sleep(0.2)
        raise AssertionError(f"The workflow did not end within {_RUN_LIMIT} s")


def python(checkout: Path) -> str:
    own = [checkout / ".venv/bin/python", checkout / "venv/bin/python"]
    candidates = [os.environ.get("COMFYUI_PYTHON"), *own, ROOT / ".venv-comfyui/bin/python"]
    return next((str(path) for path in candidates if path and Path(path).exists()), sys.executable)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _needs_cpu_option(options: Sequence[str]) -> bool:
    """ComfyUI takes one of these options at most."""
    return shutil.which("nvidia-smi") is None and not _PLACES.intersection(options)


@contextmanager
def started(
    base: Path,
    *options: str,
    extensions: Sequence[Path] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """A running ComfyUI with the pack and ``extensions`` in it, all its files below ``base``.
    ``options``: more of its command line; ``env``: more of its environment. Skips the test where
    no checkout is named."""
    if not os.environ.get("COMFYUI"):
        pytest.skip("COMFYUI names no ComfyUI checkout")
    checkout = Path(os.environ["COMFYUI"]).resolve()
    for name in ("custom_nodes", "input", "models", "output", "temp", "user"):
        (base / name).mkdir(exist_ok=True)
    (base / "custom_nodes" / "qwen-vl-suite").symlink_to(ROOT)
    for extension in extensions:
        (base / "custom_nodes" / extension.name).symlink_to(extension)
    for picture in PICTURES.glob("*.png"):
        shutil.copy(picture, base / "input")
    port = _free_port()
    command = [
        *(python(checkout), "main.py", "--listen", "127.0.0.1", "--port", str(port)),
        *("--base-directory", str(base), "--database-url", f"sqlite:///{base / 'comfyui.db'}"),
        *("--disable-auto-launch", "--disable-api-nodes"),
        *(["--cpu"] if _needs_cpu_option(options) else []),
        *options,
    ]
    log = base / "server.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            cwd=checkout,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **(env or {})},
        )
    try:
        yield _ready(Server(f"http://127.0.0.1:{port}", base, process.pid), process, log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _ready(server: Server, process: subprocess.Popen[str], log: Path) -> Server:
    deadline = time.monotonic() + _START_LIMIT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            server.get("/system_stats")
        except OSError:
            time.sleep(0.5)
        else:
            return server
    raise AssertionError("ComfyUI did not start:\n" + log.read_text()[-4000:])
