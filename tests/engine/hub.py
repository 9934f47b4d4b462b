"""A model hub on loopback: as much of the interfaces of Hugging Face and ModelScope as a download
needs."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """``cuts``: bytes of a file to send before the connection breaks, one entry for each request;
    ``stalls``: the same before it stalls. ``pace``: seconds for every 64 kB. ``status``: HTTP
    status codes by path, instead of content. ``requested``: (file, range, token) of every file
    request. ``cdn`` sends files from another host name, as the real hubs do, and
    ``redirects_listing`` the listing too. ``logins``: (host name, token) of every request.
    ``substitutes``: other content by path; ``corrupt_once``: files whose next response is damaged.
    ``commit``: the current revision."""

    repos: dict[str, dict[str, bytes]]
    cuts: dict[str, list[int]] = field(default_factory=dict)
    stalls: dict[str, list[int]] = field(default_factory=dict)
    pace: float = 0.0
    status: dict[str, list[int]] = field(default_factory=dict)
    requested: list[tuple[str, str | None, str | None]] = field(default_factory=list)
    token: str | None = None
    ranges: bool = True
    cdn: bool = False
    redirects_listing: bool = False
    commit: str = COMMIT
    logins: list[tuple[str, str | None]] = field(default_factory=list)
    substitutes: dict[str, bytes] = field(default_factory=dict)
    corrupt_once: set[str] = field(default_factory=set)

    def __enter__(self) -> Hub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = _Server(("127.0.0.1", 0), handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def port(self) -> int:
        return self.server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def files(self) -> list[str]:
        """Names of the files requested since the last call, in order."""
        names = [name for name, _, _ in self.requested]
        self.requested.clear()
        return names


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """A client that disconnects is no error here."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        host = str(self.headers["Host"]).partition(":")[0]
        self.hub.logins.append((host, self.headers["Authorization"]))
        path = unquote(urlsplit(self.path).path)
        scope, *rest = path.strip("/").split("/")
        if scope == "api" and rest[0] == "models":
            return self._listing("/".join(rest[1:3]), self._siblings)
        if scope == "api" and rest[0] == "v1":
            return self._listing("/".join(rest[2:4]), self._modelscope)
        if "resolve" not in rest:
            return self._send(404)
        at = rest.index("resolve")
        repo = "/".join([scope, *rest][at - 1 : at + 1])
        return self._file(repo, "/".join(rest[at + 2 :]))

    def _listing(self, repo, form) -> None:
        if self.hub.redirects_listing and str(self.headers["Host"]).startswith("127."):
            return self._send(302, location=f"http://localhost:{self.hub.port}{self.path}")
        if (statuses := self.hub.status.get("listing")) and (status := statuses.pop(0)) != 200:
            return self._send(status)
        if self.hub.token and self.headers["Authorization"] != f"Bearer {self.hub.token}":
            return self._send(401)
        if repo not in self.hub.repos:
            return self._send(404)
        return self._send(200, json.dumps(form(repo, self.hub.repos[repo])).encode())

    def _siblings(self, repo: str, files: Mapping[str, bytes]) -> dict:
        siblings = []
        for name, content in files.items():
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            row = {"rfilename": name, "size": len(content), "blobId": blob}
            if name.endswith(".safetensors"):
                sha = hashlib.sha256(content).hexdigest()
                row["blobId"] = "0" * 40  # of the pointer
                row["lfs"] = {"size": len(content), "sha256": sha, "pointerSize": 130}
            siblings.append(row)
        return {"id": repo, "modelId": repo, "sha": self.hub.commit, "siblings": siblings}

    def _modelscope(self, repo: str, files: Mapping[str, bytes]) -> dict:
        rows = [{"Path": "assets", "Size": 0, "Type": "tree"}]
        for name, content in files.items():
            sha = hashlib.sha256(content).hexdigest()
            rows.append({"Path": name, "Size": len(content), "Sha256": sha, "Type": "blob"})
        return {"Code": 200, "Data": {"Files": rows}}

    def _file(self, repo: str, name: str) -> None:
        host = str(self.headers["Host"])
        if self.hub.cdn and host.startswith("127."):
            self.hub.requested.append((name, self.headers["Range"], self.headers["Authorization"]))
            return self._send(302, location=f"http://localhost:{self.hub.port}{self.path}")
        self.hub.requested.append((name, self.headers["Range"], self.headers["Authorization"]))
        if (statuses := self.hub.status.get(name)) and (status := statuses.pop(0)) != 200:
            return self._send(status)
        content = self.hub.substitutes.get(name, self.hub.repos[repo][name])
        if name in self.hub.corrupt_once:
            self.hub.corrupt_once.discard(name)
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = 0
        if self.headers["Range"] and self.hub.ranges:
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
        cut, stall = _next(self.hub.cuts, name), _next(self.hub.stalls, name)
        self._send(206 if start else 200, content[start:], cut=cut if stall is None else stall)
        if stall is not None:
            self.connection.recv(1)  # returns when the client has closed the connection

    def _send(
        self, status: int, body: bytes = b"", *, cut: int | None = None, location: str = ""
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if location:
            self.send_header("Location", location)
        self.end_headers()
        body = body[:cut]
        for start in range(0, len(body), 1 << 16):
            self.wfile.write(body[start : start + (1 << 16)])
            time.sleep(self.hub.pace)
        self.close_connection = self.close_connection or cut is not None


def _next(values: Mapping[str, list[int]], name: str) -> int | None:
    return values[name].pop(0) if values.get(name) else None
