"""The review server: who is let in, and what is sent."""

from __future__ import annotations

import http.client
import json
import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import videos
from caption_folders import picture
from qwen_vl_suite.qwenvl.errors import BadOption
from qwen_vl_suite.qwenvl.folders import trainer
from qwen_vl_suite.qwenvl.reviewing import Collection, ReviewServer, peers


@pytest.fixture
def server(tmp_path):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "b.tiff")
    (tmp_path / "in" / "a.txt").write_text("A cat.\n")
    (tmp_path / "secret.png").write_bytes(b"secret")
    collection = Collection(tmp_path / "in", trainer())
    collection.load()
    with ReviewServer(collection) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server, path, method="GET", body=None, token=None, **headers):
    """Status, headers and content. ``headers`` with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if body is not None:
        given = {"Content-Type": "application/json", **given}
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, f"/{server.token if token is None else token}/{path}", body, given)
    reply = connection.getresponse()
    found = reply.status, reply.headers, reply.read()
    connection.close()
    return found


def test_the_page_and_its_files_name_no_other_site(server):
    scripts = ("review.js", "editor.js", "list.js", "server.js", "viewer.js")
    for name in ("", *scripts, "review.css", "icon.svg"):
        status, headers, content = ask(server, name)
        assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert "Access-Control-Allow-Origin" not in headers
        assert b"http" not in content.replace(b"http://www.w3.org/2000/svg", b"")
    assert server.url == f"http://127.0.0.1:{server.server_port}/{server.token}/"
    assert server.server_address[0] == "127.0.0.1" and len(server.token) >= 32


@pytest.mark.parametrize("token", ["", "x" * 32, "é", ".."])
def test_without_the_token_there_is_nothing(server, token):
    for path, body in (("", None), ("view?ids=0", None), ("thumb/0", None), ("undo", {})):
        method = "GET" if body is None else "POST"
        status, _, content = ask(server, path, method, body, token=token.encode().hex() or "")
        assert status == 404 and b"A cat" not in content


def opened(server):
    """Where a browser is led that is started with ``opening_url``."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request("GET", urlsplit(server.opening_url).path)
    reply = connection.getresponse()
    assert server.token.encode() not in reply.read()
    connection.close()
    return reply.status, reply.headers["Location"]


LINUX = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="does not say whose it is")


@LINUX
def test_the_address_that_a_browser_is_started_with_is_of_use_to_this_user_alone(
    server, monkeypatch
):
    assert server.token not in server.opening_url
    assert opened(server) == opened(server) == (303, urlsplit(server.url).path)
    monkeypatch.setattr(peers, "_lines", of_another_user)
    assert opened(server) == (404, None)


def of_another_user(path, lines=peers._lines):
    return [" ".join([*(parts := line.split())[:7], "54321", *parts[8:]]) for line in lines(path)]


def test_where_nobody_says_whose_a_browser_is_the_first_one_is_led_to_the_page(server, monkeypatch):
    monkeypatch.setattr(peers, "TABLES", ())
    assert opened(server) == (303, urlsplit(server.url).path)
    assert opened(server) == (404, None)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", ""])
def test_another_name_of_this_machine_is_refused(server, host):
    assert ask(server, "view?ids=0", Host=host)[0] == 403


def test_posts_come_from_this_page_alone(server, tmp_path):
    body = {"id": 0, "text": "Evil", "version": "x"}
    assert ask(server, "edit", "POST", body, Origin="http://evil.example")[0] == 403
    assert ask(server, "edit", "POST", body, Origin="null")[0] == 403
    assert ask(server, "edit", "POST", body, Content_Type="text/plain")[0] == 415
    assert ask(server, "edit", "POST", b"{", Origin=server.url.rstrip("/"))[0] == 403
    assert ask(server, "edit", "POST", b"{")[0] == ask(server, "edit", "POST", [1])[0] == 400
    assert ask(server, "edit", "POST", {**body, "id": "0"})[0] == 400
    status, headers, _ = ask(server, "edit", "POST", b"{}", Content_Length=str(1 << 30))
    assert status == 413 and headers["Connection"] == "close"  # with the body left unread
    assert ask(server, "edit", "GET")[0] == ask(server, "ask", "POST", {"ids": [0]})[0] == 404
    assert (tmp_path / "in" / "a.txt").read_text() == "A cat.\n"


@pytest.mark.parametrize(
    "path",
    ["../secret.png", "thumb/../../secret.png", "whole/%2e%2e%2fsecret.png", "thumb/-1", "thumb/9",
     "whole/99999999999", "whole/0/../../../secret.png", "review.js/../server.py", "server.py"],
)  # fmt: skip
def test_no_address_leads_to_another_file(server, path):
    status, _, content = ask(server, path)
    assert status in (400, 404) and b"secret\n" not in content and b"import" not in content


def test_a_file_that_became_a_link_out_of_the_folder_is_not_sent(server, tmp_path):
    (tmp_path / "in" / "a.png").unlink()
    (tmp_path / "in" / "a.png").symlink_to(tmp_path / "secret.png")
    for path in ("thumb/0", "whole/0"):
        status, _, content = ask(server, path)
        assert status == 403 and content != b"secret"


def test_an_edit_and_its_conflict(server, tmp_path):
    view = json.loads(ask(server, "view?ids=0")[2])
    (row,) = view["rows"]
    assert row["text"] == "A cat." and view["captioned"] == 1 and view["asking"] is None
    origin = f"http://127.0.0.1:{server.server_port}"
    edit = {"id": 0, "text": "A dog.", "version": row["version"]}
    assert ask(server, "edit", "POST", edit, Origin=origin)[0] == 200
    status, _, content = ask(server, "edit", "POST", edit)
    assert status == 409 and json.loads(content)["row"]["text"] == "A dog."
    assert json.loads(ask(server, "find?q=DOG")[2])["ids"] == [0]
    assert json.loads(ask(server, "undo", "POST", {})[2])["moved"] == 0
    assert (tmp_path / "in" / "a.txt").read_text() == "A cat.\n"


def test_pictures_of_all_formats_and_parts_of_files(server, tmp_path):
    whole = (tmp_path / "in" / "a.png").read_bytes()
    status, headers, content = ask(server, "whole/0")
    assert (status, headers["Content-Type"], content) == (200, "image/png", whole)
    status, headers, content = ask(server, "whole/0", Range="bytes=2-5")
    assert status == 206 and content == whole[2:6]
    assert headers["Content-Range"] == f"bytes 2-5/{len(whole)}"
    assert ask(server, "whole/0", Range="bytes=99999-")[2] == whole
    status, headers, content = ask(server, "whole/1")
    assert headers["Content-Type"] == "image/png" and content.startswith(b"\x89PNG")
    assert ask(server, "thumb/1")[2].startswith(b"\xff\xd8")


def test_clips_have_their_first_frame(tmp_path):
    videos.write(tmp_path / "a.mp4", frames=1)
    collection = Collection(tmp_path, trainer())
    collection.load()
    from qwen_vl_suite.qwenvl.reviewing.pictures import Thumbnails

    assert Thumbnails().get(collection.item(0)).startswith(b"\xff\xd8")


@pytest.mark.skipif(os.name == "nt", reason="there, ports are free at once")
def test_a_port_is_served_again_at_once(tmp_path):
    collection = Collection(tmp_path, trainer())
    with ReviewServer(collection) as first:
        visitor = socket.create_connection(first.server_address)
        accepted, _ = first.get_request()
        accepted.close()  # the server's side closes first, and its port is remembered for a minute
    visitor.close()
    with ReviewServer(collection, port=first.server_port) as second:
        assert second.server_port == first.server_port


def test_a_port_that_is_taken_is_named(server, tmp_path):
    with pytest.raises(BadOption, match=f"port {server.server_port}"):
        ReviewServer(server.collection, port=server.server_port)
