"""Addresses and keys: a key goes to its own host, encrypted, and shows nowhere."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.servers.addresses import check_allowed, parse
from qwen_vl_suite.qwenvl.servers.keys import HIDDEN, Key, Keys, variable

CANARY = "sk-canary-0123456789"


@pytest.mark.parametrize(
    ("url", "authority", "loopback"),
    [
        ("http://127.0.0.1:8000/v1", "127.0.0.1:8000", True),
        ("http://127.8.9.1/v1", "127.8.9.1", True),
        ("http://localhost:80", "localhost", True),
        ("http://[::1]:8080/v1", "[::1]:8080", True),
        ("https://API.Example.com:443/v1", "api.example.com", False),
        ("https://my_box:8443", "my_box:8443", False),
        ("http://192.168.1.5/v1", "192.168.1.5", False),
        ("http://localhost.example.com/v1", "localhost.example.com", False),
        ("http://0.0.0.0:8000", "0.0.0.0:8000", False),
        ("http://[::ffff:127.0.0.1]:8000", "[::ffff:127.0.0.1]:8000", True),
        ("http://[::ffff:192.168.1.5]", "[::ffff:192.168.1.5]", False),
    ],
)
def test_parts_of_addresses(url: str, authority: str, loopback: bool) -> None:
    address = parse(url)
    assert (address.authority, address.is_loopback) == (authority, loopback)


@pytest.mark.parametrize(
    "url",
    [
        "https://good.com\\.evil.com/v1", "https://good.com:x/v1", "https://good.com:70000",
        "https://a..b/v1", "https://-a.com", "https://exämple.com", "https://a.com/v 1",
        "https://[::1", "http://127.0.0.1:8000:9/v1", "https://a.com;b.com/v1",
        "http://[1:2]:8000/v1", "http://[.]:8000/v1", "http://[127.0.0.1]/v1",
    ],
)  # fmt: skip
def test_an_address_that_two_readers_may_read_differently_is_refused(url: str) -> None:
    with pytest.raises(BadOption, match="no server address"):
        parse(url)


def test_other_machines_are_asked_without_tls_only_if_that_is_allowed() -> None:
    far = parse("http://192.168.1.5:8000/v1")
    with pytest.raises(BadOption, match=r"192\.168\.1\.5.*no TLS.*allow_http"):
        check_allowed(far, allow_http=False)
    check_allowed(far, allow_http=True)
    check_allowed(parse("https://example.com/v1"), allow_http=False)
    check_allowed(parse("http://localhost:1/v1"), allow_http=False)


@pytest.mark.parametrize(
    ("url", "own"),
    [("http://0.0.0.0:8000/v1", "127.0.0.1"), ("https://[::]:8000/v1", "[::1]")],
)
def test_where_a_server_listens_is_no_address_to_ask(url: str, own: str) -> None:
    for allow_http in (False, True):
        with pytest.raises(BadOption, match=f"where a server listens.* Write {re.escape(own)} "):
            check_allowed(parse(url), allow_http)


LABEL = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=4).filter(
    lambda text: text[0] != "-" and text[-1] != "-"
)
HOST = st.lists(LABEL, min_size=1, max_size=4).map(".".join)


@given(HOST, HOST, st.sampled_from(["", ":443", ":80", ":8443"]), st.sampled_from(["", ":8443"]))
def test_no_two_hosts_have_the_same_variable(one: str, other: str, port: str, own: str) -> None:
    first, second = parse(f"https://{one}{port}"), parse(f"https://{other}{own}")
    if variable(first) and variable(first) == variable(second):
        assert first.authority == second.authority


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://api.example.com/v1", "QWENVL_KEY_API_EXAMPLE_COM"),
        ("https://my-box.local:8443", "QWENVL_KEY_MY__BOX_LOCAL_8443"),
        ("http://127.0.0.1:8000/v1", "QWENVL_KEY_127_0_0_1_8000"),
        ("https://a.8000", ""),
        ("https://my_box.local", ""),
        ("http://[::1]:8000", ""),
    ],
)
def test_the_variable_of_a_host(url: str, name: str) -> None:
    assert variable(parse(url)) == name


def test_a_key_of_the_environment_is_for_its_host_alone_and_encrypted() -> None:
    keys = Keys(environ={"QWENVL_KEY_API_EXAMPLE_COM": CANARY, "OPENAI_API_KEY": "other"})
    found = keys.find(parse("https://api.example.com/v1"))
    assert found and found.value == CANARY
    for elsewhere in (
        "https://api.example.com:8443/v1", "http://api.example.com:443/v1",
        "https://api.example.com.evil.com/v1", "https://api-example.com/v1", "https://openai.com",
    ):  # fmt: skip
        assert keys.find(parse(elsewhere)) is None


def test_the_keys_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(
        f"api.example.com: {CANARY}\nBox.local:8443: '12'\nlocalhost:8000: 0x10\n"
        "http://192.168.1.5:8000: lan\n192.168.1.6:8000: tls\n"
    )
    file.chmod(0o644)
    keys = Keys(file, {})
    found = {
        url: key and key.value
        for url in (
            "https://api.example.com/v1", "https://box.local:8443", "http://localhost:8000/v1",
            "http://192.168.1.5:8000/v1", "http://192.168.1.6:8000/v1",
            "http://api.example.com/v1", "https://box.local",
        )
        for key in [keys.find(parse(url))]
    }  # fmt: skip
    assert list(found.values()) == [CANARY, "12", "0x10", "lan", None, None, None]
    assert caplog.text.count("others can read it") == 1
    file.write_text("api.example.com: changed\n")
    again = keys.find(parse("https://api.example.com/v1"))
    assert again and again.value == "changed"
    assert Keys(tmp_path / "none.yaml", {}).find(parse("https://api.example.com")) is None


@pytest.mark.parametrize(
    "text", [f"a.com: [{CANARY}", f"- {CANARY}", f"a.com: {{b: {CANARY}}}", f"{CANARY}", "\x00"]
)
def test_a_broken_keys_file_is_told_of_without_its_keys(text: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(text)
    with pytest.raises(BadOption, match=r"keys\.yaml.*a host and its key") as caught:
        Keys(file, {}).find(parse("https://a.com"))
    assert CANARY not in str(caught.value)
    assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("api.example.com:443", "https://api.example.com/v1"),
        ("https://API.example.com/v1", "https://api.example.com"),
        ("'[::1]:8000'", "http://[::1]:8000/v1"),
        ("http://127.0.0.1", "http://127.0.0.1:80/v1"),
        ("127.0.0.1", "http://127.0.0.1:80/v1"),
    ],
)
def test_a_host_may_be_written_in_every_way(name: str, url: str, tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(f"{name}: {CANARY}")
    found = Keys(file, {}).find(parse(url))
    assert found and found.value == CANARY
    for elsewhere in ("https://api.example.com:8443", "http://api.example.com", "https://[::1]"):
        assert Keys(file, {}).find(parse(elsewhere)) is None


def test_a_line_that_is_for_no_host_is_told_of_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text(f"a.com: x\n{CANARY}=+: a.com\n")
    with pytest.raises(BadOption, match=r"keys\.yaml, line 2: .* no host") as caught:
        Keys(file, {}).find(parse("https://a.com"))
    assert CANARY not in str(caught.value)


def test_a_keys_file_that_cannot_be_read_or_is_too_large_is_told_of_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "keys.yaml"
    file.write_text("a.com: x\n" + "#" * 1_000_000)
    with pytest.raises(BadOption, match="larger than 1 MB"):
        Keys(file, {}).find(parse("https://a.com"))

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(BadOption, match="cannot be read: Permission denied"):
        Keys(file, {}).find(parse("https://a.com"))


def test_where_a_key_may_be_put(tmp_path: Path) -> None:
    far, plain = parse("https://a.com/v1"), parse("http://192.168.1.5/v1")
    assert Keys().places(far) == ["in the environment variable QWENVL_KEY_A_COM"]
    assert Keys().places(plain) == []
    file = tmp_path / "keys.yaml"
    assert Keys(file).places(plain) == [f"in the file {file}, in a line http://192.168.1.5: KEY"]


@pytest.mark.parametrize(
    "url", ["https://a.com/v1", "http://192.168.1.5:8000/v1", "http://[::1]:8000", "http://[fe::1]"]
)
def test_a_line_that_is_told_of_is_read(url: str, tmp_path: Path) -> None:
    keys, address = Keys(tmp_path / "keys.yaml", {}), parse(url)
    line = keys.places(address)[-1].partition("in a line ")[2]
    assert keys.place(address) == ""
    (tmp_path / "keys.yaml").write_text(line.replace("KEY", CANARY))
    found = keys.find(address)
    assert found and found.value == CANARY
    assert keys.place(address) == f"in the file {tmp_path / 'keys.yaml'}"


def test_a_key_that_is_no_header_is_refused_without_being_shown() -> None:
    with pytest.raises(BadOption, match="QWENVL_KEY_A_COM") as caught:
        Keys(environ={"QWENVL_KEY_A_COM": f"{CANARY}\nX-Evil: 1"}).find(parse("https://a.com"))
    assert CANARY not in str(caught.value)


def test_a_key_does_not_show() -> None:
    key = Key(CANARY)
    assert CANARY not in f"{key} {key!r} {[key]}"
    assert key.hidden(f"bad key {CANARY}!") == f"bad key {HIDDEN}!"
