"""Served model: the name, family and server kind of a model behind a server, and whether it thinks.

What the spec does not say is asked of the server, once; and once more when the server was lost, for
another one may answer at its address.
"""

from __future__ import annotations

import dataclasses

from ..errors import BadOption, QwenVLError, ServerError
from ..families import FAMILIES, family_named
from ..fine_tunes import as_tuned
from ..observer import Observer
from ..retrieval import as_retrieval
from ..types import Family, Request, ServerSpec
from .client_thread import ClientThread
from .kinds import AUTO, ServerKind
from .kinds import kind as kind_named
from .server_request import ServerRequest
from .thinking import style, thinks

_LOST = (0, 404)
"""HTTP statuses after which another server may be there: no answer at all, and an unknown model."""


class ServedModel:
    """The model of ``spec``, about which ``client`` asks its server."""

    def __init__(self, spec: ServerSpec, client: ClientThread):
        self._spec, self._client = spec, client
        self._name = spec.model
        self._family: Family | None = None
        self._kind: ServerKind | None = None
        self._is_in_doubt = False

    @property
    def urls(self) -> tuple[str, ...]:
        """The server's addresses."""
        return self._spec.urls

    @property
    def name(self) -> str:
        """As ``find_name``, for callers that have no observer."""
        return self.find_name(Observer())

    @property
    def family(self) -> Family:
        """The family that the spec names, else the one that the model's name tells. Raises
        ``BadOption`` where neither does, and as ``find_name``."""
        self._family = self._family or self._find_family(self.name)
        return self._family

    @property
    def kind(self) -> ServerKind:
        """As ``find_kind``, for callers that have no observer."""
        return self.find_kind(Observer())

    def find_name(self, observer: Observer) -> str:
        """What the server calls the model. Raises ``ServerError``, and ``BadOption`` where it lists
        several and the spec names none."""
        self._name = self._name or self._only_one(observer)
        return self._name

    def find_kind(self, observer: Observer) -> ServerKind:
        """The kind of server: by the spec, else by what it says of itself. Raises ``ServerError``,
        and ``BadOption`` for an unknown kind."""
        self._kind = self._kind or self._find_kind(observer)
        return self._kind

    def list_names(self, observer: Observer) -> list[str]:
        """All models of the server. Raises ``ServerError``."""
        return self._client.run(lambda _, client: client.models(), observer)

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        """See ``Backend.thinks``. By the model's name, since its chat template is the server's.
        Raises as ``find_kind`` where the kind tells what a name means."""
        found = style(self.name, self.family, lambda: self.kind)
        is_told = wish is not None and found not in ("never", "always")
        return thinks(self.name, found, self.kind if is_told else None, wish, effort)

    def request(self, request: Request) -> ServerRequest:
        """``request`` as the server is sent it. Raises as ``ServerRequest.of`` and ``thinks``."""
        thinks = self.thinks(request.thinking, request.reasoning_effort)
        return ServerRequest.of(
            request, self.family, self.kind, self._name, thinks, self._spec.picture_format
        )

    def show_videos_as_pictures(self) -> None:
        """The server takes no times with a video: from now on requests show single pictures."""
        self._kind = dataclasses.replace(self.kind, video="pictures")

    def doubt(self, error: QwenVLError) -> None:
        """After ``error`` of a request: notes whether another server may be there by now."""
        if isinstance(error, ServerError) and error.status in _LOST:
            self._is_in_doubt = True

    def prepare(self, observer: Observer) -> bool:
        """Asks for what is not known yet; afterwards nothing here waits for the server. Returns
        whether it was asked anew, so that all that was learned of it no longer holds. Raises as
        ``find_name`` and ``find_kind``."""
        was_in_doubt = self._is_in_doubt
        if was_in_doubt:
            self._name = self._spec.model or self._only_one(observer)
            self._family, self._kind = None, self._find_kind(observer)
            self._is_in_doubt = False
        self.find_name(observer)
        self.find_kind(observer)
        return was_in_doubt

    def _only_one(self, observer: Observer) -> str:
        listed = self.list_names(observer)
        if len(listed) != 1:
            named = f" ({', '.join(listed[:20])})" if listed else ""
            raise BadOption(
                f"{self._spec.urls[0]} lists {len(listed)} models{named}. Say which one is meant."
            )
        return listed[0]

    def _find_family(self, name: str) -> Family:
        wanted = self._spec.family
        family = FAMILIES.get(wanted) if wanted else family_named(name)
        if family is None and wanted:
            known = ", ".join(FAMILIES)
            raise BadOption(f"There is no family {wanted!r}; use one of: {known}.")
        if family is None:
            raise BadOption(
                f"The name {name!r} does not tell which family the model is of, and by a guess "
                "boxes would be read wrongly. Choose the family (in the Server node, or by "
                "--family)."
            )
        return as_retrieval(as_tuned(family, name), name)

    def _find_kind(self, observer: Observer) -> ServerKind:
        name = self._spec.kind
        if name == AUTO:
            name = self._client.run(lambda _, client: client.kind(), observer)
        return kind_named(name)
