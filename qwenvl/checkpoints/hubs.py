"""Model hubs (Hugging Face, ModelScope): which files a repository holds, and their addresses."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from ..errors import BadOption, DownloadError

TOKEN_HOST = "QVL_TOKEN_HOST"
"""Environment variable that names a mirror's host which may receive the stored login."""

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_SHA1 = re.compile(r"[0-9a-fA-F]{40}")
_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class RemoteFile:
    """``path`` inside the repository, ``size`` in bytes, and as far as the hub gives them the
    content's ``sha256`` and its git object id (``git_sha1``), in hex."""

    path: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None

    @property
    def checksum(self) -> str:
        """``sha256:<hex>`` or ``git:<hex>``; empty where the hub gives neither."""
        if self.sha256:
            return f"sha256:{self.sha256.lower()}"
        return f"git:{self.git_sha1.lower()}" if self.git_sha1 else ""


@dataclass(frozen=True)
class Listing:
    """A repository's files at one ``revision``: the commit where the hub gives it."""

    revision: str
    files: tuple[RemoteFile, ...]


class Hub(Protocol):
    """A host of model repositories."""

    @property
    def title(self) -> str:
        """Its display name."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Sent with every request, to this hub only."""
        ...

    def listing(self, repo_id: str, revision: str | None) -> Listing:
        """Raises ``DownloadError``."""
        ...

    def url(self, repo_id: str, revision: str, path: str) -> str: ...


def hub_for(source: str, *, endpoint: str | None = None, token: str | None = None) -> Hub:
    """The hub ``source`` (``huggingface`` or ``modelscope``), at ``endpoint`` or its own address.
    Raises ``BadOption``.

    ``token`` is sent to that address. Where it is None, the login that this machine has stored is
    sent to the hub's own hosts, and to a host that the variable ``QVL_TOKEN_HOST`` names.
    """
    if source not in HUBS:
        raise BadOption(f"Unknown source {source!r}: choose one of {', '.join(HUBS)}.")
    address = None if endpoint is None else require_address(endpoint, "endpoint")
    return HUBS[source](address, token or None)


def require_address(address: str, title: str) -> str:
    """``address`` without a trailing slash if it is a plain web address. ``title`` says where it
    was given. Raises ``BadOption``, which never shows a password."""
    if "@" in address:
        raise BadOption(
            f"The {title} holds a name or a password, which would end up in logs. Give the "
            "address alone, such as https://hub.example.com"
        )
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if (
        not host
        or parts.scheme not in ("http", "https")
        or parts.query
        or parts.fragment
        or not address.isprintable()
        or set(address) & set(' \\"<>^`{|}')
    ):
        raise BadOption(
            f"The {title} {address[:200]!r} is no web address: give one such as "
            "https://hub.example.com or http://127.0.0.1:8000"
        )
    return address.rstrip("/")


def may_receive_login(address: str, hosts: Collection[str]) -> bool:
    """Whether a stored login may be sent to ``address``: over https to the hub's own ``hosts``,
    or to one that ``QVL_TOKEN_HOST`` names."""
    parts = urlsplit(address)
    named = {host.strip().lower() for host in os.environ.get(TOKEN_HOST, "").split(",")}
    return (parts.scheme == "https" and parts.hostname in hosts) or parts.hostname in named


def require_repo_id(repo_id: str) -> str:
    """``repo_id`` if it is ``owner/name`` and nothing else. Raises ``BadOption``."""
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id:
        raise BadOption(
            f"{repo_id!r} is no repository. Give owner/name, such as Qwen/Qwen3-VL-4B-Instruct."
        )
    return repo_id


def require_revision(revision: str | None) -> str | None:
    """``revision`` if it can be one: a branch, a tag or a commit. Raises ``BadOption``."""
    if revision is not None and (not revision.isprintable() or not revision.strip()):
        raise BadOption(f"{revision[:200]!r} is no revision: give a branch, a tag or a commit.")
    return revision


def refusal(title: str, repo_id: str, status: int) -> DownloadError:
    """The error for an HTTP status of 400 and more, in words of what to do."""
    if status in (401, 403):
        return DownloadError(
            f"{title} refused {repo_id} (HTTP {status}). Either there is no such repository, or it "
            "asks for a login: accept its terms on its page and give an access token that may "
            "read it (for Hugging Face: the variable HF_TOKEN)."
        )
    if status == 404:
        return DownloadError(
            f"{title} has no {repo_id}, or not in that revision (HTTP 404). Check the spelling: "
            "capitals count."
        )
    return DownloadError(f"{title} answered with HTTP {status}. Try again later.")


def unreachable(title: str, host: str, why: str) -> DownloadError:
    """The error for a hub that does not respond."""
    return DownloadError(
        f"{title} cannot be reached at {host} ({why}). Check the connection, or choose a mirror "
        "or the other hub. What already came is kept."
    )


@dataclass(frozen=True)
class HuggingFace:
    """``endpoint`` None means what ``huggingface_hub`` uses, which reads ``HF_ENDPOINT``."""

    endpoint: str | None
    token: str | None
    title = "Hugging Face"

    @property
    def _base(self) -> str:
        if self.endpoint:
            return self.endpoint
        from huggingface_hub import constants

        return require_address(constants.ENDPOINT, "variable HF_ENDPOINT")

    @property
    def _login(self) -> str | bool | None:
        # None lets the library use the stored login, which somebody else's mirror must not receive.
        stored = None if may_receive_login(self._base, ("huggingface.co", "hf.co")) else False
        return self.token or stored

    @property
    def headers(self) -> Mapping[str, str]:
        from huggingface_hub.utils import build_hf_headers

        return dict(build_hf_headers(token=self._login))

    def listing(self, repo_id: str, revision: str | None) -> Listing:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import OfflineModeIsEnabled

        api = HfApi(endpoint=self._base, token=self._login)
        try:
            info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=30)
        except OfflineModeIsEnabled:
            raise unreachable(self.title, _host(api.endpoint), "HF_HUB_OFFLINE is set") from None
        except Exception as error:
            # The library's transport, and with it its error types, changed from requests to httpx
            # between the supported releases.
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status is not None:
                raise refusal(self.title, repo_id, status) from None
            raise unreachable(self.title, _host(api.endpoint), type(error).__name__) from None
        try:
            files = tuple(
                # The git id of a file in LFS is that of its pointer, not of its content.
                _file(row.rfilename, row.size, sha256=row.lfs.sha256)
                if row.lfs
                else _file(row.rfilename, row.size, git_sha1=row.blob_id)
                for row in info.siblings or ()
                if row.size is not None
            )
        except _MALFORMED:
            raise _unexpected(self.title, self._base) from None
        return Listing(info.sha or revision or "main", files)

    def url(self, repo_id: str, revision: str, path: str) -> str:
        from huggingface_hub import hf_hub_url

        return str(hf_hub_url(repo_id, path, revision=revision, endpoint=self._base))


@dataclass(frozen=True)
class ModelScope:
    """The HTTP interface that ModelScope's own client uses for listings and files."""

    endpoint: str | None
    token: str | None
    title = "ModelScope"

    @property
    def _base(self) -> str:
        return self.endpoint or "https://www.modelscope.cn"

    @property
    def headers(self) -> Mapping[str, str]:
        token = self.token
        if may_receive_login(
            self._base, ("www.modelscope.cn", "modelscope.cn", "www.modelscope.ai")
        ):
            token = token or os.environ.get("MODELSCOPE_API_TOKEN")
        return {"Authorization": f"Bearer {token}"} if token else {}

    def listing(self, repo_id: str, revision: str | None) -> Listing:
        import requests

        revision = revision or "master"
        try:
            response = requests.get(
                f"{self._base}/api/v1/models/{repo_id}/repo/files",
                params={"Revision": revision, "Recursive": "true"},
                headers=dict(self.headers),
                timeout=30,
            )
        except (requests.RequestException, ValueError) as error:
            raise unreachable(self.title, _host(self._base), type(error).__name__) from None
        if response.status_code != 200:
            raise refusal(self.title, repo_id, response.status_code)
        try:
            rows = response.json()["Data"]["Files"]
            files = tuple(
                _file(row["Path"], row["Size"], sha256=row.get("Sha256"))
                for row in rows
                if row.get("Type") != "tree"
            )
        except _MALFORMED:
            raise _unexpected(self.title, self._base) from None
        return Listing(revision, files)

    def url(self, repo_id: str, revision: str, path: str) -> str:
        return f"{self._base}/models/{repo_id}/resolve/{quote(revision, safe='')}/{quote(path)}"


def _file(
    path: Any, size: Any, *, sha256: str | None = None, git_sha1: str | None = None
) -> RemoteFile:
    """A row of a listing. Raises one of ``_MALFORMED`` where it is none."""
    if not isinstance(path, str) or (sha256 and not _SHA256.fullmatch(sha256)):
        raise ValueError(path)
    # Newer git repositories have longer ids, of another hash.
    object_id = git_sha1 if git_sha1 and _SHA1.fullmatch(git_sha1) else None
    return RemoteFile(path, int(size), sha256 or None, object_id)


_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


def _unexpected(title: str, address: str) -> DownloadError:
    return DownloadError(f"{_host(address)} did not answer as {title} does. Check the endpoint.")


TITLES: Mapping[str, str] = {"huggingface": HuggingFace.title, "modelscope": ModelScope.title}

HUBS: Mapping[str, Callable[[str | None, str | None], Hub]] = {
    "huggingface": HuggingFace,
    "modelscope": ModelScope,
}


def _host(url: str) -> str:
    """Host and port alone, since an address may hold a password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
