"""Observer: progress, streamed text and interrupts of a run, for the caller."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from .types import Response


class Observer:
    """Is called while requests are answered. The base class does nothing: override what you need.

    Any exception raised here (a host's interrupt, ``KeyboardInterrupt``) ends the run within one
    token and reaches the caller unchanged.
    """

    def loading(self, done: int, total: int) -> None:
        """While weights are read: ``done`` of ``total`` parts are loaded."""

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        """Once, before work begins: the prompt length and token limit of each request."""

    def token(self, index: int, text: str) -> None:
        """Request ``index`` got a token that adds ``text`` (may be empty while a character is
        incomplete)."""

    def restart(self, index: int) -> None:
        """Request ``index`` was preempted and starts again: its text so far is void."""

    def done(self, index: int, response: Response) -> None:
        """Request ``index`` is finished."""

    def check(self) -> None:
        """Before every token; raise to stop."""


class Relay(Observer):
    """Observer that passes every call on to ``inner``; for those that add to one method of it."""

    def __init__(self, inner: Observer):
        self.inner = inner

    def loading(self, done: int, total: int) -> None:
        self.inner.loading(done, total)

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        self.inner.start(prompt_tokens, max_new_tokens)

    def token(self, index: int, text: str) -> None:
        self.inner.token(index, text)

    def restart(self, index: int) -> None:
        self.inner.restart(index)

    def done(self, index: int, response: Response) -> None:
        self.inner.done(index, response)

    def check(self) -> None:
        self.inner.check()


class PartialObserver(Relay):
    """Observer of a run that answers only some of ``count`` requests, for ``inner``, which observes
    all of them.

    ``responses``: those of the others, by their index among all; they are ``done`` once the run
    starts. The run's requests are the remaining ones, in order.
    """

    def __init__(self, inner: Observer, responses: Mapping[int, Response], count: int):
        super().__init__(inner)
        self._responses, self._count = responses, count
        self._indices = [index for index in range(count) if index not in responses]

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        self.inner.start(self._spread(prompt_tokens), self._spread(max_new_tokens))
        for index, response in self._responses.items():
            self.inner.done(index, response)

    def _spread(self, counts: Sequence[int]) -> list[int]:
        by_index = dict(zip(self._indices, counts, strict=True))
        return [by_index.get(index, 0) for index in range(self._count)]

    def token(self, index: int, text: str) -> None:
        self.inner.token(self._indices[index], text)

    def restart(self, index: int) -> None:
        self.inner.restart(self._indices[index])

    def done(self, index: int, response: Response) -> None:
        self.inner.done(self._indices[index], response)


class GuardedObserver(Relay):
    """Relay that keeps the ``error`` that ``inner`` raised: a caller's wish to stop is not a
    failure of the run."""

    error: BaseException | None = None

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        with self.guarding():
            super().start(prompt_tokens, max_new_tokens)

    def token(self, index: int, text: str) -> None:
        with self.guarding():
            super().token(index, text)

    def restart(self, index: int) -> None:
        with self.guarding():
            super().restart(index)

    def done(self, index: int, response: Response) -> None:
        with self.guarding():
            super().done(index, response)

    def check(self) -> None:
        with self.guarding():
            super().check()

    def loading(self, done: int, total: int) -> None:
        with self.guarding():
            super().loading(done, total)

    @contextmanager
    def guarding(self) -> Iterator[None]:
        """For what else is the caller's: an error of the block is kept, too."""
        try:
            yield
        except BaseException as error:
            self.error = error
            raise
