"""Proxy that spoils answers on their way: a server behind a bad network, or one that fails."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from urllib.parse import urlsplit

from qwen_vl_suite.benchmarks.loopback import Listener, Request, expected, whole

FAULTS = ("drop", "garbage", "busy", "error", "half", "cut", "wrong json", "wrong form", "drip")
"""``half``: the connection ends within an answer; ``cut``: the answer ends, and all looks complete.
``wrong form``: JSON, but of something else. ``drip``: the right answer, a few bytes at a time.
Beside these there is ``stall``: nothing ever comes."""


class FaultProxy(Listener):
    """Stands before the server at ``upstream``. How a request's first tries end is drawn from
    ``faults`` with ``seed``, ``least`` to ``most`` times for one request; then it gets its answer.
    The server has an error for each whose answer would begin with ``hopeless``.
    ``met``: how often each fault was met; ``tries``: how often each request was asked, by the
    answer that it should get."""

    def __init__(
        self,
        upstream: str,
        faults: Sequence[str] = (),
        least: int = 0,
        most: int = 3,
        hopeless: str = "",
        seed: int = 1,
    ):
        super().__init__()
        self._hopeless = hopeless
        self._upstream = urlsplit(upstream)
        self._faults, self._random = faults, random.Random(seed)
        self._least, self._most = least, most
        self._left: dict[str, list[str]] = {}
        self.met: Counter[str] = Counter()
        self.tries: Counter[str] = Counter()

    def _next(self, body: dict) -> str:
        about = expected(body)
        if about not in self._left:
            count = self._random.randint(self._least, self._most) if self._faults else 0
            self._left[about] = self._random.choices(self._faults, k=count)
        self.tries[about] += 1
        if self._hopeless and about.startswith(self._hopeless):
            fault = "error"
        else:
            fault = self._left[about].pop(0) if self._left[about] else ""
        self.met[fault] += 1
        return fault

    async def answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        fault = self._next(request.body) if request.body else ""
        if fault == "stall":
            await asyncio.sleep(3600)
        elif fault == "drop":
            writer.transport.abort()
        elif fault == "garbage":
            writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        elif fault == "busy":
            busy = {"error": {"message": "too many requests"}}
            writer.write(whole(busy, "429 Too Many Requests", "Retry-After: 0.01\r\n"))
        elif fault == "error":
            writer.write(whole({"error": {"message": "it broke"}}, "500 Internal Server Error"))
        elif fault == "wrong form":
            writer.write(whole(["not", "a", "completion"]))
        else:
            return await self._spoil(await self._ask(request.raw), fault, writer)
        return fault not in ("drop", "garbage")

    async def _spoil(self, answer: bytes, fault: str, writer: asyncio.StreamWriter) -> bool:
        """Sends the server's ``answer``, or what becomes of it."""
        head, _, body = answer.partition(b"\r\n\r\n")
        half = answer[: len(head) + len(body) // 2]
        if fault == "half":
            writer.write(half)
            return False
        if fault == "cut":
            events = body.split(b"\r\n")[1]
            events = events[: events.index(b"\n\n", len(events) // 2) + 2]
            writer.write(head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(events), events))
        elif fault == "wrong json":
            events = body.split(b"\r\n")[1].replace(b'"delta":', b'"delta"')
            writer.write(head + b"\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(events), events))
        elif fault == "drip":
            for start in range(0, len(answer), 97):
                writer.write(answer[start : start + 97])
                await writer.drain()
                await asyncio.sleep(0)
        else:
            writer.write(answer)
        return True

    async def _ask(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(self._upstream.hostname, self._upstream.port)
        writer.write(request)
        writer.write_eof()
        answer = await reader.read()
        writer.close()
        return answer
