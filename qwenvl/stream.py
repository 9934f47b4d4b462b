"""Stream: queries that come up while others are answered, and join them.

Of a folder of 100,000 pictures as few are at hand at a time as keep the model busy. Asked one lot
after another, each lot would run out while its longest answer is written; here the next question
takes the place of each that was answered, in backends that can (``Continuous``).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from .backends.base import Backend, Continuous
from .observer import Observer, PartialObserver, Relay
from .query import Query
from .rounds import Answer, Course, PortionObserver, RoundObserver
from .run import generate_each, request_of, result_of
from .types import Request, Response, Result

MOST_IN_A_CALL = 4096
"""Queries that a call of the backend is given. Between two calls others have their turn at the
model, and its free memory is measured anew."""

Queries = Callable[[bool], Sequence[Query] | None]
"""Gives further queries; see ``Source.more``."""


def answer_stream(
    backend: Backend,
    queries: Queries,
    on_result: Callable[[int, Result], None],
    observer: Observer | None = None,
) -> None:
    """As ``run.answer_each``, each query ``alone``, for what ``queries`` gives until its end: the
    numbers count all of these. ``observer.start`` is not called, for nobody knows how many will
    come; nothing is kept of what is answered, and no answer is spoken."""
    stream = _Stream(backend, queries, on_result, observer or Observer())
    while not stream.has_ended:
        stream.begin_call()
        if isinstance(backend, Continuous):
            backend.generate_from(stream, stream)
        else:
            stream.ask_in_turn()


class _Stream(Relay):
    """Source of a backend's requests and observer of its responses."""

    def __init__(
        self,
        backend: Backend,
        queries: Queries,
        on_result: Callable[[int, Result], None],
        observer: Observer,
    ):
        super().__init__(observer)
        self._backend, self._queries, self._on_result = backend, queries, on_result
        self._are_all_begun = False  # queries
        self._begun = 0  # of them
        self._begun_before = 0  # this call
        self._given = 0  # requests of this call
        self._ready: deque[tuple[Request, _Place]] = deque()  # to be given
        self._open: dict[int, _Place] = {}  # given requests without a response

    @property
    def has_ended(self) -> bool:
        """Between two calls: whether nothing is left to be asked."""
        return self._are_all_begun and not self._ready

    def begin_call(self) -> None:
        """The next request that is given is number 0."""
        self._begun_before, self._given = self._begun, 0

    def more(self, wait: bool) -> Sequence[Request] | None:
        """See ``Source.more``. What queries under way ask next comes first."""
        while not self._ready:
            self.check()  # nobody else does while all are answered without the model
            queries = self._next_queries(wait)
            if queries is None:
                return None if wait else []
            for query in queries:
                self._begin(query)
            if not wait:
                break
        requests: list[Request] = []
        while self._ready:
            request, self._open[self._given] = self._ready.popleft()
            requests.append(request)
            self._given += 1
        return requests

    def _next_queries(self, wait: bool) -> Sequence[Query] | None:
        if self._are_all_begun or self._begun - self._begun_before >= MOST_IN_A_CALL:
            return None
        queries = self._queries(wait)
        self._are_all_begun = queries is None
        return queries

    def ask_in_turn(self) -> None:
        """By a backend that takes no more while it answers."""
        while requests := self.more(wait=True):
            first = self._given - len(requests)
            responses = generate_each(self._backend, requests, PortionObserver(self, first, None))
            for index, response in enumerate(responses, first):
                if index in self._open:  # what the backend has not told its observer of
                    self.done(index, response)

    # Queries

    def _begin(self, query: Query) -> None:
        number, self._begun = self._begun, self._begun + 1
        self._ask(number, Course.of(self._backend, query), is_first=True)

    def _ask(self, number: int, course: Course, is_first: bool) -> None:
        """Makes ready what is pending of a query's ``course``."""
        asked = list(course.pending)

        def put(_: int, part: int, response: Response) -> Answer | None:
            result = result_of(self._backend, asked[part], response)
            return course.put(part, Answer(result, response))

        def on_answer(_: int, answer: Answer) -> None:
            self._on_result(number, answer.result)

        own = PortionObserver(self.inner, number, None)
        observer: Observer = RoundObserver(own, [course], is_first, put, on_answer)
        failed = {
            part: Response.failed(query.problem)
            for part, query in enumerate(asked)
            if query.problem
        }
        if failed:
            observer = PartialObserver(observer, failed, len(asked))
        parts = [part for part in range(len(asked)) if part not in failed]
        round_ = _Round(observer, len(parts), lambda: self._go_on(number, course))
        for at, part in enumerate(parts):
            request = request_of(self._backend, asked[part])
            request.sampling.validate()
            self._ready.append((request, (round_, at)))
        observer.start([0] * len(parts), [0] * len(parts))
        if asked and not parts:
            self._go_on(number, course)

    def _go_on(self, number: int, course: Course) -> None:
        """A round of a course is over."""
        if course.pending:
            self._ask(number, course, is_first=False)

    # Observer

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        """Each query has been told of on its own."""

    def token(self, index: int, text: str) -> None:
        round_, at = self._open[index]
        round_.observer.token(at, text)

    def restart(self, index: int) -> None:
        round_, at = self._open[index]
        round_.observer.restart(at)

    def done(self, index: int, response: Response) -> None:
        round_, at = self._open.pop(index)
        round_.done(at, response)


class _Round:
    """Requests of one query that are answered together; ``on_end`` is called behind the last."""

    def __init__(self, observer: Observer, count: int, on_end: Callable[[], None]):
        self.observer, self._left, self._on_end = observer, count, on_end

    def done(self, at: int, response: Response) -> None:
        self.observer.done(at, response)
        self._left -= 1
        if not self._left:
            self._on_end()


_Place = tuple[_Round, int]
"""A request's round, and its number there."""
