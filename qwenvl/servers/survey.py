"""Survey of servers: what answers at each address, which models it has, and whether a key for it
was found."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import BadOption, ServerError, UnsupportedModel
from ..families import family_named
from ..fine_tunes import as_tuned
from ..observer import Observer
from ..retrieval import as_retrieval
from ..types import Family, ServerSpec
from .addresses import check_allowed, parse
from .client import Client
from .event_loop import Event, EventLoopThread, Job
from .keys import Keys
from .kinds import ServerKind, kind


@dataclass(frozen=True)
class ListedModel:
    """A model that a server lists. ``family``: that its name tells; None where it tells none.
    ``remark``: why it cannot be asked as it is, or what it cannot do; empty where all is well."""

    name: str
    family: Family | None
    remark: str = ""


@dataclass(frozen=True)
class ServerFound:
    """What answers at ``url``. ``key``: where a key for it was found, in words; empty without one.
    ``error``: why nothing is known of it; then ``kind`` is None."""

    url: str
    kind: ServerKind | None = None
    models: tuple[ListedModel, ...] = ()
    key: str = ""
    error: str = ""


def survey(specs: Sequence[ServerSpec], keys: Keys, show: Callable[[ServerFound], None]) -> None:
    """Looks at the first address of each of ``specs``, all at once, and calls ``show`` in their
    order. Asks nothing but the models and the kind. Raises ``BadOption`` for an address that may
    not be used, before anything is asked, and ``Unavailable`` without openai."""
    for spec in specs:
        check_allowed(parse(spec.urls[0]), spec.allow_http)

    async def look(job: Job[None]) -> None:
        looks = [asyncio.ensure_future(_found(spec, keys)) for spec in specs]
        try:
            for one in looks:
                job.events.put(_shown(show, await one))
        finally:
            for one in looks:
                one.cancel()
            await asyncio.gather(*looks, return_exceptions=True)

    loop = EventLoopThread("servers")
    try:
        loop.start(look).wait(Observer())
    finally:
        loop.close()


def _shown(show: Callable[[ServerFound], None], found: ServerFound) -> Event:
    return lambda observer: show(found)


async def _found(spec: ServerSpec, keys: Keys) -> ServerFound:
    url, key = spec.urls[0], ""
    client = Client(spec, keys)
    try:
        key = keys.place(parse(url))
        names = await client.models()
        return ServerFound(url, kind(await client.kind()), tuple(map(_model, names)), key)
    except (BadOption, ServerError) as error:
        return ServerFound(url, key=key, error=str(error))
    finally:
        await client.close()


def _model(name: str) -> ListedModel:
    family = family_named(name)
    if family is None:
        return ListedModel(name, None, "its name does not tell the family: give --family")
    try:
        family = as_retrieval(as_tuned(family, name), name)
    except UnsupportedModel as error:
        return ListedModel(name, family, str(error))
    if family.retrieval is not None:
        return ListedModel(name, family, "it writes nothing, and is asked on this machine only")
    return ListedModel(name, family, "" if family.sees else "it sees no pictures")
