"""Scripted backend: given replies in place of a model, to test whatever asks one without weights.

A reply is replayed token by token as the scheduler generates it: observed, interrupted, cut at its
limit and interleaved with the others of its batch.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..errors import BadImage, BadOption, QwenVLError, Unavailable, unloaded
from ..families import DEFAULT, FAMILIES
from ..observer import Observer
from ..retrieval import check_writes
from ..source import Source
from ..types import Family, Place, Request, Response
from .base import check_candidates
from .scripted_replies import Replay, Reply, Script, token_ids, tokenize

if TYPE_CHECKING:
    from ..media.spans import Span

__all__ = [
    "ContinuousScriptedBackend",
    "Reply",
    "ResidentScriptedBackend",
    "Script",
    "ScriptedBackend",
    "tokenize",
]

T = TypeVar("T")

Score = Sequence[float] | QwenVLError
"""Of each candidate, in order, a number of 0 or more; they need not sum to 1. Or an error."""

Thinking = Literal["never", "off", "on", "always"]
"""Whether a model thinks before its answers; ``off`` and ``on`` are defaults that a request can
change."""


class ScriptedBackend:
    """A ``Backend`` and ``Scorer`` that answers with ``replies``: one for all requests, a sequence
    given in turn and from its beginning again, or a function, called when a request is begun; what
    that raises ends the run. Its weights are nowhere, as those of a server.

    ``family``: a row, or its ``model_type``. Pictures are resized as it needs them, to at most
    ``max_pixels`` (None: unknown). ``scores``: for ``score``, given as ``replies`` are.

    ``requests``: all that were asked, in order. ``batches``: how many in each call of ``generate``.
    ``close_count``: how often it was closed.
    """

    def __init__(
        self,
        replies: Script | Sequence[Script] | Callable[[Request], Script] = "",
        *,
        family: Family | str = DEFAULT,
        thinking: Thinking = "never",
        max_pixels: int | None = None,
        scores: Sequence[Score] | Callable[[Request, Sequence[str]], Score] | None = None,
    ):
        self.family = FAMILIES[family] if isinstance(family, str) else family
        self.max_pixels = max_pixels
        self.requests: list[Request] = []
        self.batches: list[int] = []
        self.close_count = 0
        self._thinking = thinking
        if isinstance(replies, (str, Reply, Response, QwenVLError)):
            replies = [replies]
        self._reply = replies if callable(replies) else _in_turn(replies)
        self._score = scores if scores is None or callable(scores) else _in_turn(scores)
        self._turn = threading.RLock()

    @property
    def closed(self) -> bool:
        return self.close_count > 0

    def close(self) -> None:
        with self._turn:
            self.close_count += 1

    def thinks(self, wish: bool | None = None, effort: str = "") -> bool:
        """See ``Backend.thinks``. An effort of ``none`` turns thinking off, where it can be."""
        if wish is not None and self._thinking == ("never" if wish else "always"):
            raise BadOption(f"The scripted model {self._thinking} thinks.")
        if effort == "none" and self._thinking in ("off", "on"):
            return False
        return self._thinking in ("on", "always") if wish is None else wish

    def generate(
        self, requests: Sequence[Request], observer: Observer | None = None
    ) -> list[Response]:
        """See ``Backend.generate``. As with a local model, a request that cannot be asked
        (``BadOption``, ``BadImage``) has the error in its response; where there is no other, or an
        option lies outside its range, that is raised before any work is done."""
        observer = observer or Observer()
        for request in requests:
            request.sampling.validate()
        check_writes(self.family, self.family.title)
        with self._turn:
            self._check_open()
            self.requests += requests
            self.batches.append(len(requests))
            prompts = [self._replay_of(request) for request in requests]
            refused = [prompt for prompt in prompts if not isinstance(prompt, Replay)]
            if refused and len(refused) == len(prompts):
                raise refused[0]
            return self._replay(prompts, observer) if prompts else []

    def score(
        self,
        requests: Sequence[Request],
        candidates: Sequence[str],
        observer: Observer | None = None,
    ) -> list[list[float] | QwenVLError]:
        """See ``Scorer.score``. Raises ``Unavailable`` where no ``scores`` were given."""
        check_candidates(candidates)
        if self._score is None:
            raise Unavailable("This scripted backend was given no scores.")
        with self._turn:
            self._check_open()
            self.requests += requests
            observer = observer or Observer()
            rows: list[list[float] | QwenVLError] = []
            observer.start([0] * len(requests), [1] * len(requests))
            for index, request in enumerate(requests):
                observer.check()
                given = self._score(request, candidates)
                if isinstance(given, QwenVLError):
                    rows.append(given)
                    observer.done(index, Response.failed(given))
                else:
                    rows.append(_normalized(given, len(candidates)))
                    observer.done(index, Response(""))
        return rows

    def reads(self, ids: Sequence[int], text: str) -> bool:
        """See ``Vocabulary.reads``."""
        return list(ids) == token_ids(tokenize(text))

    def _check_open(self) -> None:
        if self.closed:
            raise unloaded()

    def _bring(self, observer: Observer) -> None:
        """Gets the weights to where they compute; there are none here."""

    def _replay_of(self, request: Request) -> Replay | BadOption | BadImage:
        """What the request comes to, or why it cannot be asked."""
        try:
            return Replay(
                request,
                self._spans(request),
                self.thinks(request.thinking, request.reasoning_effort),
            )
        except (BadOption, BadImage) as error:
            return error

    def media_tokens(self, request: Request) -> int:
        """See ``Planner.media_tokens``."""
        return sum(span.tokens for span in self._spans(request))

    def _spans(self, request: Request) -> list[Span]:
        if not request.media:
            return []
        from ..media.audio_processor import AudioProcessor
        from ..media.image_processor import ImageProcessor
        from ..media.spans import plan_all
        from ..media.video_processor import VideoProcessor

        side = self.family.patch_factor
        # Without a bound of its own 16,384 tokens at most, as in the checkpoints on the hubs.
        most = self.max_pixels or 16384 * side**2
        processor = ImageProcessor(
            patch_size=side // 2, min_pixels=min(4 * side**2, most), max_pixels=most
        ).bounded(request.min_pixels, request.max_pixels)
        watching = self.family.watching
        videos = VideoProcessor.from_config({}, processor, watching) if watching else None
        bounds = request.frame_pixels, request.video_tokens, None, request.least_frame_pixels
        videos = videos and videos.bounded(*bounds)
        hearing = self.family.hearing
        sounds = AudioProcessor.from_config(hearing, {}, {}) if hearing else None
        return plan_all(request.media, processor, videos, watching, sounds)

    def _replay(
        self, prompts: Sequence[Replay | BadOption | BadImage], observer: Observer
    ) -> list[Response]:
        """Answers the requests side by side, each a token a step."""
        observer.check()
        self._bring(observer)
        asked = {i: prompt for i, prompt in enumerate(prompts) if isinstance(prompt, Replay)}
        counts = [asked[i].counts if i in asked else (0, 0) for i in range(len(prompts))]
        observer.start([count for count, _ in counts], [limit for _, limit in counts])
        responses = {
            index: Response.failed(error)
            for index, error in enumerate(prompts)
            if not isinstance(error, Replay)
        }
        for index, response in responses.items():
            observer.done(index, response)
        streams: dict[int, Iterator[str]] = {}
        while asked.keys() - responses.keys():
            for index, prompt in asked.items():
                if index in responses:
                    continue
                observer.check()
                if index not in streams:
                    prompt.answer(self._reply(prompt.request))
                    streams[index] = iter(prompt.stream)
                if (piece := next(streams[index], None)) is not None:
                    observer.token(index, piece)
                else:
                    responses[index] = prompt.response
                    observer.done(index, prompt.response)
        return [responses[index] for index in range(len(prompts))]


class ContinuousScriptedBackend(ScriptedBackend):
    """A ``ScriptedBackend`` that is ``Continuous`` as well. ``batches`` has how many requests were
    taken in at a time; ``most_at_once``: how many are answered side by side."""

    def __init__(self, *args: Any, most_at_once: int = 8, **options: Any):
        super().__init__(*args, **options)
        self.most_at_once = most_at_once

    def generate_from(self, source: Source, observer: Observer) -> None:
        """See ``Continuous.generate_from``."""
        check_writes(self.family, self.family.title)
        with self._turn:
            self._check_open()
            waiting: deque[int] = deque()
            replays: dict[int, Replay] = {}
            streams: dict[int, Iterator[str]] = {}
            count = 0
            while True:
                given = source.more(wait=not replays) if len(waiting) < self.most_at_once else ()
                if given is None:
                    return
                for index, request in enumerate(given, count):
                    request.sampling.validate()
                    prompt = self._replay_of(request)
                    if isinstance(prompt, Replay):
                        replays[index] = prompt
                        waiting.append(index)
                    else:
                        observer.done(index, Response.failed(prompt))
                self.requests += given
                self.batches += [len(given)] if given else []
                count += len(given)
                while waiting and len(streams) < self.most_at_once:
                    index = waiting.popleft()
                    replays[index].answer(self._reply(replays[index].request))
                    streams[index] = iter(replays[index].stream)
                for index in list(streams):
                    observer.check()
                    if (piece := next(streams[index], None)) is not None:
                        observer.token(index, piece)
                    else:
                        del streams[index]
                        observer.done(index, replays.pop(index).response)


class ResidentScriptedBackend(ScriptedBackend):
    """A ``ScriptedBackend`` that is ``Resident`` as well: ``size`` bytes of weights, on disk until
    the first request, are said to move, which an observer is told as loading."""

    def __init__(self, *args: Any, size: int = 0, place: Place = "disk", **options: Any):
        super().__init__(*args, **options)
        self.size = size
        self.place: Place = place

    @property
    def nbytes(self) -> int:
        return 0 if self.place == "disk" else self.size

    def offload(self) -> None:
        if self.place == "device":
            self.place = "ram"

    def release(self) -> None:
        self.place = "disk"

    def close(self) -> None:
        super().close()
        self.release()

    def _bring(self, observer: Observer) -> None:
        if self.place == "disk":
            observer.loading(0, 1)
            observer.loading(1, 1)
        self.place = "device"


def _normalized(scores: Sequence[float], count: int) -> list[float]:
    total = sum(scores)
    if len(scores) != count or min(scores) < 0 or not 0 < total < math.inf:
        raise BadOption(
            f"The scores of {count} candidates are {list(scores)}; give each a number of 0 or "
            "more, at least one of them above 0."
        )
    return [score / total for score in scores]


def _in_turn(items: Sequence[T]) -> Callable[..., T]:
    """Gives one of ``items`` at each call, from the beginning again after the last."""
    if not items:
        raise BadOption("There is no reply to give: the sequence is empty.")
    endless = itertools.cycle(items)
    return lambda *_: next(endless)
