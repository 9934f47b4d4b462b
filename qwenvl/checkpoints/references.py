"""Model references: a repository as a person names it, ``owner/name``, ``owner/name@revision`` or
the address of its page on Hugging Face or ModelScope; and whether its download was allowed.

What the catalogue lists is downloaded when it is asked for. Any other name may stand in a workflow
that somebody else wrote: it is downloaded only after this machine's user has said yes to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import BadOption, IncompleteCheckpoint
from .files import read_json, short_repr
from .hubs import HUBS, require_repo_id, require_revision

_HOSTS = {
    "huggingface.co": "huggingface",
    "hf.co": "huggingface",
    "modelscope.cn": "modelscope",
    "modelscope.ai": "modelscope",
}
_OTHER = ("datasets", "spaces", "collections", "papers", "docs", "organization")
_PAGES = ("tree", "blob", "resolve", "commit", "files", "file", "summary", "discussions")
_LOCK = threading.Lock()


@dataclass(frozen=True)
class Reference:
    """A repository on a hub. ``source``: which hub, one of ``hubs.HUBS``; ``revision``: a branch,
    a tag or a commit; empty: the newest."""

    repo_id: str
    source: str
    revision: str = ""

    @property
    def owner_folder(self) -> str:
        """The folder around ``folder_name``; the same owner of another hub is somebody else."""
        owner = self.repo_id.split("/")[0]
        return owner if self.source == "huggingface" else f"{owner}@{self.source}"

    @property
    def folder_name(self) -> str:
        """The folder that it is downloaded into: a pinned revision has one of its own."""
        name, revision = self.repo_id.split("/")[1], self.revision
        if not revision:
            return name
        part = re.sub(r"[^A-Za-z0-9._-]", "-", revision)[:64]
        if part != revision:  # others might become the same
            part += f"-{hashlib.sha256(revision.encode()).hexdigest()[:8]}"
        return f"{name}@{part}"

    def __str__(self) -> str:
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id


def parse_reference(text: str, source: str) -> Reference:
    """What ``text`` names; on the hub ``source`` unless it is an address, which says which. Raises
    ``BadOption``."""
    if source not in HUBS:
        raise BadOption(f"Unknown source {source!r}: choose one of {', '.join(HUBS)}.")
    text = text.strip()
    if "//" in text or text.split("/")[0].removeprefix("www.").lower() in _HOSTS:
        return _of_address(text)
    repo_id, _, revision = text.partition("@")
    return _checked(repo_id.strip("/"), source, revision)


def _of_address(text: str) -> Reference:
    try:
        parts = urlsplit(text if "//" in text else f"//{text}")
        host = parts.hostname or ""
    except ValueError:  # no address at all
        host = ""
    source = _HOSTS.get(host.removeprefix("www."))
    if source is None or parts.scheme not in ("", "http", "https") or "@" in parts.netloc:
        raise BadOption(
            f"{short_repr(text)} is no page of a model on Hugging Face or ModelScope. Give such an "
            "address, or owner/name. (A mirror of Hugging Face is set with HF_ENDPOINT.)"
        )
    path = [unquote(part) for part in parts.path.split("/") if part]
    path = path[1:] if path[:1] == ["models"] else path
    revision = ""
    if len(path) > 3 and path[2] in _PAGES[:4]:
        # Of a page of one file the revision is the part behind; branches with a slash in their
        # name are given as owner/name@revision.
        revision = path[3]
    elif (path and path[0] in _OTHER) or (len(path) > 2 and path[2] not in _PAGES):
        path = []
    name, _, pinned = (path[1] if len(path) > 1 else "").partition("@")
    return _checked("/".join([*path[:1], name]), source, pinned or revision)


def _checked(repo_id: str, source: str, revision: str) -> Reference:
    require_revision(revision or None)
    newest = revision in ("", "main", "master")
    return Reference(require_repo_id(repo_id), source, "" if newest else revision)


class Consents:
    """Downloads that the user has allowed, kept in ``file``, one entry a repository and revision.
    A file that cannot be read allows nothing."""

    def __init__(self, file: Path):
        self._file = file

    def allows(self, reference: Reference) -> bool:
        return _entry(reference) in self._read()

    def allow(self, reference: Reference) -> None:
        """Raises ``BadOption`` where the file cannot be written."""
        with _LOCK:
            entries = self._read()
            if _entry(reference) in entries:
                return
            part = self._file.with_name(f"{self._file.name}.part")
            try:
                self._file.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(json.dumps([*entries, _entry(reference)], indent=1), "utf-8")
                os.replace(part, self._file)
            except OSError as error:
                raise BadOption(f"{self._file} cannot be written: {error.strerror}.") from error

    def _read(self) -> list[Any]:
        try:
            found = read_json(self._file)
        except IncompleteCheckpoint:  # missing, or not JSON
            return []
        return found if isinstance(found, list) else []


def _entry(reference: Reference) -> dict[str, str]:
    return {
        "repository": reference.repo_id,
        "source": reference.source,
        "revision": reference.revision,
    }
