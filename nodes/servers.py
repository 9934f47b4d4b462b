"""Servers of a Server node: its widgets as a spec, and the models that the servers list."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..qwenvl.errors import BadOption
from ..qwenvl.families import FAMILIES, family_named
from ..qwenvl.servers.addresses import check_allowed, parse
from ..qwenvl.servers.kinds import AUTO
from ..qwenvl.types import ServerSpec

ROUTE = "/qwen_vl/server_models"


def families() -> list[str]:
    """What may be chosen as the family of a server's model: those that write."""
    return [AUTO, *(name for name, family in FAMILIES.items() if family.retrieval is None)]


def spec(servers: str, allow_http: bool, **fields: Any) -> ServerSpec:
    """The spec of servers as a person lists them, one a line or with commas between. Nothing is
    asked. Raises ``BadOption`` for addresses that may not be used."""
    found = ServerSpec(tuple(servers.replace(",", " ").split()), allow_http=allow_http, **fields)
    for url in found.urls:
        check_allowed(parse(url), allow_http)
    return found


def listed(body: Mapping[str, str]) -> Mapping[str, Any]:
    """The ``models`` of the servers that a node's widgets name, each with the ``family`` that its
    name tells (empty: none). Asks these servers, as a run would. Raises ``BadOption`` and
    ``ServerError``."""
    from ..qwenvl.backends.openai_server import OpenAIServerBackend

    wanted = spec(body.get("servers", ""), body.get("allow_http", "false") == "true")
    backend = OpenAIServerBackend(wanted)
    try:
        names = backend.list_models()
    finally:
        backend.close()
    if not names:
        raise BadOption(f"{wanted.urls[0]} lists no model: load one there, or write its name.")
    found = [(name, family_named(name)) for name in names]
    return {
        "models": [
            {"name": name, "family": family.title if family else ""} for name, family in found
        ]
    }
