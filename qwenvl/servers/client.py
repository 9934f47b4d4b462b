"""Client of one server at one or more addresses: every request is asked until it is answered, as
long as that has a point."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any, TypeVar

from ..errors import ServerError
from ..types import ServerSpec
from . import faults
from .addresses import Address, check_allowed, parse
from .connection import Connection
from .detection import detect
from .faults import Fault
from .keys import Keys, variable
from .replicas import AllLost, Replica, Replicas

log = logging.getLogger(__name__)

T = TypeVar("T")

Chunks = AsyncIterator[Mapping[str, Any]]

_MANY_CHUNKS = 64
"""Of an answer that is coming, and not held up by a fault on the way."""
_ABOUT: Mapping[faults.Kind, float] = {**faults.TRIES, "slow": 1}
"""Tries to learn about a server: callers wait for that without being able to stop."""


class Client:
    """Asks the server of ``spec``. To be made and used in one event loop.

    Raises ``BadOption`` for an address that may not be used, ``Unavailable`` without openai."""

    def __init__(self, spec: ServerSpec, keys: Keys):
        addresses = [parse(url) for url in spec.urls]
        for address in addresses:
            check_allowed(address, spec.allow_http)
        self._spec, self._keys = spec, keys
        self._replicas = Replicas(addresses, spec.concurrency)
        self._connections = {
            address: Connection(address, self._key_of(address), spec.timeout)
            for address in addresses
        }
        self._last_words: dict[Address, str] = {}

    @property
    def places(self) -> int:
        """Requests that can be under way at once."""
        return len(self._connections) * self._spec.concurrency

    def _key_of(self, address: Address) -> Callable[[], Any]:
        return lambda: self._keys.find(address)

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    def try_again(self) -> None:
        """Before new work: what was given up may be back, and is tried once more."""
        self._replicas.try_again()

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

        return await self._until_answered(attempt, restart, final=final)

    async def ask_once(
        self, address: Address, body: Mapping[str, Any], read: Callable[[Chunks], Awaitable[T]]
    ) -> T:
        """What ``read`` makes of the chunks with which that very ``address`` answers ``body``, in
        one try and beside the places. Raises ``ServerError``."""
        try:
            return await self._answered(self._connections[address], body, read)
        except Fault as fault:
            raise self._error(address, fault, 1) from None

    async def _answered(
        self,
        connection: Connection,
        body: Mapping[str, Any],
        read: Callable[[Chunks], Awaitable[T]],
    ) -> T:
        """Closes the stream, and with it the request, however it ends. Raises ``Fault``."""
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
        return await self._until_answered(lambda connection: connection.models(), tries=_ABOUT)

    async def kind(self) -> str:
        """The name of the server's kind, by the first address that answers; see ``detection``."""
        return await self._until_answered(lambda one: detect(one.get), tries=_ABOUT)

    async def _until_answered(
        self,
        attempt: Callable[[Connection], Awaitable[T]],
        restart: Callable[[], None] = lambda: None,
        tries: Mapping[faults.Kind, float] = faults.TRIES,
        final: Collection[int] = (),
    ) -> T:
        counts: Counter[str] = Counter()
        failed: Replica | None = None
        while True:
            try:
                async with self._replicas.turn(failed) as replica:
                    try:
                        return await self._once(attempt, replica, is_first=not counts)
                    except Fault as fault:
                        problem, failed = fault, replica
            except AllLost:
                raise self._all_lost() from None
            counts[problem.kind] += 1
            restart()
            if counts[problem.kind] >= tries[problem.kind] or problem.status in final:
                raise self._error(failed.address, problem, sum(counts.values()))
            log.info("Asking again, since %s: %s", failed.address.url, problem.words)
            if problem.kind != "unreachable" and not problem.seconds:
                await asyncio.sleep(faults.delay(counts[problem.kind]))

    async def _once(
        self, attempt: Callable[[Connection], Awaitable[T]], replica: Replica, is_first: bool
    ) -> T:
        """One attempt at one address, whose state is then known better."""
        began = time.monotonic()
        try:
            found = await attempt(self._connections[replica.address])
        except Fault as fault:
            self._last_words[replica.address] = fault.words
            if fault.kind == "unreachable":
                self._replicas.failed(replica, began)
            elif fault.kind == "busy":
                self._replicas.busy(replica, fault.seconds)
            elif fault.kind == "refused":
                self._replicas.answered(replica)
            else:
                self._replicas.broke_off(replica, began, is_first)
            raise
        self._replicas.answered(replica)
        return found

    def _all_lost(self) -> ServerError:
        said = "; ".join(f"{address.url}: {words}" for address, words in self._last_words.items())
        if not any(replica.failures for replica in self._replicas.all):
            return ServerError(f"No request is answered ({said}). Look into the server's log.")
        return ServerError(
            f"No server answers ({said}). Start it (vllm serve, llama-server, ollama serve, ...), "
            "or correct its address, which as a rule ends in /v1."
        )

    def _error(self, address: Address, fault: Fault, tries: int) -> ServerError:
        words = f"{address.url} gave no answer: {fault.words}."
        if tries > 1:
            words = f"{words} It was asked {tries} times."
        return ServerError(f"{words} {self._advice(address, fault)}".strip(), fault.status)

    def _advice(self, address: Address, fault: Fault) -> str:
        if fault.status in (401, 403):
            name = variable(address)
            place = f"in the environment variable {name} or " if name else ""
            return (
                f"Put the key of {address.authority} {place}in the keys file, and see that it is "
                "right."
            )
        if fault.status == 404:
            return "See that the address is right, and the model's name one that it lists."
        if fault.kind in ("slow", "long"):
            return (
                f"The limit is {self._spec.timeout:g} seconds a request: raise it, or ask for "
                "fewer tokens or at fewer places at once."
            )
        return ""
