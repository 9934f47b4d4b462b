"""Requests that come up while others are answered, and what is told of their answers."""

from __future__ import annotations

from collections.abc import Sequence

from qwen_vl_suite.qwenvl.observer import Observer, Relay
from qwen_vl_suite.qwenvl.types import Request, Response


class Trickle:
    """Gives requests in ``lots``, one at each time of asking; where ``slow``, none at every other
    time, unless it is waited for."""

    def __init__(self, lots: Sequence[Sequence[Request]], slow: bool = False):
        self._lots, self._slow, self._times = iter(lots), slow, 0

    def more(self, wait: bool) -> Sequence[Request] | None:
        self._times += 1
        if self._slow and not wait and self._times % 2:
            return []
        return next(self._lots, None) if wait else next(self._lots, [])


class Answers(Relay):
    """Keeps what it is told, each answer once."""

    def __init__(self, inner: Observer | None = None) -> None:
        super().__init__(inner or Observer())
        self.found: dict[int, Response] = {}
        self.texts: dict[int, str] = {}
        self.restarted: list[int] = []

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        raise AssertionError("nobody knows how many will come")

    def token(self, index: int, text: str) -> None:
        assert index not in self.found
        self.texts[index] = self.texts.get(index, "") + text
        super().token(index, text)

    def restart(self, index: int) -> None:
        assert index not in self.found
        self.texts.pop(index, None)
        self.restarted.append(index)
        super().restart(index)

    def done(self, index: int, response: Response) -> None:
        assert index not in self.found
        self.found[index] = response
        super().done(index, response)

    @property
    def in_order(self) -> list[Response]:
        return [self.found[index] for index in range(len(self.found))]
