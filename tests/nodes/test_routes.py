"""The Loader's panel: the memory forecast of its widgets, and the HTTP route that serves it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import folder_paths
import own_loop
import pytest
import torch
from qwen_vl_suite.nodes import forecast as node_forecast
from qwen_vl_suite.nodes import host
from qwen_vl_suite.nodes.forecast import forecast
from qwen_vl_suite.nodes.host import machine, routes
from qwen_vl_suite.qwenvl.backends.base import Backend
from qwen_vl_suite.qwenvl.backends.scripted import ResidentScriptedBackend, ScriptedBackend
from qwen_vl_suite.qwenvl.checkpoints import library
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.model_cache import ModelCache
from qwen_vl_suite.qwenvl.models import footprint
from qwen_vl_suite.qwenvl.models.memory import Memory
from qwen_vl_suite.qwenvl.types import LocalSpec, Spec

GB = 10**9
NANO = "nano (bundled demo)"


class Machine(Memory):
    """A CPU with as much memory as a test wants."""

    def __init__(self) -> None:
        self.here, self.movable, self.total = 1000 * GB, 0, 1000 * GB

    def free(self, device: torch.device) -> int:
        return self.here


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelCache]:
    """An empty cache, whose models are scripted."""

    def load(spec: Spec) -> Backend:
        return ResidentScriptedBackend()

    found = ModelCache(load)
    monkeypatch.setattr(node_forecast, "CACHE", found)
    yield found
    found.clear()


@pytest.fixture
def memory(cache: ModelCache, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine()
    cache.memory = found
    monkeypatch.setattr(host, "movable_memory", lambda device: found.movable)
    monkeypatch.setattr(host, "total_memory", lambda device: found.total)
    return found


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model folder, the only one there is."""
    folder = tmp_path / "models"
    folder.mkdir()
    folders = {**folder_paths.folder_names_and_paths, host.FOLDER_KEY: ([str(folder)], set())}
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", folders)
    return folder


def forecast_of(model: str, **widgets: str) -> dict[str, Any]:
    return forecast({"model": model, "device": "cpu", **widgets})


def put(folder: Path, without: str = "", **config: Any) -> Path:
    """A checkpoint there: the bundled one, less one file, with more in its ``config.json``."""
    shutil.copytree(library.BUNDLED, folder)
    settings = folder / "config.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **config}))
    if without:
        (folder / without).unlink()
    return folder


def test_the_forecast_of_a_model_on_disk(memory: Machine) -> None:
    found = forecast_of(NANO, precision="fp32")
    assert (found["name"], found["availability"], found["loaded"]) == ("nano", "here", "")
    spec = LocalSpec(str(library.BUNDLED), "fp32", device="cpu")
    assert found["weights"] == footprint.estimated_bytes(library.BUNDLED, spec)
    assert found["fits"] == "now"
    assert (found["device"], found["free"], found["total"]) == ("cpu", 1000 * GB, 1000 * GB)
    assert forecast_of(NANO, precision="bf16")["weights"] < found["weights"]
    assert (
        forecast_of(NANO, quantization="4bit")["weights"]
        < forecast_of(NANO, quantization="8bit")["weights"]
    )


def test_the_forecast_of_a_loaded_model(cache: ModelCache, memory: Machine) -> None:
    spec = LocalSpec(str(library.BUNDLED), "auto", "none", "sdpa", "cpu")
    backend: Any = cache.get(spec)
    assert forecast_of(NANO, attention="sdpa")["loaded"] == ""  # opened, but only on disk
    backend.place, backend.size = "device", 12345
    memory.here = 0  # it is there already
    found = forecast_of(NANO, attention="sdpa")
    assert (found["loaded"], found["weights"], found["fits"]) == ("device", 12345, "now")
    backend.place = "ram"
    found = forecast_of(NANO, attention="sdpa")
    assert (found["loaded"], found["fits"]) == ("ram", "no")
    assert forecast_of(NANO, attention="eager")["loaded"] == ""  # another model, by its settings
    assert forecast_of(NANO, attention="sdpa", optimize="off")["loaded"] == ""


def test_the_forecast_of_a_model_that_runs_elsewhere(cache: ModelCache, memory: Machine) -> None:
    cache._load = lambda spec: ScriptedBackend()
    cache.get(LocalSpec(str(library.BUNDLED), "auto", "none", "sdpa", "cpu"))
    found = forecast_of(NANO, attention="sdpa")
    assert (found["loaded"], found["fits"]) == ("", "now")


@pytest.mark.parametrize(
    ("free", "movable", "fits", "lighter"),
    [
        pytest.param(80, 0, "now", "", id="enough free"),
        pytest.param(5, 75, "after others", "", id="once others are moved out"),
        pytest.param(20, 5, "no", "4bit", id="only 4bit would"),
    ],
)
def test_whether_it_fits_and_what_would(
    root: Path, memory: Machine, free: int, movable: int, fits: str, lighter: str
) -> None:
    memory.here, memory.movable = free * GB, movable * GB
    found = forecast_of("Qwen/Qwen3-VL-32B-Instruct", precision="bf16")
    assert (found["fits"], found["lighter"]) == (fits, lighter)


def test_a_split_model_has_the_memory_of_all_cards(
    root: Path, memory: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (9, 0))
    memory.here, memory.movable, memory.total = 20 * GB, 3 * GB, 24 * GB
    found = forecast_of("Qwen/Qwen3-VL-32B-Instruct", device="split")
    assert (found["device"], found["fits"]) == ("3 × cuda", "after others")
    assert [found[key] // GB for key in ("free", "movable", "total")] == [60, 9, 72]


def test_only_possible_quantizations_are_suggested(root: Path, memory: Machine) -> None:
    memory.here = 0
    assert forecast_of(NANO)["lighter"] == ""
    memory.here = 50 * GB
    assert forecast_of("Qwen/Qwen3-VL-30B-A3B-Instruct", precision="bf16")["lighter"] == ""
    for name in ("Qwen/Qwen3-VL-30B-A3B-Instruct", "Qwen/Qwen3-VL-4B-Instruct-FP8"):
        with pytest.raises(BadOption, match=r"4bit is not for .* none"):
            forecast_of(name, quantization="4bit")
    put(root / "mixture", text_config={"num_experts": 8})
    put(root / "packed", quantization_config={"quant_method": "hqq"})
    for name in ("mixture", "packed"):
        with pytest.raises(BadOption, match=r"mixture of experts|quantised already"):
            forecast_of(name, quantization="8bit")


def test_the_forecast_of_a_download(root: Path, memory: Machine) -> None:
    name = "Qwen/Qwen3-VL-4B-Instruct"
    found = forecast_of(f"{name} (download, 8.9 GB)", precision="bf16")
    assert (found["name"], found["availability"]) == ("Qwen3-VL-4B-Instruct", "download")
    assert found["to_download"] == library.CATALOGUE[name].nbytes
    assert not found["partial"] and abs(found["weights"] - 8.9 * GB) < 0.1 * GB
    folder = root / "Qwen-VL" / "Qwen3-VL-4B-Instruct"
    folder.mkdir(parents=True)
    for file, size in (("model-00001-of-00002.safetensors", 3000), ("b.safetensors.part", 500)):
        (folder / file).write_bytes(bytes(size))
    part = forecast_of(name)
    assert part["partial"] and part["to_download"] == found["to_download"] - 3500


def test_the_forecast_of_an_incomplete_model(root: Path, memory: Machine) -> None:
    put(root / "mine", without="model.safetensors")
    found = forecast_of("mine (incomplete)")
    assert (found["availability"], found["weights"]) == ("incomplete", None)
    assert found["problem"] == "model.safetensors is missing"


@pytest.mark.parametrize(
    ("widgets", "message"),
    [
        ({"model": "zzz"}, "no model 'zzz' in models"),
        ({"model": "../../etc"}, r"no model '\.\./\.\./etc'"),
        ({"model": "/etc"}, "no model '/etc'"),
        ({}, "no model ''"),
        ({"model": NANO, "quantization": "3bit"}, "use one of none, 8bit, 4bit"),
        ({"model": NANO, "precision": "fp12"}, "use one of auto, bf16"),
        ({"model": NANO, "attention": "paid"}, "use one of auto, sdpa"),
        ({"model": NANO, "device": "cuda:99"}, "cuda:99"),
        ({"model": NANO, "device": "toaster"}, "no device name"),
    ],
    ids=str,
)
def test_bad_settings_are_refused_with_the_engines_errors(
    root: Path, widgets: dict[str, str], message: str
) -> None:
    with pytest.raises(BadOption, match=message) as caught:
        forecast({"device": "cpu", **widgets})
    assert str(root.parent) not in str(caught.value)


def test_no_folder_of_this_machine_is_sent(root: Path, memory: Machine) -> None:
    put(root / "cut", without="tokenizer.json")
    (root / "cut" / "model.safetensors").unlink()
    (root / "cut" / "model.safetensors").symlink_to(root / "gone")
    for found in (forecast_of("cut"), forecast_of(NANO), forecast_of("Qwen/Qwen3.5-2B")):
        assert str(root.parent) not in json.dumps(found)
        assert str(library.BUNDLED.parents[1]) not in json.dumps(found)


def test_no_weight_is_read(root: Path, memory: Machine, cache: ModelCache) -> None:
    folder = put(root / "large")
    file = folder / "model.safetensors"
    length = int.from_bytes(file.read_bytes()[:8], "little")
    size = file.stat().st_size
    with file.open("r+b") as content:  # zeros in place of all weights
        content.truncate(8 + length)
        content.truncate(size)
    assert forecast_of("large")["weights"] == forecast_of(NANO)["weights"]
    assert cache.stats().models == 0


def test_only_models_with_another_device_are_movable(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, card = torch.device("cpu"), torch.device("cuda", 0)

    def loaded(device: torch.device, offload: torch.device, size: int) -> Any:
        model = SimpleNamespace(offload_device=offload, loaded_size=lambda: size)
        return SimpleNamespace(device=device, model=model)

    gone = SimpleNamespace(device=card, model=None)
    models = [loaded(card, cpu, 1), gone, loaded(card, card, 2), loaded(cpu, cpu, 4)]
    found = {("comfy.model_management", "current_loaded_models"): [*models, loaded(card, cpu, 8)]}
    monkeypatch.setattr(machine, "optional_import", lambda *name: found.get(name))
    assert machine.movable_memory(card) == 9
    assert machine.movable_memory(cpu) == 0
    assert machine.total_memory(cpu) > 0


class Server:
    """The parts of ComfyUI's server and of aiohttp that a route uses."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}
        self.instance = SimpleNamespace(routes=self)

    def get(self, path: str) -> Callable[[Any], Any]:
        def decorate(handler: Any) -> Any:
            assert path not in self.handlers, "registered twice"
            return self.handlers.setdefault(path, handler)

        return decorate

    post = get

    @staticmethod
    def json_response(body: Mapping[str, Any], status: int) -> tuple[int, Mapping[str, Any]]:
        return status, json.loads(json.dumps(body))

    def ask(self, path: str, **query: str) -> tuple[int, dict[str, Any]]:
        return own_loop.run(self.handlers[path](SimpleNamespace(query=query)))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    found = Server()
    parts = {"server": found, "aiohttp.web": found}
    monkeypatch.setattr(routes, "optional_import", lambda module, name="": parts[module])
    monkeypatch.setattr(routes, "_registered", set())
    return found


def test_the_route_is_registered_once_and_answers(server: Server, memory: Machine) -> None:
    for _ in range(2):
        host.serve_json("/qwen_vl/model", forecast)
    status, body = server.ask("/qwen_vl/model", model=NANO, device="cpu")
    assert (status, body) == (200, forecast_of(NANO))
    status, body = server.ask("/qwen_vl/model", model="zzz")
    assert status == 400 and "no model 'zzz'" in body["error"]


def test_a_bug_is_not_turned_into_a_bad_request(server: Server) -> None:
    def broken(query: Mapping[str, str]) -> Mapping[str, Any]:
        raise RuntimeError("a bug")

    host.serve_json("/broken", broken)
    with pytest.raises(RuntimeError, match="a bug"):
        server.ask("/broken")


def test_what_is_waited_for_keeps_no_process_from_exiting() -> None:
    code = (
        f"import sys, time; sys.path.append({str(Path(routes.__file__).parent)!r}); "
        "from daemon_threads import DaemonThreads; pool = DaemonThreads(1, 'x'); "
        "print(pool.submit(int, '7').result()); pool.submit(time.sleep, 600)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("7\n", 0), done.stderr


def test_a_slow_disk_does_not_block_the_server() -> None:
    disk = threading.Event()

    def slow(query: Mapping[str, str]) -> Mapping[str, Any]:
        assert disk.wait(30)
        return {"disk": "came"}

    async def others_go_on() -> Any:
        waiting = asyncio.create_task(routes.respond(slow, {}))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done()
        disk.set()
        return await waiting

    assert own_loop.run(others_go_on()) == (200, {"disk": "came"})


def test_a_host_without_a_server_has_no_route(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "optional_import", lambda module, name="": None)
    monkeypatch.setattr(routes, "_registered", set())
    host.serve_json("/qwen_vl/model", forecast)
    assert not routes._registered


def test_the_pack_registers_it_when_it_starts(
    server: Server, nodes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from qwen_vl_suite.nodes.extension import QwenVLSuite

    own_loop.run(QwenVLSuite().get_node_list())
    routes = [
        "/qwen_vl/model",
        "/qwen_vl/gguf_model",
        "/qwen_vl/download_size",
        "/qwen_vl/allow_download",
        "/qwen_vl/server_models",
        "/qwen_vl/style",
    ]
    assert sorted(server.handlers) == sorted(routes)
