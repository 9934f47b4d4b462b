"""Review server: a page for one browser on this machine, and what it asks for.

Only this machine reaches it, only at an address that holds a random token, and only under the name
of this machine (a page of another site that has its own name lead here is refused). Files are asked
for by their numbers in the list, so that no address names a path.

All users of a machine may see what a browser is started with. Therefore it is started with another
address, which leads this user alone to that of the page.
"""

from __future__ import annotations

import hmac
import json
import logging
import os
import re
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..errors import BadImage, BadOption, QwenVLError
from .asker import Asker
from .captions import has_one_line, is_inside
from .collection import Collection
from .edits import Conflict
from .peers import is_own
from .pictures import KINDS, Thumbnails

log = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")
HOST = "127.0.0.1"
MAX_BODY = 4 << 20
"""Bytes of what a page may send: a caption of 1 MiB, escaped, or numbers of many files."""

MOST_ROWS = 500
_CHUNK = 1 << 18
_SCRIPTS = ("review.js", "editor.js", "list.js", "server.js", "viewer.js")
_PAGE_FILES = {
    "": ("index.html", "text/html; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "review.css": ("review.css", "text/css; charset=utf-8"),
    **{name: (name, "text/javascript; charset=utf-8") for name in _SCRIPTS},
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; media-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, message: str = ""):
        super().__init__(message or status.phrase)
        self.status = status


class ReviewServer(ThreadingHTTPServer):
    """Serves ``collection`` at ``url``. ``port``: 0 for any that is free. ``asker``: None where
    nothing can be asked again. A context manager. Raises ``BadOption`` for a port that is taken."""

    daemon_threads = True
    request_queue_size = 64
    # At once after its end, while connections to it are still known. On Windows, two servers
    # would share a port.
    allow_reuse_address = os.name != "nt"

    def __init__(self, collection: Collection, asker: Asker | None = None, port: int = 0):
        self.collection, self.asker = collection, asker
        self.thumbnails = Thumbnails()
        self.token, self._ticket = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise BadOption(f"The page cannot be served at port {port}: {error}.") from error

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.server_port}/{self.token}/"

    @property
    def opening_url(self) -> str:
        """Leads browsers of this user to ``url``, and nobody else; where the system does not say
        whose a browser is, the first one."""
        return f"http://{HOST}:{self.server_port}/open/{self._ticket}"

    def opens(self, ticket: str, port: int) -> bool:
        """Whether ``ticket`` is that of ``opening_url``, and the browser at ``port`` may use it."""
        if not (self._ticket and hmac.compare_digest(ticket.encode(), self._ticket.encode())):
            return False
        may = is_own(port, self.server_port)
        if may is None:
            self._ticket = ""
        return may is not False

    @property
    def hosts(self) -> tuple[str, ...]:
        return f"{HOST}:{self.server_port}", f"localhost:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("A request has broken off.", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    protocol_version = "HTTP/1.1"
    timeout = 60
    server_version, sys_version = "qwenvl", ""

    def log_message(self, format: str, *args: Any) -> None:
        """The address holds the token: it goes into no log."""

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def _answer(self, answer: Callable[[str, dict[str, str]], None]) -> None:
        try:
            path, query = self._admitted()
            answer(path, query)
        except _Refused as error:
            self.close_connection = True  # its body was not read
            self._json({"error": str(error)}, error.status)
        except Conflict as error:
            (row,) = self.server.collection.rows([error.index])
            self._json({"error": str(error), "row": row}, HTTPStatus.CONFLICT)
        except (QwenVLError, ValueError) as error:
            self._json({"error": str(error)}, HTTPStatus.BAD_REQUEST)

    def _admitted(self) -> tuple[str, dict[str, str]]:
        """The path behind the token, and the query; of ``opening_url``, what leads to the page.
        Raises ``_Refused``."""
        if self.headers.get("Host", "") not in self.server.hosts:
            raise _Refused(HTTPStatus.FORBIDDEN)
        address = urlsplit(self.path)
        _, _, rest = address.path.partition("/")
        token, slash, path = rest.partition("/")
        if token == "open" and self.server.opens(path, self.client_address[1]):
            return "open", {}
        if not (slash and hmac.compare_digest(token.encode(), self.server.token.encode())):
            raise _Refused(HTTPStatus.NOT_FOUND)
        return path, {name: values[-1] for name, values in parse_qs(address.query).items()}

    def _get(self, path: str, query: dict[str, str]) -> None:
        if path in _PAGE_FILES:
            name, kind = _PAGE_FILES[path]
            if not path:  # opened, or loaded again
                self.server.collection.look_soon()
            self._send((PAGE / name).read_bytes(), kind)
        elif path == "open":
            self._lead_to_page()
        elif path == "view":
            self._json(self._view(_numbers(query.get("ids", ""))[:MOST_ROWS]))
        elif path == "find":
            found = self.server.collection.find(query.get("q", ""), query.get("only", "all"))
            self._json({"ids": found})
        elif match := re.fullmatch(r"(thumb|whole)/(\d{1,9})", path):
            self._picture(match[1], int(match[2]))
        else:
            raise _Refused(HTTPStatus.NOT_FOUND)

    def _lead_to_page(self) -> None:
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", f"/{self.server.token}/")
        self._headers("text/plain", 0)

    def _post(self, path: str, query: dict[str, str]) -> None:
        body = self._body()
        collection, asker = self.server.collection, self.server.asker
        if path == "edit":
            index, text, version = body.get("id"), body.get("text"), body.get("version")
            if not (isinstance(index, int) and isinstance(text, str) and isinstance(version, str)):
                raise _Refused(HTTPStatus.BAD_REQUEST)
            collection.edit(index, text, version)
            self._json(self._view([index]))
        elif path in ("undo", "redo"):
            moved = collection.undo() if path == "undo" else collection.redo()
            self._json({"moved": moved, **self._view([] if moved is None else [moved])})
        elif path == "ask" and asker:
            ids = body.get("ids")
            if not (isinstance(ids, list) and all(isinstance(one, int) for one in ids)):
                raise _Refused(HTTPStatus.BAD_REQUEST)
            asker.ask(ids)
            self._json(self._view([]))
        elif path == "stop" and asker:
            asker.stop()
            self._json(self._view([]))
        else:
            raise _Refused(HTTPStatus.NOT_FOUND)

    def _view(self, ids: list[int]) -> dict[str, Any]:
        collection, asker = self.server.collection, self.server.asker
        trainer = collection.trainer
        return {
            "rows": collection.rows(ids),
            "folder": collection.folder.absolute().name,
            "one_line": has_one_line(trainer),
            "trainer": trainer.title,
            "asking": {"name": asker.name, **asker.state()} if asker else None,
            **collection.counts(),
        }

    def _body(self) -> dict[str, Any]:
        """JSON, from this page alone: a form of another site can send none. Raises ``_Refused``."""
        origin = self.headers.get("Origin")
        if origin is not None and origin not in [f"http://{host}" for host in self.server.hosts]:
            raise _Refused(HTTPStatus.FORBIDDEN)
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch(r"\d{1,12}", length):
            raise _Refused(HTTPStatus.LENGTH_REQUIRED)
        if int(length) > MAX_BODY:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError as error:
            raise _Refused(HTTPStatus.BAD_REQUEST) from error
        if not isinstance(body, dict):
            raise _Refused(HTTPStatus.BAD_REQUEST)
        return body

    def _picture(self, what: str, index: int) -> None:
        item = self.server.collection.item(index)
        if not is_inside(item.path, self.server.collection.folder):
            raise _Refused(HTTPStatus.FORBIDDEN)
        kind = KINDS.get(item.path.suffix.lower())
        try:
            if what == "whole" and kind:
                self._file(item.path, kind)
            elif what == "whole" and not item.is_clip:
                self._send(self.server.thumbnails.whole(item), "image/png")
            else:
                self._send(self.server.thumbnails.get(item), "image/jpeg")
        except (BadImage, OSError) as error:
            raise _Refused(HTTPStatus.NOT_FOUND, str(error)) from error

    def _file(self, path: Path, kind: str) -> None:
        """A file as it is, or the range of it that a player asks for."""
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start, end = 0, size
            wanted = re.fullmatch(r"bytes=(\d{1,18})-(\d{0,18})", self.headers.get("Range", ""))
            if wanted:
                start = int(wanted[1])
                end = min(size, int(wanted[2]) + 1) if wanted[2] else size
                if start >= end:
                    wanted, start, end = None, 0, size
            self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.send_header("Accept-Ranges", "bytes")
            self._headers(kind, end - start)
            file.seek(start)
            left = end - start
            while left and (data := file.read(min(left, _CHUNK))):
                self.wfile.write(data)
                left -= len(data)
            self.close_connection = self.close_connection or left > 0  # it was cut meanwhile

    def _json(self, value: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(json.dumps(value).encode(), "application/json", status)

    def _send(self, data: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self._headers(kind, len(data))
        self.wfile.write(data)

    def _headers(self, kind: str, length: int) -> None:
        is_picture = kind.startswith(("image/", "video/"))
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        if self.close_connection:
            self.send_header("Connection", "close")
        # A picture that changes has another address; nothing else is kept by the browser.
        self.send_header("Cache-Control", "private, max-age=3600" if is_picture else "no-store")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()


def _numbers(text: str) -> list[int]:
    """``1,2,3``. Raises ``ValueError``."""
    return [int(number) for number in text.split(",") if number]
