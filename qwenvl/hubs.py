"""Where checkpoints come from: which files a repository holds, and under which addresses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote, urlsplit

from .errors import BadOption, DownloadError

_REPO_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}", re.ASCII)


@dataclass(frozen=True)
class RemoteFile:
    """``path`` inside the repository, ``size`` in bytes, ``sha256`` in hex where the hub knows."""

    path: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True)
class Listing:
    """A repository's files at one ``revision``, as exact a one as the hub tells."""

    revision: str
    files: tuple[RemoteFile, ...]


class Hub(Protocol):
    """A place that hands out files."""

    @property
    def title(self) -> str:
        """Its name for people."""
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
    """The hub ``source`` (``huggingface`` or ``modelscope``). Raises ``BadOption``."""
    if source not in HUBS:
        raise BadOption(f"Unknown source {source!r}: choose one of {', '.join(HUBS)}.")
    if endpoint and urlsplit(endpoint).scheme not in ("http", "https"):
        raise BadOption(f"The endpoint {endpoint!r} is no web address: it must begin with https://")
    return HUBS[source](endpoint.rstrip("/") if endpoint else None, token or None)


def require_repo_id(repo_id: str) -> str:
    """``repo_id`` if it is ``owner/name`` and nothing else. Raises ``BadOption``."""
    if not _REPO_ID.fullmatch(repo_id) or ".." in repo_id:
        raise BadOption(
            f"{repo_id!r} is no repository. Give owner/name, such as Qwen/Qwen3-VL-4B-Instruct."
        )
    return repo_id


def refusal(title: str, repo_id: str, status: int) -> DownloadError:
    """What an HTTP status means to the person who waits for the model."""
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
    """No answer at all."""
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
    def _login(self) -> str | bool | None:
        # None lets the library use the stored login; a mirror of somebody else must not get it.
        return self.token or (False if self.endpoint else None)

    @property
    def headers(self) -> Mapping[str, str]:
        from huggingface_hub.utils import build_hf_headers

        return dict(build_hf_headers(token=self._login))

    def listing(self, repo_id: str, revision: str | None) -> Listing:
        from huggingface_hub import HfApi
        from huggingface_hub.errors import OfflineModeIsEnabled

        api = HfApi(endpoint=self.endpoint, token=self._login)
        try:
            info = api.model_info(repo_id, revision=revision, files_metadata=True, timeout=30)
        except OfflineModeIsEnabled:
            raise unreachable(self.title, _host(api.endpoint), "HF_HUB_OFFLINE is set") from None
        except Exception as error:
            # The library's transport, and with it the types of its errors, changed from requests
            # to httpx between the releases that are supported.
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status is not None:
                raise refusal(self.title, repo_id, status) from None
            raise unreachable(self.title, _host(api.endpoint), type(error).__name__) from None
        files = tuple(
            RemoteFile(row.rfilename, row.size, row.lfs.sha256 if row.lfs else None)
            for row in info.siblings or ()
            if row.size is not None
        )
        return Listing(info.sha or revision or "main", files)

    def url(self, repo_id: str, revision: str, path: str) -> str:
        from huggingface_hub import hf_hub_url

        return str(hf_hub_url(repo_id, path, revision=revision, endpoint=self.endpoint))


@dataclass(frozen=True)
class ModelScope:
    """The interface that ModelScope's own client uses for listings and files."""

    endpoint: str | None
    token: str | None
    title = "ModelScope"

    @property
    def _base(self) -> str:
        return self.endpoint or "https://www.modelscope.cn"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    def listing(self, repo_id: str, revision: str | None) -> Listing:
        import requests

        revision = revision or "master"
        try:
            answer = requests.get(
                f"{self._base}/api/v1/models/{repo_id}/repo/files",
                params={"Revision": revision, "Recursive": "true"},
                headers=dict(self.headers),
                timeout=30,
            )
        except requests.RequestException as error:
            raise unreachable(self.title, _host(self._base), type(error).__name__) from None
        if answer.status_code != 200:
            raise refusal(self.title, repo_id, answer.status_code)
        try:
            rows = answer.json()["Data"]["Files"]
            files = tuple(
                RemoteFile(row["Path"], int(row["Size"]), row.get("Sha256") or None)
                for row in rows
                if row.get("Type") != "tree"
            )
        except (ValueError, KeyError, TypeError):
            raise DownloadError(
                f"{_host(self._base)} did not answer as ModelScope does. Check the endpoint."
            ) from None
        return Listing(revision, files)

    def url(self, repo_id: str, revision: str, path: str) -> str:
        return f"{self._base}/models/{repo_id}/resolve/{quote(revision, safe='')}/{quote(path)}"


HUBS: Mapping[str, Callable[[str | None, str | None], Hub]] = {
    "huggingface": HuggingFace,
    "modelscope": ModelScope,
}


def _host(url: str) -> str:
    """Host and port alone: an address may hold a password."""
    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else str(parts.hostname)
