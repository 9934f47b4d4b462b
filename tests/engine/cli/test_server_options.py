"""Options that put a model behind a server in the place of one of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_server import Answer, serving
from PIL import Image
from qwen_vl_suite.qwenvl.cli import doctor
from qwen_vl_suite.qwenvl.cli.model_options import spec_of
from qwen_vl_suite.qwenvl.cli.parser import make_parser
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.servers.addresses import parse
from qwen_vl_suite.qwenvl.servers.keys import Keys
from qwen_vl_suite.qwenvl.types import LocalSpec, ServerSpec

URL = "http://127.0.0.1:8000/v1"
COMMANDS = {
    "describe": ("a.png",),
    "ocr": ("a.png",),
    "ground": ("a.png", "--find", "cat"),
    "extract": ("a.png", "--keys", "a"),
    "layout": ("a.png",),
    "chat": ("--turn", "hello"),
    "video": ("a.mp4",),
    "listen": ("a.wav",),
    "prompt": ("an idea",),
    "score": ("a.png", "--text", "a cat"),
    "doctor": (),
}


def spec(command, *more):
    return spec_of(make_parser(None).parse_args([command, *COMMANDS[command], *more]))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_takes_a_model_takes_one_behind_a_server(command):
    replica = "https://other.example/v1"
    more = ("--server", replica, "--server-model", "qwen3-vl", "--family", "qwen3_vl")
    how = ("--server-kind", "vllm", "--concurrency", "3", "--timeout", "9", "--allow-http")
    found = spec(command, "--server", URL, *more, *how)
    assert found == ServerSpec((URL, replica), "qwen3-vl", "qwen3_vl", "vllm", 3, 9.0, True)
    assert spec(command, "--server", URL) == ServerSpec((URL,))
    assert isinstance(spec(command), LocalSpec)


REFUSED = {
    "a model here too": (("--server", URL, "--model", "nano"), "--model"),
    "how to load it": (("--server", URL, "--quantization", "4bit"), "--quantization"),
    "a longer context": (("--server", URL, "--yarn", "4"), "--yarn"),
    "an adapter": (("--server", URL, "--lora", "mine"), "--lora"),
    "where models lie": (("--server", URL, "--root", "models"), "--root"),
    "a server's model without one": (("--server-model", "qwen3-vl"), "--server-model"),
    "http without a server": (("--allow-http",), "--allow-http"),
    "a key in the address": (("--server", "http://me:secret@host/v1"), "password"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_do_not_go_together_are_refused_by_name(case, run, model):
    options, named = REFUSED[case]
    backend = model("never")
    status, _, err = run("describe", "a.png", *options)
    assert status == 2
    assert named in err
    assert "secret" not in err
    assert not backend.specs


def test_a_command_asks_the_server(run, model, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(path)
    backend = model("A black square.")
    status, out, _ = run("describe", path, "--server", URL, "--server-model", "qwen3-vl")
    assert (status, out.strip()) == (0, "A black square.")
    assert backend.specs == [ServerSpec((URL,), "qwen3-vl")]


def test_the_name_of_a_servers_model_tells_a_fine_tune(run, model, tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(path)
    told = model("text", family="qwen2_5_vl")
    run("ocr", path, "--server", URL, "--server-model", "allenai/olmOCR-7B-0825")
    plain = model("text", family="qwen2_5_vl")
    run("ocr", path, "--server", URL, "--server-model", "qwen2.5-vl-7b")
    assert told.requests[0].prompt != plain.requests[0].prompt


def test_a_report_of_a_server_names_neither_its_host_nor_its_model(run, model):
    model(lambda request: "None found.")
    server = ("--server", "https://vision.private-host.example/v1")
    _, out, err = run(
        "doctor", *server, "--server-model", "my-secret-model", "--scenes", "1", "--seconds", "30"
    )
    assert "None found." in out
    for private in ("private-host", "my-secret-model"):
        assert private not in out + err


def test_a_report_names_no_host_by_the_variable_of_its_key():
    url = "https://vision.private-host.example:8443/v1"
    redact = doctor._redactor(make_parser(None).parse_args(["doctor", "--server", f"{url}, {url}"]))
    for place in Keys(Path("keys.yaml")).places(parse(url)):
        assert "private" in place.lower()
        assert "private" not in redact(place).lower().replace("<private>", "")


def test_wrong_numbers_are_refused():
    with pytest.raises(BadOption, match="concurrency is 0"):
        spec("describe", "--server", URL, "--concurrency", "0")


def test_what_a_server_cannot_be_told_is_said_once_in_a_run(run, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.new("RGB", (40, 40), (number, 0, 0)).save(path)
    asked = ("--temperature", "0.7", "--top-k", "5", "--max-new-tokens", "9")
    with serving(Answer("A square.", finish="length"), owner="library") as server:
        server_options = ("--server", server.url, *asked)
        _, rows, err = run("describe", *paths, "--json", *server_options)
        assert err.count("top_k has no effect here: Ollama") == 1
        assert err.count("The reply was cut at 9 tokens") == 3
        assert all("top_k has no effect" in " ".join(row["notes"]) for row in rows)
        server.script = lambda body, number: "A square."
        _, _, err = run("caption", tmp_path, *server_options)
        assert err.count("top_k has no effect") == 1 and "3 captioned" in err
