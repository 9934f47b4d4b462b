"""Client of one server at one or more addresses: chat completions, its models and its kind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from functools import partial
from typing import Any, TypeVar

from ..errors import ServerError
from ..types import ServerSpec
from . import faults, retries
from .addresses import Address, check_allowed, parse
from .connection import Connection
from .detection import detect
from .faults import Fault
from .keys import Keys
from .retries import Attempt, Retries

T = TypeVar("T")

Chunks = AsyncIterator[Mapping[str, Any]]

_MANY_CHUNKS = 64
"""Chunks from which on an answer at the time limit counts as long, and not as held up."""
ABOUT_SECONDS = 30.0
"""Seconds in which a server has to say what it is and which models it has, all tries together."""


class Client:
    """Client of the server of ``spec``. To be made and used in one event loop.

    Raises ``BadOption`` for an address that may not be used, ``Unavailable`` without openai."""

    def __init__(self, spec: ServerSpec, keys: Keys):
        addresses = [parse(url) for url in spec.urls]
        for address in addresses:
            check_allowed(address, spec.allow_http)
        self._spec = spec
        self._connections = {
            address: Connection(address, partial(keys.find, address), spec.timeout)
            for address in addresses
        }
        self._retries = Retries(self._connections, spec.concurrency, spec.timeout, keys)

    @property
    def places(self) -> int:
        """Requests that can be under way at once."""
        return len(self._connections) * self._spec.concurrency

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    def try_again(self) -> None:
        """See ``Retries.try_again``."""
        self._retries.try_again()

    async def chat(
        self,
        body: Mapping[str, Any],
        read: Callable[[Chunks], Awaitable[T]],
        restart: Callable[[], None],
        final: Collection[int] = (),
    ) -> tuple[T, Address]:
        """What ``read`` makes of the chunks that answer ``body``, and the address that answered.
        ``restart`` is called before the same is asked again; ``final``: statuses after which it is
        not. Raises ``ServerError``."""

        async def attempt(connection: Connection) -> tuple[T, Address]:
            return await self._answered(connection, body, read), connection.address

        return await self._retries.until_answered(attempt, restart, final=final)

    async def ask_once(
        self, address: Address, body: Mapping[str, Any], read: Callable[[Chunks], Awaitable[T]]
    ) -> T:
        """What ``read`` makes of the chunks with which that very ``address`` answers ``body``.
        Raises ``ServerError``."""
        return await self._retries.until_answered(
            lambda connection: self._answered(connection, body, read), only=address
        )

    async def _answered(
        self,
        connection: Connection,
        body: Mapping[str, Any],
        read: Callable[[Chunks], Awaitable[T]],
    ) -> T:
        """One try; closes the stream, and so the request, however it ends. Raises ``Fault``."""
        count = 0

        async def counted(chunks: Chunks) -> Chunks:
            nonlocal count
            async for chunk in chunks:
                count += 1
                yield chunk

        async def answer() -> T:
            async with contextlib.aclosing(connection.chat(body)) as chunks:
                return await read(counted(chunks))

        try:
            return await asyncio.wait_for(answer(), self._spec.timeout)
        except asyncio.TimeoutError:
            kind: faults.Kind = "long" if count >= _MANY_CHUNKS else "slow"
            raise Fault(kind, "the time limit was reached") from None

    async def models(self) -> list[str]:
        """The names of the server's models, by the first address that answers."""
        return await self._soon(lambda connection: connection.models())

    async def kind(self) -> str:
        """The name of the server's kind, by the first address that answers; see ``detection``."""
        return await self._soon(lambda one: detect(one.get))

    async def _soon(self, attempt: Attempt[T]) -> T:
        """The result of ``attempt``, for callers that wait without being able to stop."""
        asked = self._retries.until_answered(attempt, patience=retries.FOR_FACTS)
        try:
            return await asyncio.wait_for(asked, ABOUT_SECONDS)
        except asyncio.TimeoutError:
            said = self._retries.said() or ", ".join(one.url for one in self._connections)
            raise ServerError(
                f"No server told of itself in {ABOUT_SECONDS:g} seconds ({said}). See whether it "
                "is still starting, or too busy."
            ) from None
