"""Client of one server at one or more addresses: every request is asked until it is answered, as
long as that has a point."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
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
from .keys import Keys
from .replicas import AllLost, Replica, Replicas

log = logging.getLogger(__name__)

T = TypeVar("T")

Chunks = AsyncIterator[Mapping[str, Any]]

_MANY_CHUNKS = 64
"""Of an answer that is coming, and not held up by a fault on the way."""
_LONGEST_WAIT_ABOUT = 5.0
"""Seconds that a server may ask to wait before it tells of itself."""
ABOUT_SECONDS = 30.0
"""In which a server has to tell of itself and its models, all tries together."""


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
        """What ``read`` makes of the chunks with which that very ``address`` answers ``body``.
        Raises ``ServerError``."""
        return await self._until_answered(
            lambda connection: self._answered(connection, body, read), only=address
        )

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
        return await self._soon(lambda connection: connection.models())

    async def kind(self) -> str:
        """The name of the server's kind, by the first address that answers; see ``detection``."""
        return await self._soon(lambda one: detect(one.get))

    async def _soon(self, attempt: Callable[[Connection], Awaitable[T]]) -> T:
        """Like ``_until_answered``, for what callers wait for without being able to stop."""
        asked = self._until_answered(attempt, tries=faults.FEW_TRIES)
        try:
            return await asyncio.wait_for(asked, ABOUT_SECONDS)
        except asyncio.TimeoutError:
            said = self._said() or ", ".join(one.url for one in self._connections)
            raise ServerError(
                f"No server told of itself in {ABOUT_SECONDS:g} seconds ({said}). See whether it "
                "is still starting, or too busy."
            ) from None

    async def _until_answered(
        self,
        attempt: Callable[[Connection], Awaitable[T]],
        restart: Callable[[], None] = lambda: None,
        tries: Mapping[faults.Kind, float] = faults.TRIES,
        final: Collection[int] = (),
        only: Address | None = None,
    ) -> T:
        """What ``attempt`` comes to at one address after another, or at ``only``. ``final``: HTTP
        status after which nothing is asked again."""
        longest = math.inf if tries is faults.TRIES else _LONGEST_WAIT_ABOUT
        counts: Counter[str] = Counter()
        failed: Replica | None = None
        while True:
            try:
                async with self._replicas.turn(failed, only) as replica:
                    try:
                        return await self._once(attempt, replica, not counts, longest)
                    except Fault as fault:
                        problem, failed = fault, replica
            except AllLost:
                raise self._all_lost(only) from None
            counts[problem.kind] += 1
            restart()
            most = tries[problem.kind]
            if problem.kind == "broken" and failed.fails_at_all:
                most = min(most, faults.TRIES_WHERE_ALL_FAILS)
            if counts[problem.kind] >= most or problem.status in final:
                advice = "" if longest < math.inf else self._time_advice(problem)
                raise self._error(failed.address, problem, sum(counts.values()), advice)
            log.info("Asking again, since %s: %s", failed.address.url, problem.words)
            if problem.kind != "unreachable" and not problem.seconds:
                await asyncio.sleep(faults.delay(counts[problem.kind]))

    async def _once(
        self,
        attempt: Callable[[Connection], Awaitable[T]],
        replica: Replica,
        is_first: bool,
        longest: float,
    ) -> T:
        """One attempt at one address, whose state is then known better. ``longest``: seconds that
        it may ask to wait."""
        began = time.monotonic()
        try:
            found = await attempt(self._connections[replica.address])
        except Fault as fault:
            self._last_words[replica.address] = fault.words
            if fault.kind == "unreachable":
                self._replicas.failed(replica, began)
            elif fault.kind == "busy":
                self._replicas.busy(replica, min(fault.seconds, longest))
            elif fault.kind in ("refused", "long"):
                self._replicas.answered(replica)
            elif fault.status:
                self._replicas.erred(replica, is_first)
            else:
                self._replicas.broke_off(replica, began, is_first)
            raise
        self._replicas.answered(replica)
        return found

    def _said(self, only: Address | None = None) -> str:
        """What was last said at each address, or at ``only``."""
        return "; ".join(
            f"{address.url}: {words}"
            for address, words in self._last_words.items()
            if only in (None, address)
        )

    def _all_lost(self, only: Address | None) -> ServerError:
        said = self._said(only)
        if not any(replica.failures for replica in self._replicas.all):
            return ServerError(f"No request is answered ({said}). Look into the server's log.")
        return ServerError(
            f"No server answers ({said}). Start it (vllm serve, llama-server, ollama serve, ...), "
            "or correct its address, which as a rule ends in /v1."
        )

    def _error(self, address: Address, fault: Fault, tries: int, advice: str) -> ServerError:
        words = f"{address.url} gave no answer: {fault.words}."
        if tries > 1:
            words = f"{words} It was asked {tries} times."
        advice = advice or self._advice(address, fault)
        return ServerError(f"{words} {advice}".strip(), fault.status)

    def _advice(self, address: Address, fault: Fault) -> str:
        if fault.status in (401, 403):
            places = self._keys.places(address)
            if not places:
                return f"No key can be given here for {address.url}: use https and a host's name."
            where = " or ".join(places)
            return f"Put the key of {address.authority} {where}, and see that it is right."
        if fault.status == 404:
            return (
                "See that the address is right (it ends in /v1 as a rule), and the model's name "
                "one that it lists."
            )
        return ""

    def _time_advice(self, fault: Fault) -> str:
        if fault.kind not in ("slow", "long"):
            return ""
        return (
            f"The limit is {self._spec.timeout:g} seconds a request: raise it, or ask for fewer "
            "tokens or at fewer places at once."
        )
