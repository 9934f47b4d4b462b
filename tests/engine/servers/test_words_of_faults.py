"""What is said of a server that cannot be reached, or fails: the words of what went wrong, and what
would mend it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import openai
import pytest
from fake_server import Answer, serving
from qwen_vl_suite.qwenvl.backends.openai_server import OpenAIServerBackend, list_models
from qwen_vl_suite.qwenvl.errors import ServerError, Unavailable
from qwen_vl_suite.qwenvl.servers import faults, replicas
from qwen_vl_suite.qwenvl.types import Request, ServerSpec


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_FIRST_DELAY", 0.002)
    monkeypatch.setattr(faults, "_LONGEST_DELAY", 0.01)
    monkeypatch.setattr(replicas, "FIRST_PAUSE", 0.02)


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("ALL_PROXY", "socks5://me:secret@127.0.0.1:7890", "SOCKS proxy.*pip install socksio"),
        ("ALL_PROXY", "socks://me:secret@127.0.0.1:7890", "proxy.*ALL_PROXY.*socks5://HOST"),
        ("HTTPS_PROXY", "http://me:secret/@127.0.0.1", "proxy.*HTTPS_PROXY.*http://HOST"),
        ("SSL_CERT_FILE", "/no/such/file", "SSL_CERT_FILE.*No such file"),
    ],
)
def test_a_proxy_or_certificates_of_the_environment_that_cannot_be_used_are_named(
    variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv(variable, value)
    with pytest.raises(Unavailable) as caught:
        list_models(ServerSpec(("https://api.example.com/v1",)))
    assert re.search(words, str(caught.value)) and "secret" not in str(caught.value)


@pytest.fixture(params=["plain", "self-signed"])
def https(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """What answers at a port, and its address as if it were of TLS that anyone trusts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    if request.param == "self-signed":
        openssl = shutil.which("openssl")
        if openssl is None:
            pytest.skip("certificates are made by openssl")
        made = [str(tmp_path / "cert.pem"), str(tmp_path / "key.pem")]
        command = [
            openssl,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-subj",
            "/CN=localhost",
        ]
        subprocess.run(
            [*command, "-out", made[0], "-keyout", made[1]], check=True, capture_output=True
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*made)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield request.param, f"https://127.0.0.1:{server.server_address[1]}/v1"
    server.shutdown()
    server.server_close()


def test_what_is_wrong_with_tls_is_told(https: tuple[str, str]) -> None:
    case, url = https
    words = {
        "plain": r"SSL.*\. See whether it speaks TLS there: .* http://\.$",
        "self-signed": r"its certificate is not trusted: self.signed .*SSL_CERT_FILE",
    }
    with pytest.raises(ServerError) as caught:
        list_models(ServerSpec((url,)))
    assert re.search(words[case], str(caught.value))
    assert "not permitted" not in str(caught.value) and "Start it" not in str(caught.value)


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (
            ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed ('::1', 80)"),
            os.strerror(errno.ECONNREFUSED),
        ),
        (socket.gaierror(-2, "Name or service not known"), "Name or service not known"),
        (socket.gaierror(8, "nodename nor servname provided"), "nodename nor servname provided"),
        (OSError(10061, "the target machine actively refused it"), "the target machine actively"),
    ],
    ids=["asyncio", "name look-up", "macOS's number", "Windows's number"],
)
def test_the_system_s_own_words_are_told(cause: OSError, words: str) -> None:
    class ConnectError(Exception):
        pass

    reached = ConnectError("All connection attempts failed")
    reached.__cause__ = cause
    error = openai.APIConnectionError(request=None)  # type: ignore[arg-type]
    error.__cause__ = reached
    fault = faults.of_exception(error, openai)
    assert fault.kind == "unreachable" and fault.words.startswith(words)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"error": "CUDA out of memory"}', "the server says: CUDA out of memory."),
        (b'{"error": {"detail": "too long"}}', "the server says: too long."),
        (b'{"error": ""}', "the server broke it off|it broke off"),
        (b'{"error": "Expected "a" tensor\non device"}', 'the server says: Expected "a" tensor.'),
    ],
)
def test_errors_inside_a_stream_are_quoted_in_whatever_form_they_come(
    body: bytes, words: str
) -> None:
    answer: Any = Answer(body=b"data: %s\n\n" % body, headers={"Content-Type": "text/event-stream"})
    with (
        serving(answer) as server,
        closing(OpenAIServerBackend(ServerSpec((server.url,), "Qwen3-VL-8B", kind="vllm"))) as one,
    ):
        (found,) = one.generate([Request.ask([], "?")])
    assert re.search(words, str(found.error))
