"""Server detection: which kind of server answers at an address, from what it says of itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from .faults import Fault
from .kinds import OTHER, kinds

log = logging.getLogger(__name__)

Get = Callable[[str], Awaitable[Any]]
"""Gets a path of the server, such as ``/version``, below its host and not below ``/v1``: the JSON
that it answers with, or None where it answers with an error, with anything else, or not at all."""

Sign = Callable[[Mapping[str, Any]], bool]


def _has(*names: str) -> Sign:
    return lambda found: all(name in found for name in names)


def _is_lmstudio(found: Mapping[str, Any]) -> bool:
    listed = found.get("data")
    return isinstance(listed, list) and all(
        isinstance(one, Mapping) and {"arch", "state"} <= one.keys() for one in listed
    )


def _is_transformers(found: Mapping[str, Any]) -> bool:
    paths = found.get("paths")
    return isinstance(paths, Mapping) and {"/load_model", "/v1/chat/completions"} <= paths.keys()


# LM Studio answers every path with status 200 and an error in JSON, and others imitate Ollama: the
# more telling signs come first, and each looks at what was said.
_SIGNS: tuple[tuple[str, str, Sign], ...] = (
    ("/api/v0/models", "lmstudio", _is_lmstudio),
    ("/get_server_info", "sglang", _has("model_path")),
    ("/props", "llama.cpp", _has("default_generation_settings", "chat_template")),
    ("/openapi.json", "transformers", _is_transformers),
    ("/api/version", "ollama", _has("version")),
    ("/version", "vllm", _has("version")),
)


def kind_of_models(models: Any) -> str:
    """The kind of server whose ``/v1/models`` answered with ``models``; empty where that does not
    show it, such as from a server that loads models on demand and lists none."""
    data = models.get("data") if isinstance(models, Mapping) else None
    owners = {
        str(one.get("owned_by"))
        for one in (data if isinstance(data, list) else ())
        if isinstance(one, Mapping)
    }
    found = {name for name, kind in kinds().items() if owners & set(kind.owners)}
    return found.pop() if len(found) == 1 else ""


async def _told(get: Get, path: str) -> Any:
    """What ``get`` gets; None where it fails: a server may refuse paths that it does not know, or
    let them wait."""
    try:
        return await get(path)
    except Fault as fault:
        log.info("%s does not help to tell the kind of server: %s", path, fault.words)
        return None


async def detect(get: Get, models: Any = None) -> str:
    """The name of the kind of server that ``get`` asks; ``other`` where nothing shows it.
    ``models``: what its ``/v1/models`` answered, as JSON, where that is known. Asks at most seven
    short questions, none where ``models`` shows the kind. Raises ``Fault`` where not even
    ``/v1/models`` is answered; later questions may stay unanswered."""
    told = kind_of_models(models if models is not None else await get("/v1/models"))
    if told:
        return told
    answers = await asyncio.gather(*(_told(get, path) for path, _, _ in _SIGNS))
    for answer, (_, name, is_sign) in zip(answers, _SIGNS, strict=True):
        if isinstance(answer, Mapping) and "error" not in answer and is_sign(answer):
            return name
    return OTHER
