"""The servers command: what answers at addresses, told without a question to any model."""

from __future__ import annotations

import pytest
from fake_server import Answer, serving

KEY = "sk-canary-0123456789"
NOBODY = "http://127.0.0.1:9/v1"


@pytest.fixture
def keyed(own_folder):
    """``keyed(server)`` writes a key for it."""

    def write(server):
        own_folder.mkdir()
        (own_folder / "keys.yaml").write_text(f"127.0.0.1:{server.port}: {KEY}\n")
        (own_folder / "keys.yaml").chmod(0o600)

    return write


def test_each_address_is_told_of_with_its_models_and_what_will_not_work(run, keyed):
    studio = ("qwen/qwen3-vl-8b", "my-own", "qwen3-vl-embedding-2b")
    with (
        serving(models=studio, owner="organization_owner") as first,
        serving(models=("Qwen/Qwen2.5-VL-7B-Instruct",), owner="vllm") as second,
    ):
        keyed(second)
        status, (one, other), err = run("servers", first.url, second.url, "--json")
        assert not first.chats + second.chats
        assert second.asked[0].headers["Authorization"] == f"Bearer {KEY}"
    assert (status, err) == (0, "")
    assert (one["kind"], one["key"], one["logprobs"]) == ("lmstudio", False, False)
    told = {model["name"]: (model["family"], model["remark"]) for model in one["models"]}
    assert told["qwen/qwen3-vl-8b"] == ("qwen3_vl", "")
    assert told["my-own"][0] is None and "--family" in told["my-own"][1]
    assert "writes nothing" in told["qwen3-vl-embedding-2b"][1]
    assert one["pictures"]["longest_side"] == 2048
    said = " ".join(one["shortcomings"])
    for what in ("choices, regular expressions or grammars", "no log-probabilities", "sounds"):
        assert what in said
    assert (other["kind"], other["key"]) == ("vllm", True)
    (only,) = other["shortcomings"]
    assert "--trust-request-mm-kwargs" in only


def test_one_that_does_not_answer_costs_only_its_own_line(run, keyed):
    refused = Answer(status=401, body=f'{{"error": "bad key {KEY}"}}'.encode())
    with serving(owner="vllm") as good, serving() as closed:
        closed.listing = refused
        keyed(closed)
        status, out, err = run("servers", NOBODY, closed.url, good.url)
    assert status == 1
    assert f"{good.url}: vLLM" in out and "Qwen3-VL-8B (Qwen3-VL)" in out
    assert "none found" in out
    lines = err.splitlines()
    assert NOBODY in lines[0] and "Start it" in lines[0]
    assert closed.url in lines[1] and "QWENVL_KEY_127_0_0_1" in lines[1]
    assert KEY not in out + err


def test_a_list_is_cut_and_names_known_models_first(run):
    names = [*(f"gpt-{number}" for number in range(40)), "Qwen3-VL-4B"]
    with serving(models=names, owner="vllm") as server:
        _, out, _ = run("servers", server.url)
    assert out.splitlines()[1].split()[:2] == ["models", "Qwen3-VL-4B"]
    assert "and 11 more (--json lists all)" in out


def test_addresses_are_parted_by_commas_as_those_of_replicas_are(run):
    with serving(owner="vllm") as one, serving(owner="vllm") as other:
        status, rows, _ = run("servers", f"{one.url},{other.url}", one.url, "--json")
    assert (status, [row["url"] for row in rows]) == (0, [one.url, other.url])


def test_nothing_that_a_server_says_reaches_the_terminal_as_a_command(run):
    hostile = "evil\x1b]0;title\x07"
    refused = Answer(status=403, body=b'{"error": "go \\u001b[31maway"}')
    with serving(models=("Qwen3-VL-4B", hostile), owner="vllm") as one, serving() as other:
        other.listing = refused
        _, out, err = run("servers", one.url, other.url)
    assert "Qwen3-VL-4B" in out and "go [31maway" in err
    assert "\x1b" not in out + err


def test_an_address_that_may_not_be_used_is_refused_before_any_is_asked(run):
    with serving(owner="vllm") as server:
        status, _, err = run("servers", server.url, "http://192.168.1.5:8000/v1")
        assert status == 2 and "no TLS" in err
        assert not server.asked
