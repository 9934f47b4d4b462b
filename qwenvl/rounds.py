"""Rounds: queries that take several requests each (``Query.method``), answered in rounds of one
batch, and shown to an observer as if each were one request; and portions, of queries that hold too
much to be answered together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from .backends.base import Backend
from .errors import BadImage, QwenVLError, without_frames
from .observer import Observer, Relay
from .query import Query, Steps
from .types import Response, Result

PORTION = 1 << 30
"""Bytes that the queries of a portion hold together; one that holds more is asked alone."""


def portions(queries: Sequence[Query]) -> Iterator[range]:
    """Numbers of queries that are answered together, in order: as many as hold ``PORTION``
    bytes."""
    first = held = 0
    for number, query in enumerate(queries):
        if number > first and held + query.holds > PORTION:
            yield range(first, number)
            first, held = number, 0
        held += query.holds
    yield range(first, len(queries))


@dataclass(frozen=True)
class Answer:
    """A query's result with the response behind it; of a query that took several, the one that
    failed, or all of them joined."""

    result: Result
    response: Response

    @property
    def error(self) -> QwenVLError | None:
        """Why there is no reply."""
        return self.response.error


@dataclass
class Course:
    """One query on its way to its answer. ``pending``: what is to be asked in the next round."""

    query: Query
    pending: Sequence[Query] = ()
    answer: Answer | None = None
    _steps: Steps | None = None
    _given: dict[int, Answer] = field(default_factory=dict)
    _responses: list[Response] = field(default_factory=list)

    @classmethod
    def of(cls, backend: Backend, query: Query) -> Course:
        if query.method is None or isinstance(query.picture, BadImage):
            return cls(query, [query])
        steps = query.method(backend, query)
        course = cls(query, _steps=steps)
        course._advance(lambda: next(steps))
        return course

    @property
    def texts(self) -> list[str]:
        """Of all requests in the rounds that are over."""
        return [response.text for response in self._responses]

    def put(self, part: int, answer: Answer) -> Answer | None:
        """Takes the answer to ``pending[part]``, each once. Returns the query's answer, if that is
        now known."""
        self._given[part] = answer
        if len(self._given) == len(self.pending):
            self._end_round([self._given[index] for index in range(len(self.pending))])
        return self.answer

    def _end_round(self, answers: Sequence[Answer]) -> None:
        steps, self._given = self._steps, {}
        if steps is None:
            (self.answer,), self.pending = answers, ()
            return
        self._responses += [answer.response for answer in answers]
        failed = next(
            (
                answer
                for answer, asked in zip(answers, self.pending, strict=True)
                if answer.result.error and not asked.keep_unreadable
            ),
            None,
        )
        if failed:
            steps.close()
            self.answer, self.pending = failed, ()
        else:
            self._advance(lambda: steps.send([answer.result for answer in answers]))

    def _advance(self, step: Callable[[], Sequence[Query]]) -> None:
        try:
            self.pending = step()
            while not self.pending:
                assert self._steps is not None
                self.pending = self._steps.send([])
        except StopIteration as end:
            self.pending = ()
            self.answer = Answer(end.value, _joined(self._responses))
        except QwenVLError as error:  # a picture that cannot be asked about fails alone
            self.pending = ()
            failed = Response.failed(without_frames(error))
            self.answer = Answer(Result("", finish_reason="error", error=str(error)), failed)


def _joined(responses: Sequence[Response]) -> Response:
    if not responses:
        return Response("")
    reasons = [response.finish_reason for response in responses]
    return Response(
        "\n".join(response.text for response in responses),
        thinking="\n".join(filter(None, (response.thinking for response in responses))),
        finish_reason=next((reason for reason in reasons if reason != "stop"), "stop"),
    )


class PortionObserver(Relay):
    """Observer of a portion of queries, or requests, from number ``first`` on, for ``inner``, which
    observes all of them. ``limits``: of every one the most tokens of its answer, as far as that is
    known before it is asked, which ``inner`` is told when it starts; None: it was told before."""

    def __init__(self, inner: Observer, first: int, limits: Sequence[int] | None):
        super().__init__(inner)
        self._first, self._limits = first, limits

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        if self._limits is None:
            return
        end = self._first + len(max_new_tokens)
        before, behind = self._limits[: self._first], self._limits[end:]
        prompts = [*(0 for _ in before), *prompt_tokens, *(0 for _ in behind)]
        super().start(prompts, [*before, *max_new_tokens, *behind])

    def token(self, index: int, text: str) -> None:
        super().token(self._first + index, text)

    def restart(self, index: int) -> None:
        super().restart(self._first + index)

    def done(self, index: int, response: Response) -> None:
        super().done(self._first + index, response)


class RoundObserver(Relay):
    """Observer of one round's requests for ``inner``, which observes ``courses``, a request each.

    ``put(course, part, response)`` takes each response and returns the course's answer, if that is
    now known; ``on_answer(course, answer)`` is called with it, after ``inner``. The texts of a
    course's requests are shown one after the other.
    """

    def __init__(
        self,
        inner: Observer,
        courses: Sequence[Course],
        is_first: bool,
        put: Callable[[int, int, Response], Answer | None],
        on_answer: Callable[[int, Answer], None],
    ):
        super().__init__(inner)
        self._courses, self._is_first = courses, is_first
        self._put, self._on_answer = put, on_answer
        self._places = [
            (number, part)
            for number, course in enumerate(courses)
            for part in range(len(course.pending))
        ]
        self._single = [course.query.method is None for course in courses]
        self._texts = [[""] * len(course.pending) for course in courses]
        self._finished: list[set[int]] = [set() for _ in courses]

    def start(self, prompt_tokens: Sequence[int], max_new_tokens: Sequence[int]) -> None:
        if self._is_first:
            self.inner.start(self._summed(prompt_tokens), self._summed(max_new_tokens))
        for number, course in enumerate(self._courses):
            if self._is_first and course.answer:
                self._tell(number, course.answer)  # nothing had to be asked
            elif not self._is_first and course.pending:
                self.inner.token(number, "\n")

    def _summed(self, counts: Sequence[int]) -> list[int]:
        sums = [0] * len(self._courses)
        for (number, _), count in zip(self._places, counts, strict=True):
            sums[number] += count
        return sums

    def token(self, index: int, text: str) -> None:
        number, part = self._places[index]
        if not self._single[number]:
            self._texts[number][part] += text
            text = text if part == self._shown(number) else ""
        self.inner.token(number, text)

    def _shown(self, number: int) -> int:
        """The request whose text is shown as it grows: the first that is not finished."""
        parts = range(len(self._texts[number]))
        return next((part for part in parts if part not in self._finished[number]), len(parts))

    def restart(self, index: int) -> None:
        number, part = self._places[index]
        self.inner.restart(number)
        if not self._single[number]:
            self._texts[number][part] = ""
            texts = self._texts[number][: self._shown(number) + 1]
            self.inner.token(number, "\n".join([*self._courses[number].texts, *texts]))

    def done(self, index: int, response: Response) -> None:
        number, part = self._places[index]
        before = self._shown(number)
        self._finished[number].add(part)
        if not self._single[number]:
            for text in self._texts[number][before + 1 : self._shown(number) + 1]:
                self.inner.token(number, f"\n{text}")
        if answer := self._put(number, part, response):
            self._tell(number, answer)

    def _tell(self, number: int, answer: Answer) -> None:
        self.inner.done(number, answer.response)
        self._on_answer(number, answer)
