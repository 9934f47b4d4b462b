"""Keys of the command line: in a file of the user's own configuration folder."""

from __future__ import annotations

import sys
from pathlib import Path, PurePosixPath

import pytest
from fake_server import Answer, serving
from PIL import Image
from qwen_vl_suite.qwenvl.cli.user_folder import user_folder
from qwen_vl_suite.qwenvl.servers.addresses import parse
from qwen_vl_suite.qwenvl.servers.keys import variable

KEY = "sk-canary-0123456789"


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40)).save(path)
    return path


def test_a_key_of_the_users_file_goes_to_its_host_and_shows_nowhere(
    run, own_folder, picture, caplog
):
    with serving("A black square.", owner="vllm") as server, serving("No.", owner="vllm") as other:
        own_folder.mkdir()
        (own_folder / "keys.yaml").write_text(f"127.0.0.1:{server.port}: {KEY}\n")
        (own_folder / "keys.yaml").chmod(0o644)
        status, out, err = run("describe", picture, "--server", server.url, "--json")
        assert status == 0 and out[0]["text"] == "A black square."
        assert server.chats[0].headers["Authorization"] == f"Bearer {KEY}"
        assert "chmod 600" in caplog.text and KEY not in caplog.text + err
        assert run("describe", picture, "--server", other.url)[0] == 0
        assert "Authorization" not in other.chats[0].headers


def test_a_server_that_refuses_names_both_places_of_a_key(run, own_folder, picture):
    refused = Answer(status=401, body=b'{"error": {"message": "no key"}}')
    with serving(refused, owner="vllm") as server:
        status, _, err = run("describe", picture, "--server", server.url)
        assert status == 2
        assert f"in the environment variable {variable(parse(server.url))}" in err
        line = f"in a line 127.0.0.1:{server.port}: KEY"
        assert f"in the file {own_folder / 'keys.yaml'}, {line}" in err


@pytest.mark.skipif(sys.platform == "win32", reason="its paths are others")
def test_the_folder_is_where_each_system_keeps_settings(monkeypatch):
    for name in ("APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")

    def found(platform):
        monkeypatch.setattr(sys, "platform", platform)
        return PurePosixPath(user_folder())

    assert found("linux") == PurePosixPath("/home/me/.config/qwenvl")
    assert found("darwin") == PurePosixPath("/home/me/Library/Application Support/qwenvl")
    assert found("win32") == PurePosixPath("/home/me/AppData/Roaming/qwenvl")
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert found("linux") == PurePosixPath("/home/me/.config/qwenvl")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/mine")
    monkeypatch.setenv("APPDATA", "/roaming")
    assert found("linux") == PurePosixPath("/etc/mine/qwenvl")
    assert found("win32") == PurePosixPath("/roaming/qwenvl")

    def homeless() -> Path:
        raise RuntimeError

    monkeypatch.setattr(Path, "home", homeless)
    assert user_folder() is None
