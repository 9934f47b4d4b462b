"""Replicas: several addresses of one server, the least busy asked first, a dead one set aside and
tried again later (a circuit breaker)."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from .addresses import Address

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds that an address is set aside after its first failure, doubled with each that follows."""
PATIENCE_AT_FIRST, PATIENCE = 2, 7
"""Failures in a row after which an address counts as lost: of one that never answered, and of one
that did, which may be starting again (about 25 seconds)."""
FAULTS = 24
"""Answers in a row that broke off, after which an address counts as lost as well."""
_DOUBTFUL = 3  # such answers, after which others are asked before it


@dataclass(eq=False)
class Replica:
    """One address. ``active``: requests under way. ``failures``: how often in a row it could not be
    reached; ``faults``: answers in a row that broke off. ``wakes``: the time (``time.monotonic``)
    until which it is set aside."""

    address: Address
    active: int = 0
    failures: int = 0
    faults: int = 0
    wakes: float = 0.0
    has_answered: bool = False

    @property
    def is_on_trial(self) -> bool:
        """Whether it gets but one request, to show that it is back."""
        return self.failures > 0 or self.faults >= FAULTS

    @property
    def is_lost(self) -> bool:
        patience = PATIENCE if self.has_answered else PATIENCE_AT_FIRST
        return self.failures >= patience or self.faults >= FAULTS

    @property
    def is_doubtful(self) -> bool:
        return self.is_on_trial or self.faults >= _DOUBTFUL


class AllLost(Exception):
    """No address answers any more."""


class Replicas:
    """The addresses of one server; at most ``concurrency`` requests are under way at each. To be
    used from one event loop."""

    def __init__(self, addresses: Sequence[Address], concurrency: int):
        self.all = [Replica(address) for address in addresses]
        self._concurrency = concurrency
        self._changed = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def turn(self, but: Replica | None = None) -> AsyncIterator[Replica]:
        """Waits for a place at an address, at another one than ``but`` where there is a choice.
        Raises ``AllLost`` where there is none to wait for."""
        replica = await self._place(but)
        try:
            yield replica
        finally:
            replica.active -= 1
            await self._tell()

    async def _place(self, but: Replica | None) -> Replica:
        async with self._changed:
            while True:
                now = time.monotonic()
                if ready := [replica for replica in self.all if self._is_ready(replica, now)]:
                    chosen = min(ready, key=lambda one: (one is but, one.is_doubtful, one.active))
                    chosen.active += 1
                    return chosen
                if all(one.is_lost and not one.active for one in self.all):
                    raise AllLost
                pauses = [one.wakes - now for one in self.all if one.wakes > now]
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._changed.wait(), min(pauses, default=None))

    def _is_ready(self, replica: Replica, now: float) -> bool:
        most = 1 if replica.is_on_trial else self._concurrency
        return replica.active < most and now >= replica.wakes

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def answered(self, replica: Replica) -> None:
        replica.failures = replica.faults = 0
        replica.has_answered = True

    def busy(self, replica: Replica, seconds: float) -> None:
        """It asked not to be asked for so many ``seconds``."""
        replica.wakes = max(replica.wakes, time.monotonic() + seconds)

    def broke_off(self, replica: Replica) -> None:
        """It broke an answer off."""
        replica.faults += 1
        if replica.faults >= FAULTS:
            self.busy(replica, LONGEST_PAUSE)

    def failed(self, replica: Replica, began: float) -> None:
        """It could not be reached by a request of the time ``began``; those that went out together
        fail together, and count once."""
        now = time.monotonic()
        if replica.failures and began < replica.wakes:
            return
        replica.failures += 1
        pause = FIRST_PAUSE * 2 ** (replica.failures - 1)
        replica.wakes = now + min(pause, LONGEST_PAUSE)
