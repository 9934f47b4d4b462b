"""Runner: queries (a task about a picture) to requests, through a backend, to parsed results."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from .backends.base import Backend, Planner, Resizer
from .errors import BadImage, BadOption, QwenVLError, UnreadableReply, without_frames
from .families import free_text_sampling
from .notes import NotesOfRun
from .observer import GuardedObserver, Observer, PartialObserver
from .query import Query, size_of
from .rounds import Answer, Course, PortionObserver, RoundObserver, portions
from .types import (
    Audio,
    Constraint,
    Family,
    ReplyContext,
    Request,
    Response,
    Result,
    Sampling,
    Size,
    Task,
    Video,
)

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

Generate = Callable[[Backend, Sequence[Request], Observer], list[Response]]
"""How requests are answered: as by ``Backend.generate``."""


def sampling_for(
    backend: Backend,
    task: Task,
    thinking: bool | None = None,
    text_only: bool = False,
    effort: str = "",
) -> Sampling:
    """The default sampling for ``task``. ``text_only``: nothing is shown to the model. ``effort``:
    the query's ``reasoning_effort``.

    OCR and grounding are greedy without penalties. Free text uses the model makers' values for the
    family; so does any reply that begins with thinking, since greedy thinking tends to loop. Where
    the task has values of its own, they go before both.
    """
    thinks = will_think(backend, task, thinking, effort)
    own = Sampling() if task.greedy and not thinks else None
    base = own or free_text_sampling(backend.family, thinks, text_only)
    return dataclasses.replace(base, **{"max_new_tokens": task.max_new_tokens, **task.sampling})


def will_think(
    backend: Backend, task: Task, thinking: bool | None = None, effort: str = ""
) -> bool:
    """Whether replies to ``task`` begin with thinking. Raises ``BadOption`` if the model cannot do
    what ``thinking`` and ``effort``, the ``reasoning_effort``, ask for."""
    return backend.thinks(_resolve_thinking(backend, task, thinking), effort)


def least_thinking(backend: Backend) -> bool | None:
    """The value of ``Request.thinking`` for as little thinking as the model can do with: False, or
    None if it always thinks."""
    return possible_thinking(backend, False)


def possible_thinking(backend: Backend, wish: bool) -> bool | None:
    """``wish``, the value of ``Request.thinking``, of a model that has the choice; else None."""
    try:
        return backend.thinks(wish)
    except BadOption:
        return None


def _resolve_thinking(backend: Backend, task: Task, thinking: bool | None) -> bool | None:
    """OCR and grounding gain nothing from thinking, so it is off by default if it can be; a task
    that wants it gets it of models that can."""
    if thinking is not None:
        return thinking
    if task.thinking is not None:
        return possible_thinking(backend, task.thinking)
    return least_thinking(backend) if task.greedy else None


def answer(
    backend: Backend,
    task: Task,
    pictures: Sequence[Tensor],
    *,
    observer: Observer | None = None,
    **settings: Any,
) -> list[Result]:
    """``answer_all`` for one task about each of ``pictures``. ``settings``: the other fields of
    ``Query``, the same for all."""
    return answer_all(backend, [Query(task, picture, **settings) for picture in pictures], observer)


def answer_all(
    backend: Backend,
    queries: Sequence[Query],
    observer: Observer | None = None,
    report: Callable[[Sequence[Result]], object] | None = None,
    advice: str = "",
    about: str = "picture",
) -> list[Result]:
    """Answers all queries in one batched run, or as many as their methods take.

    Returns one result for each, in order, with boxes in pixels of its own picture. After the run,
    raises the errors of pictures without an answer (``OutOfMemory``, ``NumericalError``,
    ``BadImage``) and ``UnreadableReply`` for replies that could not be parsed, naming the pictures;
    before that, ``report`` is called with
    all results, including the failed ones. ``advice``: a sentence added to these errors, on how
    to keep the other answers. ``about``: what they call that which a query is about.
    """
    answers = _answers(backend, queries, observer or Observer())
    results = [answer.result for answer in answers]
    shown = NotesOfRun()
    for number, result in enumerate(results, 1):
        if told := " ".join(shown.new(result.notes)):
            log.warning("%s %d of %d: %s", about.capitalize(), number, len(results), told)
    try:
        _raise_unanswered(queries, answers, advice, about)
        _raise_unreadable(queries, results, advice, about)
    except QwenVLError:
        if report:
            report(results)
        raise
    return results


def answer_each(
    backend: Backend,
    queries: Sequence[Query],
    on_result: Callable[[int, Result], None],
    observer: Observer | None = None,
    alone: bool = False,
) -> None:
    """As ``answer_all``, with ``on_result(index, result)`` called as soon as each result is there,
    in any order. Failures are results with ``error``; notes are not logged. What ``on_result``
    raises ends the run and reaches the caller unchanged. ``observer`` is called too, for each
    response before its result. ``alone``: where the backend refuses all requests, each fails for
    its own reason, and nothing is raised but for sampling that no query can be asked with."""
    _answers(backend, queries, observer or Observer(), on_result, alone)


def _answers(
    backend: Backend,
    queries: Sequence[Query],
    observer: Observer,
    on_result: Callable[[int, Result], None] | None = None,
    alone: bool = False,
) -> list[Answer]:
    """The answer to each query, a portion at a time. Of several portions each is answered, whether
    or not the others can be asked; of one as well where each is asked ``alone``."""
    parts = list(portions(queries))
    if len(parts) == 1 and not alone:
        return _answer_portion(backend, queries, observer, on_result or _told_nothing)
    limits: list[int] | None = [_limit(backend, query) for query in queries]
    found: list[Answer] = []
    for part in parts:

        def on_part(number: int, result: Result, first: int = part.start) -> None:
            if on_result:
                on_result(first + number, result)

        own = PortionObserver(observer, part.start, limits)
        asked = queries[part.start : part.stop]
        found += _answer_portion(backend, asked, own, on_part, generate_each)
        limits = None
    return found


def _told_nothing(number: int, result: Result) -> None:
    """Nobody waits for single results."""


def _limit(backend: Backend, query: Query) -> int:
    """Raises ``BadOption`` for sampling that no query can be asked with, before any is."""
    sampling = _sampling(backend, query)
    sampling.validate()
    return sampling.max_new_tokens


def _generate_together(
    backend: Backend, requests: Sequence[Request], observer: Observer
) -> list[Response]:
    return backend.generate(requests, observer)


def _answer_portion(
    backend: Backend,
    queries: Sequence[Query],
    observer: Observer,
    on_result: Callable[[int, Result], None],
    generate: Generate = _generate_together,
) -> list[Answer]:
    """The answer to each query, in rounds: one batch of all that is to be asked next. What is
    refused in a later round costs its own query alone: others have been answered."""
    courses = [Course.of(backend, query) for query in queries]
    is_first = True
    while is_first or any(course.pending for course in courses):
        _ask_round(backend, courses, observer, is_first, on_result, generate)
        is_first, generate = False, generate_each
    answers = [course.answer for course in courses if course.answer]
    assert len(answers) == len(courses), "a course without anything to ask has its answer"
    return answers


def _ask_round(
    backend: Backend,
    courses: Sequence[Course],
    observer: Observer,
    is_first: bool,
    on_result: Callable[[int, Result], None],
    generate: Generate,
) -> None:
    """Asks what is pending of all ``courses``, and puts the answers into them."""
    asked = {
        (number, part): query
        for number, course in enumerate(courses)
        for part, query in enumerate(course.pending)
    }
    open_places = set(asked)

    def put(number: int, part: int, response: Response) -> Answer | None:
        """The course's answer, if this response was the last for it."""
        if (number, part) not in open_places:
            return None
        open_places.remove((number, part))
        result = result_of(backend, asked[number, part], response)
        return courses[number].put(part, Answer(result, response))

    def on_answer(number: int, answer: Answer) -> None:
        on_result(number, answer.result)

    relay = RoundObserver(observer, courses, is_first, put, on_answer)
    if not asked and courses:
        relay.start([], [])
    responses = _generate(backend, list(asked.values()), relay, generate)
    for (number, part), response in zip(asked, responses, strict=True):
        # What the backend has not told its observer of.
        if answer := put(number, part, response):
            on_answer(number, answer)


def _generate(
    backend: Backend, queries: Sequence[Query], observer: Observer, generate: Generate
) -> list[Response]:
    """A response to each query; the backend is not asked about what is no picture."""
    responses = {
        index: Response.failed(query.problem)
        for index, query in enumerate(queries)
        if query.problem
    }
    requests = {
        index: request_of(backend, query)
        for index, query in enumerate(queries)
        if index not in responses
    }
    if responses:
        observer = PartialObserver(observer, responses, len(queries))
    if requests:
        answered = generate(backend, list(requests.values()), observer)
        responses |= zip(requests, answered, strict=True)
    elif responses:
        observer.start([], [])
    return [responses[index] for index in range(len(queries))]


def generate_each(
    backend: Backend,
    requests: Sequence[Request],
    observer: Observer,
    refusals: tuple[type[QwenVLError], ...] = (BadImage, BadOption),
) -> list[Response]:
    """As ``Backend.generate``, but an error that is one of ``refusals``, which are raised before
    any work is done, becomes the response to the request that it is about."""
    guarded = GuardedObserver(observer)
    try:
        return backend.generate(requests, guarded)
    except refusals as error:
        if error is guarded.error:
            raise
    observer.start([0] * len(requests), [1] * len(requests))
    responses: list[Response] = []
    for index, request in enumerate(requests):
        try:
            responses += backend.generate([request], PortionObserver(guarded, index, None))
        except refusals as error:
            if error is guarded.error:
                raise
            responses.append(Response.failed(without_frames(error)))
            observer.done(index, responses[-1])
    return responses


def request_of(backend: Backend, query: Query) -> Request:
    """What ``query`` asks of ``backend``; its method is not looked at."""
    return Request.ask(
        query.pictures,
        query.task.prompt,
        system=_system(backend, query),
        sampling=_sampling(backend, query),
        min_pixels=query.min_pixels,
        max_pixels=query.max_pixels,
        frame_pixels=query.max_pixels,
        least_frame_pixels=query.min_pixels,
        video_tokens=query.video_tokens,
        thinking=_resolve_thinking(backend, query.task, query.thinking),
        may_shrink=query.may_shrink,
        logprobs=query.logprobs or query.task.logprobs,
        constraint=_constraint(query.task, backend.family),
        reasoning_effort=query.reasoning_effort,
        voice=query.voice,
    )


def _constraint(task: Task, family: Family) -> Constraint | None:
    return task.constraint_of(family) if task.constraint_of else task.constraint


def _system(backend: Backend, query: Query) -> str:
    system = query.system or query.task.system
    if query.task.instructions is None:
        return system
    instructions = query.task.instructions(backend.family, _expected_size(backend, query))
    return f"{system}\n\n{instructions}".lstrip("\n")


def expected_tokens(backend: Backend, query: Query) -> int:
    """Tokens of what ``query`` shows, as far as that is known before it is resized. Raises
    ``BadImage`` and ``BadOption`` for what this model cannot be shown."""
    if isinstance(backend, Planner):
        return backend.media_tokens(request_of(backend, query))
    factor = backend.family.patch_factor
    sizes = [_expected_size(backend, query, at) for at in range(len(query.pictures))]
    tokens = [(height // factor) * (width // factor) for height, width in sizes]
    # Two frames of a video are a step, which takes as many tokens as a picture.
    steps = [(len(p.times) + 1) // 2 if isinstance(p, Video) else 1 for p in query.pictures]
    counts = [count * own for count, own in zip(steps, tokens, strict=True)]
    most = query.video_tokens or sum(counts)
    shown = zip(query.pictures, counts, strict=True)
    return sum(min(count, most) if isinstance(p, Video) else count for p, count in shown)


def _expected_size(backend: Backend, query: Query, at: int = 0) -> Size:
    """The (height, width) that the picture, or that one of the others, will be resized to: as the
    backend says, else by the bounds of the request, of the backend or of the family."""
    from .media.image_processor import target_size

    height, width = size_of(query.pictures[at] if query.pictures else None)
    if not height:
        return 0, 0
    if isinstance(backend, Resizer):
        try:
            return backend.shown_size((height, width), query.min_pixels, query.max_pixels)
        except (BadImage, BadOption):  # the backend will refuse it, this picture alone
            return height, width
    low, high = backend.family.pixel_bounds
    high = query.max_pixels or max(backend.max_pixels or high, query.min_pixels or 0)
    low = min(query.min_pixels or low, high)
    try:
        return target_size(height, width, backend.family.patch_factor, low, high)
    except BadImage:  # the backend will refuse it, this picture alone
        return height, width


def _sampling(backend: Backend, query: Query) -> Sampling:
    text_only = query.picture is None
    effort = query.reasoning_effort
    return query.sampling or sampling_for(backend, query.task, query.thinking, text_only, effort)


def result_of(backend: Backend, query: Query, response: Response) -> Result:
    """What ``response`` comes to as an answer to ``query``."""
    if response.error or isinstance(query.picture, BadImage):
        return Result(text="", finish_reason="error", error=str(response.error))
    cut = response.finish_reason != "stop"
    context = ReplyContext(
        backend.family,
        query.size,
        response.input_sizes[0] if response.input_sizes else (0, 0),
        cut,
        response.tokens,
        response.held,
    )
    try:
        result = query.task.parse(response.text, context)
    except UnreadableReply as error:
        result = Result(text=error.raw, error=str(error))
    return dataclasses.replace(
        result,
        thinking=response.thinking,
        finish_reason=response.finish_reason,
        notes=(
            *end_notes(_sampling(backend, query), response),
            *result.notes,
            *(query.picture.notes if isinstance(query.picture, Audio) else ()),
        ),
        reply=response.text,
        tokens=response.tokens if query.logprobs else (),
        speech=response.speech,
    )


def end_notes(sampling: Sampling, response: Response) -> tuple[str, ...]:
    """Notes on a reply that the model did not end itself."""
    if response.notes:
        return response.notes
    if response.finish_reason == "length":
        limit = sampling.max_new_tokens
        return (f"The reply was cut at {limit} tokens: raise max_new_tokens for the rest.",)
    if response.finish_reason == "repetition":
        return ("The reply repeated itself and was cut there.",)
    return ()


def _raise_unanswered(
    queries: Sequence[Query], answers: Sequence[Answer], advice: str, about: str
) -> None:
    """Raises the first error, with the pictures of every kind of error."""
    failed: dict[type[QwenVLError], list[tuple[int, QwenVLError]]] = {}
    for number, (query, answer) in enumerate(zip(queries, answers, strict=True), 1):
        if answer.error and not query.keep_unreadable:
            failed.setdefault(type(answer.error), []).append((number, answer.error))
    if not failed:
        return
    sentences = []
    for pairs in failed.values():
        which = _numbered([n for n, _ in pairs], len(answers), about).capitalize()
        sentences.append(f"{which}: {pairs[0][1]}")
    kind, ((_, first), *_) = next(iter(failed.items()))
    raise kind(_join(*sentences, advice)) from first


def _raise_unreadable(
    queries: Sequence[Query], results: Sequence[Result], advice: str, about: str
) -> None:
    failed = [
        (number, result)
        for number, (query, result) in enumerate(zip(queries, results, strict=True), 1)
        if result.error and not query.keep_unreadable
    ]
    if not failed:
        return
    which, first = _numbered([n for n, _ in failed], len(results), about), failed[0][1]
    message = f"The reply for {which} could not be read. {first.error}"
    raise UnreadableReply(_join(message, *first.notes, advice), first.text)


def _join(*sentences: str) -> str:
    return " ".join(filter(None, sentences))


def _numbered(numbers: Sequence[int], count: int, about: str) -> str:
    listed = ", ".join(str(number) for number in numbers[:8])
    more = f" and {len(numbers) - 8} more" if len(numbers) > 8 else ""
    return f"{about}{'s' if len(numbers) > 1 else ''} {listed}{more} of {count}"
