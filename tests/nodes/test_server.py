"""The Server node: whose models, asked when, and with whose key."""

from __future__ import annotations

import json
import logging
import math
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_server import Answer, FakeServer, serving
from qwen_vl_suite.nodes import servers
from qwen_vl_suite.nodes.model import ModelHandle
from qwen_vl_suite.qwenvl.errors import BadOption, QwenVLError, ServerError
from qwen_vl_suite.qwenvl.observer import Observer
from qwen_vl_suite.qwenvl.servers.client_thread import ClientThread
from qwen_vl_suite.qwenvl.servers.keys import KEYS
from qwen_vl_suite.qwenvl.types import ServerSpec

BOX = '```json\n[{"bbox_2d": [100, 200, 300, 400], "label": "cat"}]\n```'
KEY = "sk-very-secret-1234567890"


def script(body: dict[str, Any], number: int) -> str:
    text = json.dumps(body["messages"])
    return BOX if "Locate" in text else "A cat on a mat."


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(script, models=("Qwen3-VL-8B-Instruct",)) as running:
        yield running


@pytest.fixture
def picture() -> torch.Tensor:
    return torch.rand(1, 64, 96, 3, generator=torch.Generator().manual_seed(0))


def test_nothing_is_asked_before_a_run(server: FakeServer, nodes: Any) -> None:
    validate = nodes["QVL_Server"].validate_inputs
    nodes["QVL_Server"].define_schema()
    assert validate(servers=server.url, allow_http=False) is True
    assert validate(servers=None, allow_http=None) is True
    assert "no TLS" in validate(servers="http://far.example/v1", allow_http=False)
    assert validate(servers="http://far.example/v1", allow_http=True) is True
    assert "password" in validate(servers="https://me:secret@far.example/v1", allow_http=False)
    assert "secret" not in validate(servers="https://me:secret@far.example/v1", allow_http=False)
    assert "no server address" in validate(servers=" \n", allow_http=False)
    assert server.asked == []


def test_a_model_behind_a_server_answers_the_nodes(
    server: FakeServer, run_node: Any, picture: torch.Tensor
) -> None:
    (model,) = run_node("QVL_Server", servers=f"{server.url}\n")
    assert model.name == "Qwen3-VL-8B-Instruct"  # the only one; its name tells its family
    (texts, _) = run_node("QVL_Describe", model=model, images=picture)[:2]
    assert texts == ["A cat on a mat."]
    found = run_node("QVL_Grounding", model=model, images=picture, find="cat")
    assert [box["label"] for frame in found[1] for box in frame[0]] == ["cat"]
    assert run_node("QVL_Unload", after="done", model=model) == ("done",)


def test_what_a_server_cannot_be_told_is_logged_once(run_node: Any, caplog: Any) -> None:
    with serving("A cat.", owner="library") as server:
        (model,) = run_node("QVL_Server", servers=server.url)
        run_node("QVL_Describe", model=model, images=torch.rand(3, 40, 40, 3))
        assert len(server.chats) == 3
    assert caplog.text.count("top_k has no effect here: Ollama") == 1


def test_its_widgets_are_what_the_server_is_asked_by(server: FakeServer, run_node: Any) -> None:
    (model,) = run_node(
        "QVL_Server", servers=f"{server.url}, https://other.example/v1", model=" mine ",
        family="qwen2_5_vl", server_kind="vllm", concurrency=3, time_limit=7.0, max_pixels=50_000,
    )  # fmt: skip
    wanted = (server.url, "https://other.example/v1")
    assert model.spec == ServerSpec(wanted, "mine", "qwen2_5_vl", "vllm", 3, 7.0)
    assert (model.min_pixels, model.max_pixels) == (None, 50_000)
    assert server.asked == []  # the model is named
    with pytest.raises(BadOption, match="no TLS"):
        run_node("QVL_Server", servers="http://far.example/v1", model="mine")


def test_a_server_that_lists_several_wants_one_named(run_node: Any) -> None:
    with serving("", models=("a", "b")) as server:
        with pytest.raises(BadOption, match=r"2 models \(a, b\)"):
            run_node("QVL_Server", servers=server.url)
        told = servers.listed({"servers": server.url, "allow_http": "false"})
        assert [model["name"] for model in told["models"]] == ["a", "b"]
        assert server.chats == []


def test_the_button_lists_models_with_their_families_and_keeps_to_the_rules() -> None:
    with serving("", models=("Qwen3-VL-8B-Instruct", "llama")) as server:
        assert servers.listed({"servers": server.url}) == {
            "models": [
                {"name": "Qwen3-VL-8B-Instruct", "family": "Qwen3-VL"},
                {"name": "llama", "family": ""},
            ]
        }
    for url in ("http://far.example/v1", "file:///etc/passwd", ""):
        with pytest.raises(BadOption):
            servers.listed({"servers": url, "allow_http": "false"})


@pytest.fixture
def with_key(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    """A server that wants a key, which the keys file holds."""
    file = tmp_path / "keys.yaml"
    file.write_text(f"127.0.0.1:{server.port}: {KEY}\n")
    file.chmod(0o600)
    monkeypatch.setattr(KEYS, "file", file)
    return server


def test_a_key_is_sent_to_its_host_and_shows_nowhere(
    with_key: FakeServer, run_node: Any, picture: torch.Tensor, caplog: Any, capfd: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    (model,) = run_node("QVL_Server", servers=with_key.url)
    shown: list[object] = [repr(model), model.spec, run_node("QVL_Describe", model=model,
                           images=picture)]  # fmt: skip
    sent = [asked.headers.get("Authorization") for asked in with_key.asked]
    assert set(sent[-1:]) == {f"Bearer {KEY}"}
    # A server that quotes what it was sent.
    refusal = Answer(status=401, body=json.dumps({"error": {"message": f"bad {KEY}"}}).encode())
    with_key.script = lambda body, number: refusal
    with pytest.raises(QwenVLError) as raised:
        run_node("QVL_Describe", model=model, images=picture, prompt="another")
    shown += [raised.value, "".join(traceback.format_exception(raised.value))]
    assert isinstance(raised.value, ServerError)
    captured = capfd.readouterr()
    for text in (*map(str, shown), caplog.text, captured.out, captured.err):
        assert KEY not in text


def test_a_key_of_another_port_stays_here(
    with_key: FakeServer, run_node: Any, picture: torch.Tensor
) -> None:
    with serving(script, models=("Qwen3-VL-8B-Instruct",)) as other:
        (model,) = run_node("QVL_Server", servers=other.url)
        run_node("QVL_Describe", model=model, images=picture)
        assert other.chats
        assert not any("Authorization" in asked.headers for asked in other.asked)


def test_an_adapter_is_refused_in_words(run_node: Any) -> None:
    model = ModelHandle(ServerSpec(("http://127.0.0.1:9/v1",), "mine"))
    with pytest.raises(BadOption, match="mine is answered by a server"):
        run_node("QVL_LoRA", model=model, adapter="any")


def test_a_node_learns_about_the_server_where_it_can_be_stopped(
    server: FakeServer, run_node: Any, picture: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    observers = []
    ask = ClientThread.run

    def run(self: Any, work: Any, observer: Observer) -> Any:
        observers.append(type(observer))
        return ask(self, work, observer)

    monkeypatch.setattr(ClientThread, "run", run)
    (model,) = run_node("QVL_Server", servers=server.url)
    run_node("QVL_Describe", model=model, images=picture)
    assert len(observers) >= 3 and Observer not in observers


def test_while_no_model_is_named_another_one_runs_the_graph_anew(
    server: FakeServer, nodes: Any
) -> None:
    def fingerprint(model: Any = "", servers: Any = server.url) -> Any:
        node = nodes["QVL_Server"]
        return node.fingerprint_inputs(servers=servers, model=model, allow_http=False)

    assert fingerprint("mine") == fingerprint(None) == ""
    assert server.asked == []
    first = fingerprint()
    assert fingerprint() == first
    server.models = ("Qwen2.5-VL-3B-Instruct",)
    assert fingerprint() != first
    server.models = ()
    assert math.isnan(fingerprint()) and math.isnan(fingerprint(servers=""))
