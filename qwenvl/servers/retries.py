"""Retries: a request is tried at one address of a server after another until it is answered, as
long as that has a point."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TypeVar

from ..errors import ServerError
from . import faults
from .addresses import Address
from .connection import Connection
from .faults import Fault
from .keys import Keys
from .replicas import AllLost, Replica, Replicas

log = logging.getLogger(__name__)

T = TypeVar("T")

Attempt = Callable[[Connection], Awaitable[T]]
"""One try of a request at one address. Raises ``Fault``."""


@dataclass(frozen=True)
class Patience:
    """How often a request is tried, by the kind of fault, and how many seconds a server may ask to
    wait before the next try."""

    tries: Mapping[faults.Kind, float]
    longest_wait: float


FOR_ANSWERS = Patience(faults.TRIES, math.inf)
FOR_FACTS = Patience(faults.FEW_TRIES, 5.0)
"""For what a server tells of itself: callers wait for that without being able to stop."""


_START = (
    "Start it (vllm serve, llama-server, ollama serve, ...), or correct its address, which as a "
    "rule ends in /v1."
)


class Retries:
    """Tries requests at the addresses of one server, by ``connections``. From one event loop.
    ``concurrency``: requests under way at once at each; ``limit``: seconds that one try may take,
    for advice; ``keys``: where keys belong, likewise."""

    def __init__(
        self,
        connections: Mapping[Address, Connection],
        concurrency: int,
        limit: float,
        keys: Keys,
    ):
        self._connections = connections
        self._replicas = Replicas(list(connections), concurrency)
        self._limit, self._keys = limit, keys
        self._last_faults: dict[Address, Fault] = {}

    def try_again(self) -> None:
        """Before new work: addresses that were given up may be back, and are tried once more."""
        self._replicas.try_again()

    async def until_answered(
        self,
        attempt: Attempt[T],
        restart: Callable[[], None] = lambda: None,
        patience: Patience = FOR_ANSWERS,
        final: Collection[int] = (),
        only: Address | None = None,
    ) -> T:
        """The result of ``attempt`` at one address after another, or at ``only``. ``restart`` is
        called after each try that failed; ``final``: HTTP statuses after which there is no other.
        Raises ``ServerError``."""
        counts: Counter[str] = Counter()
        failed: Replica | None = None
        while True:
            try:
                async with self._replicas.turn(failed, only) as replica:
                    try:
                        return await self._once(attempt, replica, not counts, patience.longest_wait)
                    except Fault as fault:
                        problem, failed = fault, replica
            except AllLost:
                raise self._all_lost(only) from None
            counts[problem.kind] += 1
            restart()
            most = patience.tries[problem.kind]
            if problem.kind == "broken" and failed.fails_at_all:
                most = min(most, faults.TRIES_WHERE_ALL_FAILS)
            if counts[problem.kind] >= most or problem.status in final:
                raise self._error(failed.address, problem, sum(counts.values()), patience)
            log.info("Asking again, since %s: %s", failed.address.url, problem.words)
            if problem.kind != "unreachable" and not problem.seconds:
                await asyncio.sleep(faults.delay(counts[problem.kind]))

    async def _once(
        self,
        attempt: Attempt[T],
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
            self._last_faults[replica.address] = fault
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

    def said(self, only: Address | None = None) -> str:
        """What was last said at each address, or at ``only``."""
        return "; ".join(
            f"{address.url}: {fault.words}"
            for address, fault in self._last_faults.items()
            if only in (None, address)
        )

    def _all_lost(self, only: Address | None) -> ServerError:
        said = self.said(only)
        if not any(replica.failures for replica in self._replicas.all):
            return ServerError(f"No request is answered ({said}). Look into the server's log.")
        advice = [
            fault.advice or _START
            for address, fault in self._last_faults.items()
            if only in (None, address)
        ]
        return ServerError(" ".join([f"No server answers ({said}).", *dict.fromkeys(advice)]))

    def _error(self, address: Address, fault: Fault, tries: int, patience: Patience) -> ServerError:
        words = f"{address.url} gave no answer: {fault.words}."
        if tries > 1:
            words = f"{words} It was asked {tries} times."
        advice = self._advice(address, fault)
        if patience is FOR_ANSWERS and fault.kind in ("slow", "long"):
            advice = (
                f"The limit is {self._limit:g} seconds a request: raise it, or ask for fewer "
                "tokens or at fewer places at once."
            )
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
