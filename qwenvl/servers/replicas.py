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
ILL, FAULTS = 3, 24
"""Requests in a row whose answers broke off: from ``ILL`` on an address counts as ill, and from
``FAULTS`` on as lost (about 40 seconds, in which a server may start again). The same numbers of
requests that a server answered with an error of its own: from ``ILL`` on other addresses are asked
first, and from ``FAULTS`` on it seems to fail at everything; it is never lost by these."""
LONGEST_REST = 2.0
"""Seconds that an ill address is set aside at most: it can be reached, after all."""


@dataclass(eq=False)
class Replica:
    """One address. ``active``: requests under way. ``failures``: how often in a row it could not be
    reached; ``faults``: requests in a row whose answers broke off; ``errors``: requests in a row
    that it answered with an error of its own. ``paused_until``: the time (``time.monotonic``) until
    which it is set aside."""

    address: Address
    active: int = 0
    failures: int = 0
    faults: int = 0
    errors: int = 0
    paused_until: float = 0.0
    has_answered: bool = False

    @property
    def is_on_trial(self) -> bool:
        """Whether it gets but one request, to show that it is back."""
        return self.failures > 0 or self.faults >= ILL

    @property
    def is_doubtful(self) -> bool:
        """Whether others are asked first."""
        return self.is_on_trial or self.errors >= ILL

    @property
    def fails_at_all(self) -> bool:
        """Whether it seems to answer everything with an error."""
        return self.errors >= FAULTS

    @property
    def is_lost(self) -> bool:
        patience = PATIENCE if self.has_answered else PATIENCE_AT_FIRST
        return self.failures >= patience or self.faults >= FAULTS


class AllLost(Exception):
    """No address answers any more."""


class Replicas:
    """The addresses of one server; at most ``concurrency`` requests are under way at each. To be
    used from one event loop."""

    def __init__(self, addresses: Sequence[Address], concurrency: int):
        self.all = [Replica(address) for address in addresses]
        self._concurrency = concurrency
        self._changed = asyncio.Condition()
        self._bound_to_one = 0  # how many wait for one particular address

    @contextlib.asynccontextmanager
    async def turn(
        self, avoid: Replica | None = None, only: Address | None = None
    ) -> AsyncIterator[Replica]:
        """Waits for a place at an address; ``avoid``: one that is taken only where there is no
        other; ``only``: the one that it has to be. Raises ``AllLost`` where none is left."""
        self._bound_to_one += only is not None
        try:
            replica = await self._place(avoid, [r for r in self.all if only in (None, r.address)])
        finally:
            self._bound_to_one -= only is not None
        try:
            yield replica
        finally:
            replica.active -= 1
            await self._wake_waiting()

    async def _place(self, avoid: Replica | None, wanted: Sequence[Replica]) -> Replica:
        async with self._changed:
            while True:
                now = time.monotonic()
                if ready := [replica for replica in wanted if self._is_ready(replica, now)]:
                    chosen = min(ready, key=lambda one: (one is avoid, one.is_doubtful, one.active))
                    chosen.active += 1
                    return chosen
                if all(one.is_lost and not one.active for one in wanted):
                    self._changed.notify(1)  # who finds the same, and tells the next
                    raise AllLost
                pauses = [one.paused_until - now for one in wanted if one.paused_until > now]
                try:
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._changed.wait(), min(pauses, default=None))
                except asyncio.CancelledError:
                    self._changed.notify(1)  # it may have been woken for a place
                    raise

    def _is_ready(self, replica: Replica, now: float) -> bool:
        return self._places(replica) > 0 and now >= replica.paused_until

    def _places(self, replica: Replica) -> int:
        """How many more requests may go there at once."""
        return max(0, (1 if replica.is_on_trial else self._concurrency) - replica.active)

    async def _wake_waiting(self) -> None:
        """Wakes as many of those who wait as there are places, and one in any case, who looks when
        a replica is to be tried again; and one more for each who may have no use for the place. To
        wake all of 10,000 for each place that becomes free would cost more than all else."""
        async with self._changed:
            places = sum(self._places(one) for one in self.all)
            self._changed.notify(max(1, places) + self._bound_to_one)

    def try_again(self) -> None:
        """Whoever asks anew may have started a lost server in between."""
        for replica in self.all:
            if replica.is_lost:
                replica.paused_until = 0.0

    def answered(self, replica: Replica) -> None:
        replica.failures = replica.faults = replica.errors = 0
        replica.has_answered = True

    def erred(self, replica: Replica, is_first: bool) -> None:
        """It answered with an error of its own, which may be of that one picture: it is there, and
        other requests are asked as before. Only the first try of each (``is_first``) counts."""
        errors = replica.errors + is_first
        self.answered(replica)
        replica.errors = errors

    def busy(self, replica: Replica, seconds: float) -> None:
        """It asked for a pause of so many ``seconds``."""
        replica.paused_until = max(replica.paused_until, time.monotonic() + seconds)

    def broke_off(self, replica: Replica, began: float, is_first: bool) -> None:
        """It broke an answer off that was asked for at the time ``began``. Only what is new counts:
        not what went out together with a request that failed before it, and only the first try of
        each (``is_first``), so that a few pictures that a server cannot bear, or a moment in which
        it fails at all that is under way, cost the others nothing."""
        if began < replica.paused_until or not is_first:
            return
        replica.faults += 1
        if replica.faults >= ILL:
            pause = FIRST_PAUSE * 2 ** (replica.faults - ILL)
            replica.paused_until = time.monotonic() + min(pause, LONGEST_REST)

    def failed(self, replica: Replica, began: float) -> None:
        """It could not be reached by a request of the time ``began``; those that went out together
        fail together, and count once."""
        now = time.monotonic()
        if replica.failures and began < replica.paused_until:
            return
        replica.failures += 1
        pause = FIRST_PAUSE * 2 ** (replica.failures - 1)
        replica.paused_until = now + min(pause, LONGEST_PAUSE)
